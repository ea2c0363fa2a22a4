"""How long one text takes with each adapter."""

import statistics
import time
from collections.abc import Callable, Iterable

from adapter_arena.adapters.store import Adapter
from adapter_arena.errors import ArenaError
from adapter_arena.texts import Text

ROUNDS = 9
TEXT = " ".join(["The film takes its time, but what it has to say about growing old stays with you."] * 3)
"""The text that is timed, about 64 tokens."""
PAIR = (TEXT[: len(TEXT) // 2], TEXT[len(TEXT) // 2 :])
"""The same text for adapters of pairs."""


def text_for(adapter: Adapter) -> Text:
    """Return the text, or the pair of texts, that an adapter is timed with."""
    return PAIR if adapter.takes_pairs else TEXT


def measure_latency(predict: Callable[[str], object], names: Iterable[str], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median duration of `predict(name)` in milliseconds, by name.

    The names are timed in turns, so that whatever else the machine does affects all of them alike. The first round
    warms up caches and does not count. A name is left out if `predict` raises ArenaError.
    """
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(rounds + 1):
        for name, measured in list(seconds.items()):
            start = time.perf_counter()
            try:
                predict(name)
            except ArenaError:
                del seconds[name]
                continue
            if round_number > 0:
                measured.append(time.perf_counter() - start)
    milliseconds = {}
    for name, measured in seconds.items():
        milliseconds[name] = 1000 * statistics.median(measured)
    return milliseconds
