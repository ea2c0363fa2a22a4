"""Votes of blind duels between adapters: record them, rank the adapters, pick the next pair, share them on the Hub."""

import itertools
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapter_arena import hub, settings
from adapter_arena.errors import ArenaError, RequestError
from adapter_arena.serve.strengths import strengths
from adapter_arena.serve.vote_file import FILE, VoteFile
from adapter_arena.stats import wilson

MAX_CHARACTERS = 10_000
"""Maximum length of a text that is stored with its vote; longer ones are truncated."""
_SHARE_SECONDS = 60.0


@dataclass(frozen=True)
class Tally:
    """How an adapter fared. A tie is half a win in `share`, its 95 % Wilson interval and `strength`.

    `strength` is on the Elo scale: 400 points more are odds of ten to one, and 0 is the average opponent.
    """

    adapter: str
    wins: int
    losses: int
    ties: int
    share: float
    share_ci95: tuple[float, float]
    strength: float


class Votes:
    """The votes in one folder; any number of threads and processes may record votes in it."""

    def __init__(self, folder: Path):
        self.file = VoteFile(folder / FILE)
        self._new_vote = threading.Event()

    def record(
        self,
        winner: str,
        loser: str,
        tie: bool = False,
        text: str | None = None,
        revisions: dict[str, str | None] | None = None,
    ) -> None:
        """Append one vote, with the text if it is given; `revisions` are commits by adapter.

        Raises RequestError for a vote of an adapter against itself, and ArenaError if the vote cannot be written; it
        is then not counted.
        """
        if winner == loser:
            raise RequestError(f"A duel needs two different adapters, not {winner[:100]} twice: start another duel.")
        vote = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "winner": winner, "loser": loser, "tie": tie}
        if revisions:
            vote["revisions"] = {name: revisions.get(name) for name in (winner, loser)}
        if text is not None:
            vote["text"] = text[:MAX_CHARACTERS]
        self.file.append(json.dumps(vote).encode(), settings.get("ARENA_MAX_VOTES_MB"))
        self._new_vote.set()

    def tally(self) -> list[Tally]:
        """Return every adapter with a vote, the strongest first. Raises ArenaError if the file cannot be read."""
        outcomes = self.file.count()
        wins = Counter()
        losses = Counter()
        ties = Counter()
        for (winner, loser, is_tie), count in outcomes.items():
            if is_tie:
                ties[winner] += count
                ties[loser] += count
            else:
                wins[winner] += count
                losses[loser] += count
        rows = []
        for name, strength in strengths(outcomes).items():
            score = wins[name] + ties[name] / 2
            duels = wins[name] + losses[name] + ties[name]
            interval = wilson(score, duels)
            rows.append(Tally(name, wins[name], losses[name], ties[name], score / duels, interval, strength))
        return sorted(rows, key=lambda row: -row.strength)

    def pick(self, names: Sequence[str], rng: random.Random) -> tuple[str, str]:
        """Return a pair of `names` with the fewest votes so far, in random order. Raises ArenaError."""
        pairs = list(itertools.combinations(sorted(set(names)), 2))
        if not pairs:
            raise RequestError("A duel needs two adapters: load another.")
        duels = Counter()
        for (winner, loser, _), count in self.file.count().items():
            duels[frozenset((winner, loser))] += count
        fewest = min(duels[frozenset(pair)] for pair in pairs)
        pair = rng.choice([pair for pair in pairs if duels[frozenset(pair)] == fewest])
        return tuple(rng.sample(pair, 2))

    # huggingface_hub's CommitScheduler uploads a folder over the Hub's copy, so that a Space, whose disk is empty after
    # a restart, would delete its earlier votes; it also needs the network when it is created.
    def share(self, repo_id: str) -> None:
        """Start a thread that keeps this file and the Hub dataset `repo_id` in step: both get all votes.

        A Space loses its disk with each restart, but not the dataset. Failures are reported on stderr and retried
        with the next vote; the votes stay in the file.
        """
        threading.Thread(target=self._keep_sharing, args=(repo_id,), name="votes", daemon=True).start()

    def _keep_sharing(self, repo_id: str) -> None:
        while True:
            try:
                self._add_missing(hub.share_lines(repo_id, FILE, self.file.lines()))
            except ArenaError as error:
                print(f"votes: {error}", file=sys.stderr)
            self._new_vote.wait()
            time.sleep(_SHARE_SECONDS)  # votes come in bursts, and each commit stays in a public history
            self._new_vote.clear()

    def _add_missing(self, lines: bytes) -> None:
        known = set(self.file.lines().splitlines())
        for line in lines.splitlines():
            if line not in known:
                self.file.append(line)
