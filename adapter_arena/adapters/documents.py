"""Reading the small text files of adapter folders, as editors, Windows and Git leave them: JSON and model cards."""

import json
import re
from pathlib import Path

import yaml

from adapter_arena.errors import AdapterError

_MAX_CARD = 1_000_000
"""Characters of a model card that are read."""
_LFS_POINTER = b"version https://git-lfs"
_STRING_OR_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)


def is_lfs_pointer(path: Path) -> bool:
    """Return whether the file is the text that Git LFS leaves in place of a file it did not download."""
    with path.open("rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER


def unfinished_download(path: Path) -> str | None:
    """Return why the file has no content, and the next step; None if it has some."""
    if path.stat().st_size == 0:
        return "is empty (0 bytes): download it again"
    if is_lfs_pointer(path):
        return "is a Git LFS pointer instead of the file: run `git lfs pull` in its folder"
    return None


def read_json(path: Path) -> dict:
    """Return the JSON object in a file: UTF-8 or UTF-16, with or without BOM and comments. Raises AdapterError."""
    name = path.parent.name
    if problem := unfinished_download(path):
        raise AdapterError(f"Adapter {name}: {path.name} {problem}.")
    content = path.read_bytes()
    try:
        value = _parse(content)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"Adapter {name}: {path.name} is not JSON ({error}); download it again.") from error
    if not isinstance(value, dict):
        raise AdapterError(f"Adapter {name}: {path.name} is not a JSON object; download it again.")
    return value


def _parse(content: bytes) -> object:
    text = content.decode(json.detect_encoding(content))
    try:
        return json.loads(text)
    except ValueError:
        without_comments = _STRING_OR_COMMENT.sub(lambda found: found[1] or "", text)
        if without_comments == text:
            raise
        return json.loads(without_comments)


def card_metadata(folder: Path) -> dict:
    """Return the YAML metadata of the folder's model card; empty if there is no card, or none that can be read.

    All values are strings: in YAML the labels `no` and `yes` are booleans.
    """
    path = folder / "README.md"
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8-sig", errors="replace")[:_MAX_CARD]
    front = re.match(r"\s*---[ \t]*\n(.*?)\n---[ \t]*(\n|$)", text, re.DOTALL)
    if front is None:
        return {}
    try:
        metadata = yaml.load(front[1], Loader=yaml.BaseLoader)  # makes strings, lists and dicts only
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError):  # PyYAML raises these for bad tags
        return {}
    return metadata if isinstance(metadata, dict) else {}
