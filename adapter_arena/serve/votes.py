"""Votes of blind duels between adapters: one JSON line each in a file, their tally, the next pair."""

import errno
import itertools
import json
import math
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from adapter_arena import hub, settings
from adapter_arena.errors import ArenaError, BusyError, RequestError
from adapter_arena.stats import wilson

FILE = "votes.jsonl"
MAX_CHARACTERS = 10_000
"""Of a text that is kept with its vote; the rest is cut."""
_SHARE_SECONDS = 60.0
_PLACE = f"{FILE} in the cache folder (ARENA_CACHE)"


@dataclass(frozen=True)
class Tally:
    """How an adapter fared. A tie is half a win in `share`, its 95 % Wilson interval and `strength`.

    `strength` is on the scale of Elo: 400 more are odds of ten to one, 0 is the average opponent.
    """

    adapter: str
    wins: int
    losses: int
    ties: int
    share: float
    share_ci95: tuple[float, float]
    strength: float


class Votes:
    """The votes of one folder; any number of threads and processes may record at once."""

    Counts = Counter[tuple[str, str, bool]]
    """How many votes there are, by winner, loser and whether it was a tie."""

    def __init__(self, folder: Path):
        self.path = folder / FILE
        self._voted = threading.Event()
        self._counting = threading.Lock()
        self._counts: Votes.Counts = Counter()
        self._counted = (0, 0)
        """Which file the counts are of (its inode), and up to which byte."""

    def record(
        self,
        winner: str,
        loser: str,
        tie: bool = False,
        text: str | None = None,
        revisions: dict[str, str | None] | None = None,
    ) -> None:
        """Append one vote; `text` is kept only when given, `revisions` are commits by adapter.

        Raises RequestError for a vote of one adapter against itself, ArenaError when it cannot be
        written: then it is not counted, and all others are.
        """
        if winner == loser:
            raise RequestError(f"A duel needs two different adapters, not {winner[:100]} twice: start another duel.")
        vote = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "winner": winner, "loser": loser, "tie": tie}
        if revisions:
            vote["revisions"] = {name: revisions.get(name) for name in (winner, loser)}
        if text is not None:
            vote["text"] = text[:MAX_CHARACTERS]
        try:
            self._append(json.dumps(vote).encode() + b"\n", settings.number("ARENA_MAX_VOTES_MB"))
        except OSError as error:
            raise ArenaError(
                f"The vote was not counted: {_PLACE} cannot be written ({error.strerror}); free space or make it writable."
            ) from error
        self._voted.set()

    def share(self, repo_id: str) -> None:
        """Keep this file and the Hub dataset `repo_id` the same from now on, beside the app.

        A Space forgets its disk with each restart; the dataset does not. What fails is said on
        stderr and tried again with the next vote: votes stay in the file.
        """
        threading.Thread(target=self._keep_sharing, args=(repo_id,), name="votes", daemon=True).start()

    def _keep_sharing(self, repo_id: str) -> None:
        while True:
            try:
                self.merge(hub.share_lines(repo_id, FILE, self.file()[1]))
            except ArenaError as error:
                print(f"votes: {error}", file=sys.stderr)
            self._voted.wait()
            time.sleep(_SHARE_SECONDS)  # votes come in bursts, and each commit is one more in a public history
            self._voted.clear()

    def merge(self, content: bytes) -> None:
        """Append the lines of another copy that are not here yet. Raises ArenaError."""
        known = set(self.file()[1].splitlines())
        try:
            for line in content.splitlines():
                if line not in known:
                    self._append(line + b"\n")
        except OSError as error:
            raise ArenaError(f"{_PLACE} cannot be written ({error.strerror}): make it writable.") from error

    def tally(self) -> list[Tally]:
        """Every adapter with a vote, the strongest first. Raises ArenaError when the file cannot be read."""
        counts = self._count()
        wins, losses, ties = Counter(), Counter(), Counter()
        for (winner, loser, tie), n in counts.items():
            if tie:
                ties.update({winner: n, loser: n})
            else:
                wins[winner] += n
                losses[loser] += n
        rows = []
        for name, strength in strengths(counts).items():
            score, n = wins[name] + ties[name] / 2, wins[name] + losses[name] + ties[name]
            rows.append(Tally(name, wins[name], losses[name], ties[name], score / n, wilson(score, n), strength))
        return sorted(rows, key=lambda row: -row.strength)

    def pick(self, names: Sequence[str], rng: random.Random) -> tuple[str, str]:
        """Two of `names` in random order, a pair with the fewest votes so far. Raises ArenaError for fewer than two."""
        pairs = list(itertools.combinations(sorted(set(names)), 2))
        if not pairs:
            raise RequestError("A duel needs two adapters: load another.")
        fought = Counter()
        for (winner, loser, _), n in self._count().items():
            fought[frozenset((winner, loser))] += n
        fewest = min(fought[frozenset(pair)] for pair in pairs)
        pair = rng.choice([pair for pair in pairs if fought[frozenset(pair)] == fewest])
        return tuple(rng.sample(pair, 2))

    def file(self) -> tuple[Path, bytes]:
        """The file's path and its whole lines, for a copy elsewhere; nothing when there is no vote yet."""
        lines = self._content().splitlines(keepends=True)
        return self.path, b"".join(line for line in lines if line.strip() and line.endswith(b"\n"))

    def _append(self, line: bytes, most_mb: float = math.inf) -> None:
        """One write in append mode, which local file systems do not mix with others. Raises OSError, BusyError.

        A write that was cut short before costs its own vote and not this one. What looks cut may be
        another's write under way: then a blank line comes between the two, which readers pass over.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(handle).st_size
            if size + len(line) > most_mb * 1e6:
                raise BusyError(
                    f"The vote was not counted: {_PLACE} is at the limit of {most_mb:,g} MB (ARENA_MAX_VOTES_MB); "
                    "its keeper can raise it or move the file away."
                )
            if size and _last_byte(handle) != b"\n":
                line = b"\n" + line
            if os.write(handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return b""
        except OSError as error:
            raise _unreadable(error) from error

    def _count(self) -> Counts:
        """The votes in the file, of which only what is new since the last time is read.

        Lines that are none are passed over; a last one without its end may be under way, and is read later.
        """
        with self._counting:
            try:
                with self.path.open("rb") as file:
                    found = os.fstat(file.fileno())
                    if self._counted[0] != found.st_ino or self._counted[1] > found.st_size:  # another file
                        self._counts, self._counted = Counter(), (found.st_ino, 0)
                    file.seek(end := self._counted[1])
                    for line in file:
                        if not line.endswith(b"\n"):
                            break
                        self._counts.update(_vote(line))
                        end += len(line)
                    self._counted = (found.st_ino, end)
            except (FileNotFoundError, NotADirectoryError):
                self._counts, self._counted = Counter(), (0, 0)
            except OSError as error:
                raise _unreadable(error) from error
            return self._counts.copy()


def _vote(line: bytes) -> list[tuple[str, str, bool]]:
    """The vote of a line; nothing when it holds none."""
    try:
        vote = json.loads(line)
    except (ValueError, RecursionError):
        return []
    sides = [vote.get(key) for key in ("winner", "loser")] if isinstance(vote, dict) else []
    if not all(isinstance(name, str) for name in sides) or len(set(sides)) != 2:
        return []
    return [(*sides, vote.get("tie") is True)]


def _unreadable(error: OSError) -> ArenaError:
    return ArenaError(f"{_PLACE} cannot be read ({error.strerror}): make it readable.")


def _last_byte(handle: int) -> bytes:
    os.lseek(handle, -1, os.SEEK_END)
    return os.read(handle, 1)


def strengths(counts: Votes.Counts) -> dict[str, float]:
    """Bradley-Terry strengths of most likelihood (Bradley & Terry 1952) on the scale of Elo; a tie is half a win each.

    Each adapter also has one tie with an opponent of strength 0, so that who never lost stays finite.
    """
    names = sorted({name for winner, loser, _ in counts for name in (winner, loser)})
    index = {name: i for i, name in enumerate(names)}
    won = numpy.zeros((len(names), len(names)))  # won[i, j]: i against j
    for (winner, loser, tie), n in counts.items():
        won[index[winner], index[loser]] += n / 2 if tie else n
        won[index[loser], index[winner]] += n / 2 if tie else 0

    def loss(strength: numpy.ndarray) -> tuple[float, numpy.ndarray]:
        behind = strength[None, :] - strength[:, None]
        likelihood = (won * log_expit(-behind)).sum() + (log_expit(strength) + log_expit(-strength)).sum() / 2
        surprise = won * expit(behind)
        return -likelihood, expit(strength) - 0.5 + surprise.sum(axis=0) - surprise.sum(axis=1)

    found = minimize(loss, numpy.zeros(len(names)), jac=True, method="L-BFGS-B").x if names else []
    return {name: 400 / math.log(10) * float(value) for name, value in zip(names, found)}
