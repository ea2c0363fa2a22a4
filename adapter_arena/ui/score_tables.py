"""Tables of scores that Adapters and Batch share: the confusion matrix, the scores of each class, and of a task."""

import html
from collections.abc import Iterable

from adapter_arena import tasks
from adapter_arena.results import ClassMetrics, Score
from adapter_arena.ui import fragments
from adapter_arena.ui.fragments import Column

MOST_COLUMNS = 12
"""Labels up to which the confusion matrix is shown as one; of more, the most frequent confusions are listed."""
_MOST_CONFUSIONS = 10


def confusion(labels: list[str], matrix: list[list[int]]) -> str:
    """Return the confusion matrix with cells shaded by their share of the true class; rows are true classes."""
    if len(labels) > MOST_COLUMNS:
        return _confusions(labels, matrix)
    header = "".join(f'<th class="number" scope="col">{html.escape(name)}</th>' for name in labels)
    rows = ""
    for index, name in enumerate(labels):
        cells = "".join(_confusion_cell(labels, matrix[index], index, column) for column in range(len(labels)))
        rows += f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
    head = f'<thead><tr><th scope="col">Label ↓ Answer →</th>{header}</tr></thead>'
    return f'<div class="scroll"><table class="data confusion">{head}<tbody>{rows}</tbody></table></div>'


def _confusion_cell(labels: list[str], counts: list[int], row: int, column: int) -> str:
    count = counts[column]
    share = count / max(1, sum(counts))
    kind = "right" if row == column else "wrong"
    title = f"{100 * share:.1f} % of {labels[row]} answered {labels[column]}"
    return f'<td class="number {kind}" style="--share:{share:.3f}" title="{html.escape(title)}">{count:,}</td>'


def confusions(labels: list[str], matrix: list[list[int]]) -> list[tuple[str, str, int, float]]:
    """Return the true class, the answer, the count and its share of the true class, the most frequent first."""
    found = []
    for row, label in enumerate(labels):
        total = max(1, sum(matrix[row]))
        for column, answer in enumerate(labels):
            count = matrix[row][column]
            if row != column and count:
                found.append((label, answer, count, count / total))
    return sorted(found, key=lambda item: -item[2])


def _confusions(labels: list[str], matrix: list[list[int]]) -> str:
    rows = confusions(labels, matrix)[:_MOST_CONFUSIONS]
    if not rows:
        return fragments.notice("No text was answered wrongly.")
    return fragments.table(rows, _CONFUSIONS)


def per_class(scores: dict[str, ClassMetrics]) -> str:
    """Return precision, recall and F1 of each label, with the interval of F1 where there is one."""
    return f'<div class="tall">{fragments.table(list(scores.items()), _PER_CLASS)}</div>'


def of_task(task: str, columns: dict[str, dict[str, Score]]) -> str:
    """Return a row for each metric of the task that is known, and a column for each title with its scores."""
    shown = [Column("Score", lambda metric: html.escape(metric.title), number=False)]
    for title, scores in columns.items():
        shown.append(Column(title, lambda metric, scores=scores: _score_cell(metric, scores)))
    metrics = [metric for metric in tasks.TASKS[task].metrics if _is_known(metric, columns.values())]
    return fragments.table(metrics, shown)


def _is_known(metric: tasks.Metric, columns: Iterable[dict[str, Score]]) -> bool:
    return any(metric.name in scores for scores in columns)


def _score_cell(metric: tasks.Metric, scores: dict[str, Score]) -> str:
    score = scores.get(metric.name)
    return "–" if score is None else write(metric, score.value, score.ci95)


def write(metric: tasks.Metric, value: float | None, interval: list[float] | None) -> str:
    """Return a score with its interval, if there is one, as HTML; a dash if it is unknown."""
    if value is None:
        return "–"
    if interval is None:
        return metric.write(value)
    low, high = interval
    if metric.is_share:
        return f"{metric.write(value)} <small>{fragments.interval(100 * low, 100 * high)}</small>"
    return f"{metric.write(value)} <small>{low:.3f}–{high:.3f}</small>"


def _f1_cell(item: tuple[str, ClassMetrics]) -> str:
    scores = item[1]
    if scores.f1_ci95 is None:
        return f"{scores.f1:.3f}"
    low, high = scores.f1_ci95
    return f"{scores.f1:.3f} <small>{low:.3f}–{high:.3f}</small>"


_CONFUSIONS = [
    Column("Label", lambda c: html.escape(c[0]), lambda c: c[0], number=False, less_first=True),
    Column("Answer", lambda c: html.escape(c[1]), lambda c: c[1], number=False, less_first=True),
    Column("Texts", lambda c: f"{c[2]:,}", lambda c: c[2]),
    Column("Of the label", lambda c: f"{100 * c[3]:.1f} %", lambda c: c[3]),
]
_PER_CLASS = [
    Column("Label", lambda item: html.escape(item[0]), lambda item: item[0], number=False, less_first=True),
    Column("Precision", lambda item: f"{item[1].precision:.3f}", lambda item: item[1].precision, less_first=True),
    Column("Recall", lambda item: f"{item[1].recall:.3f}", lambda item: item[1].recall, less_first=True),
    Column("F1", _f1_cell, lambda item: item[1].f1, less_first=True),
    Column("Texts", lambda item: f"{item[1].n:,}", lambda item: item[1].n),
]
