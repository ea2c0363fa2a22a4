"""Rows of the leaderboard for what is reached without fine-tuning, on the test rows of its adapters."""

from adapter_arena import tasks
from adapter_arena.results import BASELINE_TITLES, Baseline, Evaluation, Score, SimpleBaseline, baseline_titles
from adapter_arena.serve.entries import Entry
from adapter_arena.ui.measures import Row, Scored, scaled

_UNTRAINED = "Untrained base"


def rows(entries: list[Entry]) -> list[Row]:
    """Return a row for each different baseline of the adapters' data sets: constant, simple classifiers, untrained base.

    The data set is part of the titles if there are several, and likewise the base model.
    """
    measured = [entry for entry in entries if entry.results]
    several_datasets = len({entry.dataset for entry in measured}) > 1
    several_bases = len({entry.base_model for entry in measured}) > 1
    found: dict[tuple, Row] = {}
    for entry in measured:
        need_base = (baseline_titles(entry.task)["probe"], _UNTRAINED)
        for title, scores in _of_evaluation(entry.results.evaluation, entry.task).items():
            name = title
            if several_bases and title in need_base:
                name += f", {entry.base_model}"
            if several_datasets:
                name += f" · {entry.dataset}"
            row = Row(name, entry.task, entry.dataset, entry.base_model, scores=scores)
            # Adapters of one data set may have been trained on fewer rows, and the baselines with them. Each seed draws
            # another untrained head; one of them is enough.
            key = (name, entry.task) if title == _UNTRAINED else (name, entry.task, str(scores))
            found.setdefault(key, row)
    return list(found.values())


def _of_evaluation(evaluation: Evaluation, task: str) -> dict[str, dict[str, Scored]]:
    """Return the numbers of each baseline by its title."""
    found = {}
    if evaluation.majority and "majority" not in evaluation.baselines:
        majority = evaluation.majority
        found[BASELINE_TITLES["majority"]] = {"accuracy": (100 * majority.accuracy, None), "f1": (majority.f1, None)}
    for key, title in baseline_titles(task).items():
        if key in evaluation.baselines:
            found[title] = _of_simple(evaluation.baselines[key])
    if evaluation.constant:
        found[f"Always {evaluation.constant.answer}"] = _of_task(evaluation.constant.scores)
    if evaluation.baseline:
        found[_UNTRAINED] = _single_label(evaluation.baseline)
    if evaluation.untrained:
        found[_UNTRAINED] = _of_task(evaluation.untrained)
    return found


def _of_simple(baseline: SimpleBaseline) -> dict[str, Scored]:
    """Return the scores of a classifier without fine-tuning, and the minutes it took to train."""
    scores = _single_label(baseline) if baseline.scores is None else _of_task(baseline.scores)
    if baseline.c is not None:
        scores["minutes"] = (baseline.seconds / 60, None)
    return scores


def _single_label(baseline: SimpleBaseline | Baseline) -> dict[str, Scored]:
    interval = baseline.accuracy_ci95
    scores: dict[str, Scored] = {
        "accuracy": (100 * baseline.accuracy, [100 * end for end in interval] if interval else None),
        "f1": (baseline.f1, baseline.f1_ci95),
    }
    return scores


def _of_task(scores: dict[str, Score]) -> dict[str, Scored]:
    metrics = {metric.name: metric for task in tasks.TASKS.values() for metric in task.metrics}
    return {name: scaled(metrics[name], (score.value, score.ci95)) for name, score in scores.items()}
