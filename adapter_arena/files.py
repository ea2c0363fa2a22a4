"""Files on disk: written completely or not at all, and the cache folder."""

import errno
import functools
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapter_arena.errors import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
_UNUSED_DAYS = 30
"""Days after which `delete_unused` deletes a file that was not used."""
# The errors of safetensors and torch.save have no errno, so a full disk is recognised by their text alone.
_FULL_MESSAGES = (
    "No space left on device",
    "Disk quota exceeded",
    "enforce fail at inline_container",  # of torch.save
    "iostream error",  # of torch.save too, if the end of a file cannot be written
)


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


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file's content, computed again if its size or time of modification changes."""
    facts = path.stat()
    return _sha256(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file completely or not at all, whenever the process is killed. Raises OSError."""
    staging = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    if isinstance(content, bytes):
        staging.write_bytes(content)
    else:
        staging.write_text(content)
    staging.replace(path)


def write_cache(path: Path, content: str | bytes) -> None:
    """Cache `content` at `path`; a failed write is reported on stderr and otherwise ignored."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        print(f"not cached: {path} cannot be written ({error.strerror or error})", file=sys.stderr)


def delete_unused(folder: Path) -> None:
    """Delete the files of a cache folder whose time of modification is more than 30 days ago. Raises OSError."""
    oldest = time.time() - _UNUSED_DAYS * 24 * 3600
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process has deleted or renamed it meanwhile
            if path.stat().st_mtime < oldest:
                path.unlink()


@contextmanager
def explain_disk_errors(next_step: str) -> Iterator[None]:
    """Raise StorageError, which ends with `next_step`, if a file cannot be written in the block, by any library."""
    try:
        yield
    except Exception as error:
        message = _disk_problem(error)
        if message is None:
            raise
        raise StorageError(f"{message}, then {next_step}.") from error


def _disk_problem(error: Exception) -> str | None:
    """Return what is wrong with the disk and what to do about it; None for any other error."""
    path = getattr(error, "filename", None)
    number = getattr(error, "errno", None)
    if number in _FULL or any(text in str(error) for text in _FULL_MESSAGES):
        place = f" ({path})" if path else ""
        return f"The disk is full{place}: free some space"
    if number in _NOT_WRITABLE and path:
        return f"{path} cannot be written ({error.strerror}): make it writable"
    return None
