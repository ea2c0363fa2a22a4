"""The page and the named API, on Gradio."""

from adapter_arena.ui.server import Server, launch, start

__all__ = ["Server", "launch", "start"]
