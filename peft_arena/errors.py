"""The errors a user can cause. Each message is one line: the thing, the reason, the next step."""

import difflib
import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class ArenaError(Exception):
    """Anything the user can mend; `str(error)` is the line to show."""


class SettingError(ArenaError):
    """An environment variable whose value cannot be used."""


class RecipeError(ArenaError):
    """A flag, recipe, method or hyper-parameter that cannot be used."""


class DataError(ArenaError):
    """A dataset, file or column that cannot be used."""


class BaseModelError(ArenaError):
    """A base model that is unknown, out of reach or not the one it claims to be."""


class AdapterError(ArenaError):
    """An adapter folder that cannot be served."""


class TrainingError(ArenaError):
    """A training that cannot go on; what it had reached is kept."""


class StorageError(ArenaError):
    """A file that cannot be written: the disk is full or read-only; what stood there before is kept."""


class HubError(ArenaError):
    """Something the Hub refused or could not do."""


class RequestError(ArenaError):
    """A request to the engine that cannot be answered."""


class BusyError(RequestError):
    """A request that can be answered later: too many wait already."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, as Ctrl-C asks it."""


# safetensors and torch.save have no errno.
_FULL = ("No space left on device", "enforce fail at inline_container", "Disk quota exceeded")
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def told_when_unwritable(then: str) -> Iterator[None]:
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


def in_short(error: BaseException) -> str:
    """What a library says of an error, in one line of at most 200 characters, files by their names alone."""
    return re.sub(r"(?<![\w/:.])(?:/[^\s/'\",:]+)+/", "", " ".join(str(error).split()))[:200]


def unknown(what: str, name: str, choices: Iterable[str]) -> str:
    """One line for a name that is not in `choices`, with the nearest one that is."""
    choices = list(choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"Unknown {what} {name!r}: {hint}Known: {some(choices)}."


def some(names: list[str]) -> str:
    """The names in one line, at most 20, of at most 100 characters: a file can have any columns."""
    short = (" ".join(name.split())[:100] for name in names[:20])
    return ", ".join(short) + (f" and {len(names) - 20:,} more" if len(names) > 20 else "")
