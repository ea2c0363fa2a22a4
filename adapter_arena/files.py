"""Files on disk: written completely or not at all, and the cache folder."""

import errno
import functools
import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapter_arena.errors import StorageError


def cache_folder() -> Path:
    """Return the folder for quantised bases, baselines and tokenised rows: `ARENA_CACHE`, or the user's cache.

    The folder of earlier versions, which were called PEFT Arena, is used if it is the only one that exists.
    """
    if folder := os.environ.get("ARENA_CACHE"):
        return Path(folder)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "adapter-arena"
    old_folder = root / "peft-arena"
    if old_folder.is_dir() and not folder.exists():
        return old_folder
    return folder


@functools.cache
def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all, whenever the process is killed. Raises OSError."""
    staging = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    staging.write_text(text)
    staging.replace(path)


def write_cache(path: Path, text: str) -> None:
    """Keep what can be had again in a cache; where that cannot be written, it is said and nothing else happens."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except OSError as error:
        print(f"not kept: {path} cannot be written ({error.strerror or error})", file=sys.stderr)


# safetensors and torch.save have no errno.
_FULL = ("No space left on device", "enforce fail at inline_container", "Disk quota exceeded")


_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def explain_disk_errors(then: str) -> Iterator[None]:
    """Raise StorageError, ending with what to do `then`, where a file cannot be written, whichever library finds it."""
    try:
        yield
    except Exception as error:
        place, number = getattr(error, "filename", None), getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT) or any(words in str(error) for words in _FULL):
            where = f" ({place})" if place else ""
            raise StorageError(f"The disk is full{where}: free some space, then {then}.") from error
        if number in _UNWRITABLE and place:
            raise StorageError(
                f"{place} cannot be written ({error.strerror}): make it writable, then {then}."
            ) from error
        raise
