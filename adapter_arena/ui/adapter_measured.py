"""The tables of an adapter's results: scores, classes, groups of texts, other data, training, and mistakes."""

import html

from adapter_arena import tasks
from adapter_arena.results import Mistake, OutOfDomain, Results, score_in, score_of
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import fragments, score_tables
from adapter_arena.ui.adapter_overview import slice_name
from adapter_arena.ui.fragments import Column

NOTHING = fragments.placeholder("Nothing was measured: this adapter was not trained with Adapter Arena.")
_MOST_MISTAKES = 8


def tables(entry: Entry) -> str:
    """Return all tables but that of mistakes, each in a panel of a grid."""
    found = entry.results
    if found is None:
        return NOTHING
    parts = {"Scores": _scores(found)}
    # The overview of other tasks shows the scores of labels.
    if found.evaluation.per_class and found.task == tasks.SINGLE_LABEL:
        parts["By label"] = score_tables.per_class(found.evaluation.per_class)
    parts["Training"] = _training(found)
    slices = found.evaluation.slices
    if found.evaluation.reliability:  # its chart shows the groups by confidence
        slices = [part for part in slices if part.by != "confidence"]
    if slices:
        parts["By kind of text"] = fragments.table(slices, _slice_columns(tasks.of(found).objective))
    if found.out_of_domain:
        parts["On other data"] = fragments.table(list(found.out_of_domain.items()), _OTHER_DATA)
    panels = ""
    for heading, table in parts.items():
        panels += f'<section class="panel"><h3>{heading}</h3>{table}</section>'
    return f'<div class="masonry">{panels}</div>'


def mistakes(entry: Entry) -> str:
    """Return the most confident mistakes; nothing if none were recorded."""
    found = entry.results
    if found is None or not found.evaluation.mistakes:
        return ""
    rows = found.evaluation.mistakes[:_MOST_MISTAKES]
    table = fragments.table(rows, _MISTAKES)
    if any(row.text is None for row in rows):
        table += fragments.notice("Rows of the test split stand for texts that may not be shared.")
    return f'<section class="panel wide"><h3>Most confident mistakes</h3>{table}</section>'


def _scores(found: Results) -> str:
    """Return every metric of the task with its interval."""
    scores = {}
    for metric in tasks.of(found).metrics:
        value, interval = score_of(found, metric)
        if value is not None:
            scores[metric.title] = score_tables.write(metric, value, interval)
    return _definitions(scores)


def _training(found: Results) -> str:
    training = found.training
    facts = {
        "Trained parameters": f"{training.trainable_params:,} of {training.total_params:,}",
        "Duration": f"{training.seconds / 60:.1f} min, {training.samples_per_second:,.0f} texts/s",
        "Peak memory": f"{training.peak_memory_mb:,.0f} MB",
        "Machine": html.escape(", ".join(filter(None, [training.device, training.compute]))),
        "Epochs": f"{len(training.epochs)}" + (f", {training.best_epoch} kept" if training.best_epoch else ""),
        "Seed": html.escape(str(found.recipe.get("seed", "unknown"))),
    }
    if training.energy_kwh is not None:
        facts["Energy"] = f"{training.energy_kwh:.3g} kWh"
    if training.co2_grams is not None:
        facts["CO₂ equivalent"] = f"{training.co2_grams:.3g} g"
    return _definitions(facts)


def _definitions(values: dict[str, str]) -> str:
    """Return names and values, which are HTML, as a list in two columns."""
    items = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{value}</dd></div>" for name, value in values.items())
    return f'<dl class="pairs-list">{items}</dl>'


def _slice_columns(metric: tasks.Metric) -> list[Column]:
    """Return the columns of the table of groups of texts, with their scores by a metric."""

    return [
        Column("Texts", lambda part: html.escape(slice_name(part)), slice_name, number=False, less_first=True),
        Column("Number", lambda part: f"{part.n:,}", lambda part: part.n),
        Column(
            metric.title,
            lambda part: score_tables.write(metric, *score_in(part, metric)),
            lambda part: score_in(part, metric)[0],
            less_first=metric.more_is_better,
        ),
    ]


def _other_cell(item: tuple[str, OutOfDomain]) -> str:
    return score_tables.write(_ACCURACY, item[1].accuracy, item[1].accuracy_ci95)


def _text_cell(mistake: Mistake) -> str:
    if mistake.text is None:
        return f"row {mistake.row:,}"
    second = f"<br>{html.escape(mistake.text_pair)}" if mistake.text_pair else ""
    return html.escape(mistake.text) + second


_ACCURACY = tasks.TASKS[tasks.SINGLE_LABEL].objective
_OTHER_DATA = [
    Column("Data", lambda item: html.escape(item[0]), lambda item: item[0], number=False, less_first=True),
    Column("Texts", lambda item: f"{item[1].n:,}", lambda item: item[1].n),
    Column("Accuracy", _other_cell, lambda item: item[1].accuracy),
    Column("F1", lambda item: f"{item[1].f1:.3f}", lambda item: item[1].f1),
]
_MISTAKES = [
    Column("Confidence", lambda m: f"{100 * m.confidence:.1f} %", lambda m: m.confidence, number=False),
    Column("Label", lambda m: html.escape(m.truth), lambda m: m.truth, number=False, less_first=True),
    Column("Answer", lambda m: html.escape(m.predicted), lambda m: m.predicted, number=False, less_first=True),
    Column("Text", _text_cell, number=False),
]
