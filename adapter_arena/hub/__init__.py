"""The Hugging Face Hub: the only package that sends requests to it."""

from adapter_arena.hub.adapters import (
    MAX_LISTED,
    RemoteAdapter,
    discover,
    look_up,
    read,
    recipe_of,
)
from adapter_arena.hub.client import FAILURES, api, share_lines
from adapter_arena.hub.downloads import Preview, download, evict, preview, remove
from adapter_arena.hub.publish import Pushed, PushOptions, check_target, git_id, push
from adapter_arena.hub.target_repo import Target

__all__ = [
    "FAILURES",
    "MAX_LISTED",
    "Preview",
    "PushOptions",
    "Pushed",
    "RemoteAdapter",
    "Target",
    "api",
    "check_target",
    "discover",
    "download",
    "evict",
    "git_id",
    "look_up",
    "preview",
    "push",
    "read",
    "recipe_of",
    "remove",
    "share_lines",
]
