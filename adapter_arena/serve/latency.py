"""Measure how long one text takes with each adapter."""

import statistics
import time
from collections.abc import Callable, Iterable

from adapter_arena.errors import ArenaError

TEXT = " ".join(["The film takes its time, but what it has to say about growing old stays with you."] * 3)
"""A text of about 64 tokens."""


def median_latencies(
    predict: Callable[[list[str], str], object], names: Iterable[str], rounds: int = 9
) -> dict[str, float]:
    """Return the median milliseconds that `predict([TEXT], name)` takes for each adapter.

    The adapters take turns, so that other load on the machine affects all of them alike. A first round fills the
    caches and is not counted. Adapters that fail, for example because they were just removed, are left out.
    """
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(rounds + 1):
        for name, measured in seconds.items():
            start = time.perf_counter()
            try:
                predict([TEXT], name)
            except ArenaError:
                continue
            if round_number > 0:
                measured.append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(measured) for name, measured in seconds.items() if measured}
