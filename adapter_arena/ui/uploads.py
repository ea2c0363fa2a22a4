"""Files that users upload: which ones a request may name, their size on disk, and the tables read from them."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import pandas
from gradio.utils import get_upload_folder
from gradio_client.utils import is_file_obj_with_meta

from adapter_arena import settings
from adapter_arena.lru import LRUCache
from adapter_arena.serve.batch_outcome import Outcome
from adapter_arena.ui.shared import user_error


def check(components: list, values: list) -> None:
    """Raise gr.Error if a request names a file for an input that takes none, or one that was not uploaded.

    For any input of any endpoint, Gradio would read the file or fetch the URL that a file object names.
    """
    folder = Path(get_upload_folder()).resolve()
    for component, value in zip(components, values):
        for path in _file_paths(value):
            if not isinstance(component, gr.File):
                raise user_error("This input takes text, not a file.")
            file = Path(path).resolve()
            if not (file.is_file() and file.is_relative_to(folder)):
                raise user_error("That file was not uploaded, or has been deleted. Please upload it again.")


def _file_paths(value: object) -> list[str]:
    """Return the paths of everything in an input's JSON that Gradio takes for a file."""
    if is_file_obj_with_meta(value):
        return [value["path"]]
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return []
    paths = []
    for item in value:
        paths += _file_paths(item)
    return paths


def stored_mb() -> float:
    """Return the size of all uploads and results on disk, in MB."""
    size = 0
    for folder, _, names in os.walk(get_upload_folder()):
        for name in names:
            try:
                size += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:  # deleted since it was listed
                continue
    return size / 1e6


@dataclass(frozen=True)
class OpenTable:
    """A table that a page of Batch works on, and the answers for its rows once they are scored."""

    table: pandas.DataFrame
    outcome: Outcome | None = None


class TableCache:
    """Tables that pages of Batch work on, each with a secret key; the least recently used are evicted.

    A table in the page's own state would stay in memory for as long as Gradio keeps the state, also after the page is
    closed.
    """

    def __init__(self):
        self._tables: LRUCache[OpenTable] = LRUCache(budget=0)

    def put(self, table: pandas.DataFrame) -> str:
        """Store a table, evict others if all take more than ARENA_TABLES_MB, and return its key."""
        key = secrets.token_urlsafe(16)
        self._store(key, OpenTable(table))
        return key

    def get(self, key: str | None) -> pandas.DataFrame | None:
        """Return the table, or None if it was evicted."""
        opened = self._tables.get(key)
        return None if opened is None else opened.table

    def put_outcome(self, key: str, table: pandas.DataFrame, outcome: Outcome) -> None:
        """Store the answers for a table, and the table again if it was evicted meanwhile."""
        self._store(key, OpenTable(table, outcome))

    def outcome(self, key: str | None) -> Outcome | None:
        """Return the answers for a table, or None if there are none yet or they were evicted."""
        opened = self._tables.get(key)
        return None if opened is None else opened.outcome

    def drop(self, key: str | None) -> None:
        """Delete the table and its answers, if they are still stored."""
        self._tables.remove(key)

    def _store(self, key: str, opened: OpenTable) -> None:
        nbytes = opened.table.memory_usage(deep=True).sum()
        if opened.outcome is not None:
            nbytes += opened.outcome.frame.memory_usage(deep=True).sum()
        self._tables.budget = 1e6 * settings.get("ARENA_TABLES_MB")
        self._tables.put(key, opened, int(nbytes))
