"""The errors a user can cause. Each message is one line: the thing, the reason, the next step."""

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_MOST_NAMES = 20
_MOST_CHARACTERS = 100


class ArenaError(Exception):
    """An error the user can fix; `str(error)` is the line to show."""

    exit_code = 1


class SettingError(ArenaError):
    """An environment variable with an invalid value."""


class RecipeError(ArenaError):
    """An invalid flag, recipe, method or hyper-parameter."""


class DataError(ArenaError):
    """A dataset, file or column that cannot be used."""


class BaseModelError(ArenaError):
    """A base model that is unknown, unreachable or not the one it claims to be."""


class AdapterError(ArenaError):
    """An adapter folder that cannot be served."""


class TrainingError(ArenaError):
    """A training run that cannot continue; its checkpoints remain."""


class StorageError(ArenaError):
    """A file that cannot be written because the disk is full or read-only; the previous file remains."""


class HubError(ArenaError):
    """A request that the Hub refused or failed."""


class RequestError(ArenaError):
    """A request that the engine cannot answer."""


class BusyError(RequestError):
    """A request that can be retried later, because too many are waiting."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C."""

    exit_code = 143


def one_line(error: BaseException) -> str:
    """Return the message of a library's error in one line of at most 200 characters, with file names but no folders."""
    message = " ".join(str(error).split())
    return re.sub(r"(?<![\w/:.])(?:/[^\s/'\",:]+)+/", "", message)[:200]


def invalid_value(error: "ValidationError") -> str:
    """Return the first problem that pydantic found, in one line: `rank should be a valid integer, not 'four'`."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(f"{part!s:.60}" for part in problem["loc"]) or "content"
    reason = problem["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
    if reason.startswith("Input "):
        line = f"{place} {reason.removeprefix('Input ')}, not {problem['input']!r:.60}"
    else:
        line = f"{place}: {reason}"
    return " ".join(line.split())


def unknown(what: str, name: str, choices: Iterable[str]) -> str:
    """One line for a name that is not in `choices`, with the nearest one that is."""
    choices = list(choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"Unknown {what} {name!r}: {hint}Known: {shortened_list(choices)}."


def shortened_list(names: list[str]) -> str:
    """Return the names in one line: at most 20, each of at most 100 characters."""
    shown = []
    for name in names[:_MOST_NAMES]:
        on_one_line = " ".join(name.split())
        shown.append(on_one_line[:_MOST_CHARACTERS])
    line = ", ".join(shown)
    left_out = len(names) - _MOST_NAMES
    if left_out > 0:
        line += f" and {left_out:,} more"
    return line
