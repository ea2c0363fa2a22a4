"""The file of votes: one JSON object per line, appended by any number of threads and processes."""

import errno
import json
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from adapter_arena.errors import ArenaError, BusyError
from adapter_arena.serve.strengths import Outcomes

FILE = "votes.jsonl"
_LOCATION = f"{FILE} in the cache folder (ARENA_CACHE)"


class VoteFile:
    """Appends and counts votes. A line that was cut short, by a full disk or a kill, only loses its own vote."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._outcomes = Outcomes()
        self._inode = 0
        self._counted_bytes = 0

    def append(self, line: bytes, max_mb: float = math.inf) -> None:
        """Append a line in one write, which local file systems do not interleave with other writes.

        Raises BusyError if the file would get too large and ArenaError if it cannot be written.
        """
        with _explain_os_errors("The vote was not counted: {} cannot be written ({}); free space or make it writable."):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                if size + len(line) > max_mb * 1e6:
                    raise BusyError(
                        f"The vote was not counted: {_LOCATION} is at its limit of {max_mb:,g} MB "
                        "(ARENA_MAX_VOTES_MB). The operator can raise the limit or move the file away."
                    )
                line += b"\n"
                if size and not _ends_line(file):  # cut short, or still being written; readers skip blank lines
                    line = b"\n" + line
                if os.write(file.fileno(), line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def lines(self) -> bytes:
        """Return all complete lines. Raises ArenaError if the file cannot be read."""
        with self._open() as file:
            lines = file.readlines()
        return b"".join(line for line in lines if line.strip() and line.endswith(b"\n"))

    def count(self) -> Outcomes:
        """Return the number of votes by outcome; reads only what was appended since the last call.

        Lines that are not votes are skipped. Raises ArenaError if the file cannot be read.
        """
        with self._lock, self._open() as file:
            self._count_new_lines(file)
            return self._outcomes.copy()

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        """Open the file for reading; without a file there are no votes."""
        with _explain_os_errors("{} cannot be read ({}): make it readable."):
            path = self.path if self.path.exists() else Path(os.devnull)
            with path.open("rb") as file:
                yield file

    def _count_new_lines(self, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        if status.st_ino != self._inode or status.st_size < self._counted_bytes:  # another file
            self._outcomes = Outcomes()
            self._inode = status.st_ino
            self._counted_bytes = 0
        file.seek(self._counted_bytes)
        for line in file:
            if not line.endswith(b"\n"):  # perhaps still being written
                return
            outcome = _parse_outcome(line)
            if outcome:
                self._outcomes[outcome] += 1
            self._counted_bytes += len(line)


def _parse_outcome(line: bytes) -> tuple[str, str, bool] | None:
    """Return winner, loser and whether it was a tie, or None if the line is not a vote."""
    try:
        vote = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(vote, dict):
        return None
    winner = vote.get("winner")
    loser = vote.get("loser")
    if not isinstance(winner, str) or not isinstance(loser, str) or winner == loser:
        return None
    return winner, loser, vote.get("tie") is True


def _ends_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


@contextmanager
def _explain_os_errors(message: str) -> Iterator[None]:
    """Raise ArenaError with the message, in which the file and the reason are filled in."""
    try:
        yield
    except OSError as error:
        raise ArenaError(message.format(_LOCATION, error.strerror)) from error
