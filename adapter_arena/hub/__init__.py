"""The Hugging Face Hub: the only package that sends requests to it."""

from adapter_arena.hub.adapters import (
    MAX_LISTED,
    Pushed,
    RemoteAdapter,
    discover,
    download,
    evict,
    look_up,
    push,
    read,
    recipe_of,
    remove,
)
from adapter_arena.hub.client import FAILURES, api, check_can_push, share_lines

__all__ = [
    "FAILURES",
    "MAX_LISTED",
    "Pushed",
    "RemoteAdapter",
    "api",
    "check_can_push",
    "discover",
    "download",
    "evict",
    "look_up",
    "push",
    "read",
    "recipe_of",
    "remove",
    "share_lines",
]
