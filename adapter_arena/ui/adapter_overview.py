"""The first sub-tab of Adapters: what an adapter is, how good it is compared with simple answers, and where it is weak."""

import html

import numpy

from adapter_arena import stats, tasks
from adapter_arena.errors import shortened_list
from adapter_arena.results import BASELINE_TITLES, Results, Slice, score_of
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import fragments, palette, score_tables
from adapter_arena.ui.shared import title

_PURPOSES = {
    tasks.SINGLE_LABEL: "answers with one of",
    tasks.MULTI_LABEL: "answers with any of",
    tasks.REGRESSION: "predicts",
}
_MOST_LABELS = 8
"""Labels that are named in the paragraph of facts."""
_NOTABLE = 0.02
"""Difference in F1 from the best class from which the worst one is named."""


def heading(entry: Entry) -> str:
    """Return the adapter's method with its colour, its data, and its name."""
    name = html.escape(entry.name)
    text = html.escape(title(entry))
    small = "" if text == name else f" <small>{name}</small>"
    return f"<h2>{palette.dot(entry.method)}{text}{small}</h2>"


def render(entry: Entry) -> str:
    """Return the paragraph of facts, scores beside baselines, and weak points; of an adapter without results the facts."""
    if entry.results is None:
        return f'<p class="lead">{_facts_without_results(entry)}</p>{_list("Notes", _notes(entry))}'
    found = entry.results
    scores = _bars(found) if found.task == tasks.SINGLE_LABEL else _task_scores(found)
    parts = [f'<section class="panel">{scores}</section>']
    details = _details(found)
    if details:
        parts.append(f'<section class="panel">{details}</section>')
    weak = _list("Where it is weak", weak_points(found)) + _list("Notes", _notes(entry))
    return f'<p class="lead">{_facts(found)}</p><div class="grid">{"".join(parts)}</div>{weak}'


# ---------------------------------------------------------------- facts


def _facts(found: Results) -> str:
    training = found.training
    dataset = found.dataset
    texts = "pairs of texts" if dataset.has_pairs else "texts"
    size = f", a file of {found.megabytes:.1f} MB" if found.megabytes else ""
    rows = dataset.splits.get("train")
    trained_on = f"{rows:,} {texts} of " if rows else ""
    return (
        f"Trained on {trained_on}<b>{html.escape(dataset.id)}</b>, it {_PURPOSES[found.task]} {_labels(found)}. "
        f"Base model <b>{html.escape(found.base_model.id)}</b>; {training.trainable_params:,} trained parameters "
        f"({training.trainable_percent:.2g} %){size}. {_score_sentence(found)}"
    )


def _labels(found: Results) -> str:
    names = [f"<b>{html.escape(name)}</b>" for name in found.labels[:_MOST_LABELS]]
    if len(found.labels) > _MOST_LABELS:
        return f"{len(found.labels)} labels ({', '.join(names)}, …)"
    return ", ".join(names)


def _score_sentence(found: Results) -> str:
    metric = tasks.of(found).objective
    value, interval = score_of(found, metric)
    return (
        f"{html.escape(metric.title)} on {found.evaluation.n:,} {found.evaluation.split} texts: "
        f"<b>{score_tables.write(metric, value, interval)}</b>."
    )


def _facts_without_results(entry: Entry) -> str:
    facts = [f"Base model <b>{html.escape(entry.base_note)}</b>"]
    if entry.adapter:
        facts.append(f"labels {html.escape(shortened_list(entry.adapter.labels))}")
    if entry.megabytes:
        facts.append(f"{entry.megabytes:.1f} MB")
    if entry.accuracy is not None:
        facts.append(f"accuracy {fragments.percent(entry.accuracy)} by its card")
    return "; ".join(facts) + ". Not trained with Adapter Arena: nothing was measured here."


def _notes(entry: Entry) -> list[str]:
    return list(entry.adapter.notes) if entry.adapter else []


# ---------------------------------------------------------------- scores


def _bars(found: Results) -> str:
    """Return a bar for the accuracy of the adapter and of each baseline, with its interval."""
    evaluation = found.evaluation
    bars = _bar("This adapter", evaluation.accuracy, evaluation.accuracy_ci95, palette.colour(found.method))
    shown = set()
    for key, name in BASELINE_TITLES.items():
        baseline = evaluation.baselines.get(key)
        if baseline is not None:
            bars += _bar(name, baseline.accuracy, baseline.accuracy_ci95)
            shown.add(key)
    if "majority" not in shown:
        majority = stats.majority(numpy.array(evaluation.confusion_matrix), found.labels)
        bars += _bar(f"Always “{majority.label}”", majority.accuracy, None)
    bars += _bar("Untrained base", evaluation.baseline.accuracy, evaluation.baseline.accuracy_ci95)
    return f'<h3>Accuracy, %</h3><div class="bars">{bars}</div>'


def _bar(name: str, share: float, interval: list[float] | None, colour: str = palette.colour(None)) -> str:
    """Return a bar from 0 to 100 % with a mark for the interval."""
    whisker = ""
    numbers = ""
    if interval:
        low, high = interval
        whisker = f'<span class="whisker" style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></span>'
        numbers = f" <small>{fragments.interval(100 * low, 100 * high)}</small>"
    fill = f'<span class="fill" style="width:{100 * share:.2f}%;background:{colour}"></span>'
    return (
        f'<div class="score"><span class="name">{html.escape(name)}</span><span class="track">{fill}{whisker}</span>'
        f'<span class="share">{100 * share:.2f}{numbers}</span></div>'
    )


def _task_scores(found: Results) -> str:
    """Return the scores of a task other than single-label beside those of the untrained base and of a constant."""
    evaluation = found.evaluation
    columns = {
        "This adapter": evaluation.scores,
        "Untrained base": evaluation.untrained,
        f"Always “{evaluation.constant.answer}”": evaluation.constant.scores,
    }
    return f"<h3>Scores</h3>{score_tables.of_task(found.task, columns)}"


def _details(found: Results) -> str:
    evaluation = found.evaluation
    if evaluation.confusion_matrix:
        return "<h3>Confusion matrix</h3>" + score_tables.confusion(found.labels, evaluation.confusion_matrix)
    if evaluation.per_class:
        return "<h3>By label</h3>" + score_tables.per_class(evaluation.per_class)
    return ""


# ---------------------------------------------------------------- weak points


def weak_points(found: Results) -> list[str]:
    """Return a sentence for each thing that the adapter does not do well, the gravest first."""
    evaluation = found.evaluation
    sentences = [*stats.shortcomings(found), *_weakest_label(found)]
    if evaluation.confusion_matrix and len(found.labels) > 2:
        for label, answer, count, share in score_tables.confusions(found.labels, evaluation.confusion_matrix)[:1]:
            sentences.append(
                f"“{label}” is most often confused with “{answer}”: {count:,} texts, {100 * share:.1f} % of them."
            )
    if evaluation.accuracy_ci95:
        worse = [part for part in evaluation.slices if _is_worse(part, evaluation.accuracy_ci95[0])]
        if worse:
            worst = min(worse, key=lambda part: part.accuracy)
            sentences.append(f"{slice_name(worst)}: {100 * worst.accuracy:.1f} % of {worst.n:,} right.")
    for name, other in found.out_of_domain.items():
        if evaluation.accuracy_ci95 and other.accuracy_ci95[1] < evaluation.accuracy_ci95[0]:
            sentences.append(f"On {name} it reaches {100 * other.accuracy:.1f} % of {other.n:,} texts.")
    if evaluation.reliability and evaluation.ece > stats.ece_by_chance(evaluation.reliability):
        sentences.append(f"Its confidence is off by {100 * evaluation.ece:.1f} points on average.")
    return sentences


def _weakest_label(found: Results) -> list[str]:
    per_class = found.evaluation.per_class or {}
    measured = {label: row for label, row in per_class.items() if row.n}
    if len(measured) < 2:
        return []
    worst = min(measured, key=lambda label: measured[label].f1)
    row = measured[worst]
    if max(other.f1 for other in measured.values()) - row.f1 < _NOTABLE:
        return []
    return [f"Weakest label: “{worst}”, F1 {row.f1:.3f} on {row.n:,} texts."]


def _is_worse(part: Slice, accuracy: float) -> bool:
    """Return whether the accuracy in a group lies below that of all texts; groups by confidence always do."""
    return part.by != "confidence" and part.accuracy_ci95[1] < accuracy


def slice_name(part: Slice) -> str:
    """Return the group of texts in words: `Texts of 8–34 tokens`, `Truncated texts`, `Confidence 90–97 %`."""
    if part.by == "tokens":
        return f"Texts of {part.name} tokens"
    if part.by == "window":
        return f"{part.name.capitalize()} texts"
    return f"{part.by.capitalize()} {part.name}"


def _list(heading: str, sentences: list[str]) -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<h3>{heading}</h3><ul>{items}</ul>"
