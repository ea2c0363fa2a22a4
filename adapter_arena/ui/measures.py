"""The measured numbers of an adapter that the leaderboard shows in a column, on an axis and in the CSV file."""

from collections.abc import Callable
from dataclasses import dataclass

from adapter_arena import tasks
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
    of_task: bool = False
    """Whether only tasks other than single-label have it."""

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


def _f1(entry: Entry) -> float | None:
    return entry.score(_MACRO_F1)[0]


def _of_metric(metric: tasks.Metric) -> Measure:
    """Return the measure of a metric that single-label adapters do not have."""
    factor = 100 if metric.is_share else 1
    title = f"{metric.title}, %" if metric.is_share else metric.title

    def value(entry: Entry) -> float | None:
        found, _ = entry.score(metric)
        return None if found is None else factor * found

    def interval(entry: Entry) -> list[float] | None:
        _, found = entry.score(metric)
        return None if found is None else [factor * end for end in found]

    digits = 2 if metric.is_share else 3
    axis = Axis(title, f".{digits}f", more_is_better=metric.more_is_better)
    return Measure(axis, value, f"{{:.{digits}f}}".format, interval, of_task=True)


_MACRO_F1 = tasks.TASKS[tasks.MULTI_LABEL].objective
_SINGLE_LABEL = {metric.name for metric in tasks.TASKS[tasks.SINGLE_LABEL].metrics}
_ALL = [
    Measure(Axis("Accuracy, %", ".1f", more_is_better=True), _accuracy, "<b>{:.2f}</b>".format, _accuracy_interval),
    Measure(Axis("F1", ".3f", more_is_better=True), _f1, "{:.3f}".format),
    Measure(Axis("Calibration error", ".3f"), lambda e: e.results and e.results.evaluation.ece, "{:.3f}".format),
    *(
        _of_metric(metric)
        for task in tasks.TASKS.values()
        for metric in task.metrics
        if metric.name not in _SINGLE_LABEL
    ),
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


def shown(entries: list[Entry]) -> dict[str, Measure]:
    """Return the measures to show of these adapters: without those of tasks that none of them has."""
    found = {}
    for name, measure in MEASURES.items():
        if not measure.of_task or any(measure.value(entry) is not None for entry in entries):
            found[name] = measure
    return found
