"""The errors a user can cause. Each message is one line: the thing, the reason, the next step."""

import difflib
import re
from collections.abc import Iterable


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


def one_line(error: BaseException) -> str:
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
