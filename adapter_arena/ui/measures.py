"""The measured numbers of an adapter that the leaderboard shows in a column, on an axis and in the CSV file."""

from collections.abc import Callable
from dataclasses import dataclass

from adapter_arena.serve.entries import Entry
from adapter_arena.ui import fragments
from adapter_arena.ui.charts import Axis


@dataclass(frozen=True)
class Measure:
    """A number of an adapter. `value` and `interval` return None if it is unknown."""

    axis: Axis
    value: Callable[[Entry], float | None]
    write: Callable[[float], str]
    interval: Callable[[Entry], list[float] | None] = lambda entry: None

    def cell(self, entry: Entry) -> str:
        """Return the number as HTML, with its interval if there is one."""
        value = self.value(entry)
        if value is None:
            return "–"
        interval = self.interval(entry)
        if interval is None:
            return self.write(value)
        return f"{self.write(value)} <small>{fragments.interval(*interval)}</small>"


def _accuracy(entry: Entry) -> float | None:
    return None if entry.accuracy is None else 100 * entry.accuracy


def _accuracy_interval(entry: Entry) -> list[float] | None:
    if entry.accuracy_ci95 is None:
        return None
    low, high = entry.accuracy_ci95
    return [100 * low, 100 * high]


_ALL = [
    Measure(Axis("Accuracy, %", ".1f", more_is_better=True), _accuracy, "<b>{:.2f}</b>".format, _accuracy_interval),
    Measure(Axis("F1", ".3f", more_is_better=True), lambda e: e.results and e.results.evaluation.f1, "{:.3f}".format),
    Measure(Axis("Calibration error", ".3f"), lambda e: e.results and e.results.evaluation.ece, "{:.3f}".format),
    Measure(
        Axis("Trained parameters", ".3~s", log=True),
        lambda e: e.results and e.results.training.trainable_params,
        fragments.count,
    ),
    Measure(Axis("Size, MB", log=True), lambda e: e.megabytes, "{:,.1f}".format),
    Measure(Axis("Training, minutes"), lambda e: e.results and e.results.training.seconds / 60, "{:,.1f}".format),
    Measure(Axis("Peak memory, GB"), lambda e: e.results and e.results.training.peak_memory_mb / 1000, "{:.1f}".format),
    Measure(Axis("One text, ms"), lambda e: e.latency_ms, "{:,.0f}".format),
]
MEASURES = {measure.axis.title: measure for measure in _ALL}
"""Every measure by the title of its column."""
