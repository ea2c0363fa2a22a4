"""The numbers that the leaderboard shows in a column, on an axis and in the CSV file."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from adapter_arena import tasks
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import fragments
from adapter_arena.ui.charts import Axis

Interval = list[float]
Scored = tuple[float | None, Interval | None]
"""A number and the ends of its 95 % interval; None if unknown."""


@dataclass(frozen=True)
class Row:
    """A row of the leaderboard: an adapter, or a baseline, which has no `entry`."""

    title: str
    task: str
    dataset: str | None
    base_model: str | None
    entry: Entry | None = None
    scores: dict[str, Scored] = field(default_factory=dict)
    """A baseline's numbers by the key of their measure."""

    @property
    def method(self) -> str | None:
        """The method of an adapter, None of a baseline."""
        return self.entry.method if self.entry else None


@dataclass(frozen=True)
class Measure:
    """A number of a row. `key` is its name in the page's address, which does not change."""

    key: str
    axis: Axis
    of_entry: Callable[[Entry], float | None]
    write: Callable[[float], str]
    interval_of_entry: Callable[[Entry], Interval | None] = lambda entry: None
    digits_of_interval: int = 1

    @property
    def title(self) -> str:
        """The title of its column and axis."""
        return self.axis.title

    def value(self, row: Row) -> float | None:
        """Return the row's number, or None if it is unknown."""
        return self.of_entry(row.entry) if row.entry else row.scores.get(self.key, (None, None))[0]

    def interval(self, row: Row) -> Interval | None:
        """Return the ends of the number's 95 % interval, or None if there is none."""
        return self.interval_of_entry(row.entry) if row.entry else row.scores.get(self.key, (None, None))[1]

    def write_interval(self, row: Row) -> str:
        """Return `91.7–92.6`, or "" if there is no interval."""
        interval = self.interval(row)
        if interval is None:
            return ""
        return "–".join(f"{end:.{self.digits_of_interval}f}" for end in interval)

    def cell(self, row: Row) -> str:
        """Return the number as HTML, with the interval if it is the one by which the row's task ranks models."""
        value = self.value(row)
        if value is None:
            return "–"
        interval = self.write_interval(row) if self.key == objective(row.task).key else ""
        return f"{self.write(value)} <small>{interval}</small>" if interval else self.write(value)


def _of_metric(metric: tasks.Metric) -> Measure:
    """Return the measure of a task's metric; shares are in percent."""
    digits = 2 if metric.is_share else 3
    title = _SHORT_TITLES.get(metric.name, metric.title)
    axis = Axis(f"{title}, %" if metric.is_share else title, f".{digits}~f", more_is_better=metric.more_is_better)

    def value(entry: Entry) -> float | None:
        return scaled(metric, entry.score(metric))[0]

    def interval(entry: Entry) -> Interval | None:
        return scaled(metric, entry.score(metric))[1]

    return Measure(metric.name, axis, value, f"{{:.{digits}f}}".format, interval, digits - 1)


def scaled(metric: tasks.Metric, score: Scored) -> Scored:
    """Return a score of results.json as its measure has it: shares in percent."""
    factor = 100 if metric.is_share else 1
    value, interval = score
    return (
        None if value is None else factor * value,
        None if interval is None else [factor * end for end in interval],
    )


def _accuracy(entry: Entry) -> float | None:
    return None if entry.accuracy is None else 100 * entry.accuracy


def _accuracy_interval(entry: Entry) -> Interval | None:
    return None if entry.accuracy_ci95 is None else [100 * end for end in entry.accuracy_ci95]


_SHORT_TITLES = {"ece": "Calibration error"}
_METRICS = {metric.name: metric for task in tasks.TASKS.values() for metric in task.metrics}
_COSTS = [
    Measure(
        "parameters",
        Axis("Trained parameters", ".3~s", log=True),
        lambda entry: entry.trainable_params,
        fragments.count,
    ),
    Measure("size", Axis("Size, MB", log=True), lambda entry: entry.megabytes, "{:,.1f}".format),
    Measure(
        "minutes",
        Axis("Training, minutes"),
        lambda entry: entry.results and entry.results.training.seconds / 60,
        "{:,.1f}".format,
    ),
    Measure(
        "memory",
        Axis("Peak memory, GB"),
        lambda entry: entry.results and entry.results.training.peak_memory_mb / 1000,
        "{:.1f}".format,
    ),
    Measure("latency", Axis("One text, ms"), lambda entry: entry.latency_ms, "{:,.0f}".format),
]
MEASURES = {
    # An adapter of the Hub that is not fetched has the accuracy of its card.
    "accuracy": Measure(
        "accuracy",
        Axis("Accuracy, %", ".2~f", more_is_better=True),
        _accuracy,
        "{:.2f}".format,
        _accuracy_interval,
    ),
    **{name: _of_metric(metric) for name, metric in _METRICS.items() if name != "accuracy"},
    **{measure.key: measure for measure in _COSTS},
}
"""Every measure by its key: the metrics of all tasks by their names, then the costs."""


def objective(task: str) -> Measure:
    """Return the measure by which a task ranks models."""
    return MEASURES[tasks.TASKS[task].objective.name]


def headline(row: Row) -> float | None:
    """Return the number by which a row is ranked."""
    return objective(row.task).value(row)


def best_first(rows: list[Row]) -> list[Row]:
    """Return the rows of each task in the order of their headline."""
    return sorted(rows, key=lambda row: (row.task, -headline(row)))


def out_of_domain(entries: list[Entry]) -> dict[str, Measure]:
    """Return a measure for each other data set on which any of these adapters was scored, by its key."""
    datasets = sorted({dataset for entry in entries if entry.results for dataset in entry.results.out_of_domain})
    return {f"on:{dataset}": _accuracy_on(dataset) for dataset in datasets}


def _accuracy_on(dataset: str) -> Measure:
    def value(entry: Entry) -> float | None:
        score = entry.results and entry.results.out_of_domain.get(dataset)
        return 100 * score.accuracy if score else None

    axis = Axis(f"On {dataset}, %", ".2~f", more_is_better=True)
    return Measure(f"on:{dataset}", axis, value, "{:.2f}".format)


def names(entries: list[Entry]) -> dict[str, str]:
    """Return a label for each adapter by its name: its method, and its data set if they have several.

    Adapters with the same label have their own name instead.
    """
    several_datasets = len({entry.dataset for entry in entries}) > 1
    labels = {}
    for entry in entries:
        label = entry.name if entry.method == "unknown" else entry.title
        if several_datasets and entry.dataset:
            label += f" · {entry.dataset}"
        labels[entry.name] = label
    counts = Counter(labels.values())
    return {name: name if counts[label] > 1 else label for name, label in labels.items()}


def of_adapters(entries: list[Entry]) -> list[Row]:
    """Return a row for each adapter."""
    labels = names(entries)
    return [Row(labels[entry.name], entry.task, entry.dataset, entry.base_model, entry) for entry in entries]
