"""Files that visitors give: which may be named in a request, and how much of them is held."""

import os
import secrets
import threading
from collections import OrderedDict
from pathlib import Path

import gradio as gr
import pandas
from gradio.utils import get_upload_folder, is_in_or_equal
from gradio_client.utils import is_file_obj_with_meta

from adapter_arena import settings
from adapter_arena.ui.shared import refused


def check(components: list, values: list) -> None:
    """Raise gr.Error where a request names a file that was not uploaded, or names one where none belongs.

    Gradio would fetch whatever a file's path names, an address on the web too, for any input of any endpoint.
    """
    for component, value in zip(components, values):
        for path in _paths(value):
            if not isinstance(component, gr.File):
                raise refused("A file does not belong there: give a text.")
            folder = get_upload_folder()
            if not (Path(path).is_file() and is_in_or_equal(path, folder)):
                raise refused("That file is not among those uploaded, or no longer: upload it again.")


def _paths(value: object) -> list[str]:
    """The paths of all that Gradio takes for files in the JSON of an input."""
    if is_file_obj_with_meta(value):
        return [value["path"]]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [path for item in inside for path in _paths(item)]


def stored_mb() -> float:
    """Megabytes of uploads and results that the disk holds now."""
    sizes = 0
    for folder, _, names in os.walk(get_upload_folder()):
        for name in names:
            try:
                sizes += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:  # deleted since it was listed
                continue
    return sizes / 1e6


class Held:
    """Tables that visitors' pages work on, by a secret key; those used longest ago go where memory is short.

    A page's own state would keep its table for as long as Gradio remembers the page, one that is closed too.
    """

    def __init__(self):
        self._tables: OrderedDict[str, tuple[pandas.DataFrame, int]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, table: pandas.DataFrame) -> str:
        """Hold a table; returns its key."""
        key, size = secrets.token_urlsafe(16), int(table.memory_usage(deep=True).sum())
        with self._lock:
            self._tables[key] = table, size
            most = 1e6 * settings.number("ARENA_TABLES_MB")
            while len(self._tables) > 1 and sum(size for _, size in self._tables.values()) > most:
                self._tables.popitem(last=False)
        return key

    def get(self, key: str | None) -> pandas.DataFrame | None:
        """The table, if it is still there."""
        with self._lock:
            if key not in self._tables:
                return None
            self._tables.move_to_end(key)
            return self._tables[key][0]

    def drop(self, key: str | None) -> None:
        """Let go of a table."""
        with self._lock:
            self._tables.pop(key, None)
