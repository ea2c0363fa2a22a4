"""How the answers for a file compare with its own labels: the scores of the adapter's task."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy
import pandas
from sklearn.metrics import confusion_matrix

from adapter_arena import stats, task_scores, tasks
from adapter_arena.results import ClassMetrics, Majority, Score

_MOST_LABELS = 20
"""Labels up to which F1 of a single-label adapter has an interval: drawing a larger confusion matrix takes up to seconds."""


@dataclass(frozen=True)
class LabelComparison:
    """Scores on the `n` rows that have an answer and a label of their own; there are none if `n` is 0."""

    n: int
    unlabelled: int
    """Answered rows whose own label is missing or not one of the adapter's."""
    right: int = 0
    """Rows that are answered exactly as labelled; 0 for a regression."""
    scores: dict[str, Score] = field(default_factory=dict)
    """By metric of the task, see `tasks.TASKS`."""
    per_class: dict[str, ClassMetrics] = field(default_factory=dict)
    """Scores of each label; none for a regression."""
    confusion_matrix: list[list[int]] | None = None
    """Rows are true classes, columns predicted ones, in the order of the adapter's labels; of a single-label adapter."""
    majority: Majority | None = None
    """Of a single-label adapter: scores on the same rows of always answering their most frequent label."""

    @property
    def accuracy(self) -> float | None:
        """Share of the rows that are answered exactly as labelled; None without rows and for a regression."""
        return self.right / self.n if self.n and self.majority else None


def compare(frame: pandas.DataFrame, labels: list[str], task: str) -> LabelComparison:
    """Return the comparison of a result frame (see `batch_outcome.Outcome`) whose file has labels.

    Rows of which `right` is missing are left out; of a regression, rows without a number on either side.
    """
    functions: dict[str, Callable[[pandas.DataFrame, list[str]], dict]] = {
        tasks.SINGLE_LABEL: _single_label,
        tasks.MULTI_LABEL: _multi_label,
        tasks.REGRESSION: _regression,
    }
    is_regression = task == tasks.REGRESSION
    is_comparable = frame["difference" if is_regression else "right"].notna()
    comparable = frame[is_comparable]
    is_unlabelled = frame["error"].isna() & frame["truth"].isna()
    found = functions[task](comparable, labels) if len(comparable) else {}
    right = 0 if is_regression else int(comparable["right"].sum())
    return LabelComparison(n=len(comparable), unlabelled=int(is_unlabelled.sum()), right=right, **found)


def _single_label(rows: pandas.DataFrame, labels: list[str]) -> dict:
    matrix = confusion_matrix(rows["truth"], rows["label"], labels=labels)
    n = len(rows)
    right = int(matrix.diagonal().sum())
    scores = {"accuracy": Score(right / n, list(stats.wilson(right, n)))}
    precision, recall, f1 = stats.scores(matrix)
    intervals = None
    if len(labels) <= _MOST_LABELS:
        intervals = stats.bootstrap(matrix)[:, 2]
        scores["f1"] = Score(float(f1[-1]), intervals[:, -1].tolist())
    per_class = {}
    for index, label in enumerate(labels):
        per_class[label] = ClassMetrics(
            precision=float(precision[index]),
            recall=float(recall[index]),
            f1=float(f1[index]),
            n=int(matrix[index].sum()),
            f1_ci95=None if intervals is None else intervals[:, index].tolist(),
        )
    return {
        "scores": scores,
        "per_class": per_class,
        "confusion_matrix": matrix.tolist(),
        "majority": stats.majority(matrix, labels),
    }


def _multi_label(rows: pandas.DataFrame, labels: list[str]) -> dict:
    given = _indicators(rows["label"], labels)
    truth = _indicators(rows["truth"], labels)
    scores, per_class = task_scores.multi_label(given, truth, labels)
    return {"scores": scores, "per_class": per_class}


def _indicators(joined: pandas.Series, labels: list[str]) -> numpy.ndarray:
    """Return which labels each row has, bool, shape (rows, labels)."""

    @functools.cache
    def row_of(names: str) -> numpy.ndarray:
        return numpy.isin(labels, names.split(tasks.SEPARATOR))

    return numpy.stack([row_of(names) for names in joined])


def _regression(rows: pandas.DataFrame, labels: list[str]) -> dict:
    truth = rows["truth"].to_numpy(float)
    predicted = truth + rows["difference"].to_numpy(float)
    return {"scores": task_scores.regression(predicted, truth)}
