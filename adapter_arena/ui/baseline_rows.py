"""The last rows of the leaderboard: what is reached without fine-tuning on the test rows of its adapters."""

import html
from dataclasses import dataclass

from adapter_arena import tasks
from adapter_arena.results import BASELINE_TITLES, Baseline, Score, SimpleBaseline, baseline_titles, score_in
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import fragments

_COLUMNS = {"accuracy": "Accuracy, %", "f1": "F1"}


@dataclass(frozen=True)
class _Row:
    """A row of the table: where it was measured, the order in which it is shown, and its scores."""

    dataset: str
    order: int
    title: str
    scores: SimpleBaseline | Baseline | dict[str, Score]


def cells(entries: list[Entry], column_titles: list[str]) -> list[list[str]]:
    """Return the cells as HTML of a row for each baseline: those without fine-tuning, and below them the untrained base.

    There are rows for the data sets of which an adapter has such baselines.
    """
    rows = _rows(entries)
    several_datasets = len({row.dataset for row in rows}) > 1
    return [_cells(row, column_titles, several_datasets) for row in rows]


def _rows(entries: list[Entry]) -> list[_Row]:
    """Return the different rows of all entries, by data set."""
    measured = [entry for entry in entries if entry.results and entry.results.evaluation.baselines]
    several_bases = len({entry.base_model for entry in measured}) > 1
    rows: dict[tuple, _Row] = {}
    for entry in measured:
        evaluation = entry.results.evaluation
        base = f", {entry.base_model}" if several_bases else ""
        for order, (key, title) in enumerate(baseline_titles(entry.task).items()):
            baseline = evaluation.baselines.get(key)
            if baseline is None:
                continue
            if key == "probe":
                title += base
            # Adapters of one data set may have been trained on fewer rows, and the baselines with them.
            score, _ = score_in(baseline, tasks.TASKS[entry.task].objective)
            rows[entry.dataset, order, title, score] = _Row(entry.dataset, order, title, baseline)
        order = len(BASELINE_TITLES)
        title = f"Untrained{base}"
        # Each seed draws another head; one of them is enough.
        untrained = evaluation.untrained or evaluation.baseline
        rows.setdefault((entry.dataset, order, title), _Row(entry.dataset, order, title, untrained))
    return sorted(rows.values(), key=lambda row: (row.dataset, row.order, row.title))


def _cells(row: _Row, column_titles: list[str], with_dataset: bool) -> list[str]:
    scores = row.scores
    title = f"{row.title} · {row.dataset}" if with_dataset else row.title
    known = {"Adapter": html.escape(title), "Source": "not fine-tuned"}
    for task in tasks.TASKS.values():
        for metric in task.table_metrics:
            value, interval = score_in(scores, metric)
            if value is None:
                continue
            cell = metric.number(value)
            if interval and metric.name != "f1":
                low, high = (metric.factor * end for end in interval)
                cell += f" <small>{fragments.interval(low, high)}</small>"
            known[_COLUMNS.get(metric.name) or metric.column] = cell
    if isinstance(scores, SimpleBaseline) and scores.c is not None:
        known["Training, minutes"] = f"{scores.seconds / 60:,.1f}"
    return [known.get(name, "–") for name in column_titles]
