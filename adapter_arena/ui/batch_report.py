"""The report of a file in Batch: how many rows have which answer, and the comparison with the file's own labels."""

import html

from gradio.components.plot import PlotData

from adapter_arena import tasks
from adapter_arena.serve import batch
from adapter_arena.serve.batch_outcome import Outcome
from adapter_arena.ui import charts, fragments, score_tables

_HEIGHT = 300
"""Of the chart, in pixels."""
_MAX_MARKS = 1000


def progress(done: batch.Progress) -> str:
    """Return a bar of the rows that are done, and the time left once it is known."""
    share = done.done / done.total if done.total else 1.0
    bar = fragments.bar(share, f"{done.done:,} of {done.total:,}")
    if done.seconds_left is None:
        return bar
    return bar + fragments.notice(f"{done.seconds_left:,.0f} s left")


def summary(outcome: Outcome) -> str:
    """Return the number of rows that are scored, and of those without an answer."""
    done = len(outcome.frame)
    text = f"{done:,} rows scored"
    if done < outcome.total:
        text = f"Stopped: {done:,} of {outcome.total:,} rows scored"
    if outcome.errors:
        text += f", {outcome.errors:,} without an answer"
    return text


def coverage(outcome: Outcome) -> str:
    """Return which share of the texts is answered and, if the file has labels, how well these are."""
    if outcome.coverage is None:
        return ""
    text = f"Answers <b>{100 * outcome.coverage:.1f} %</b> of the texts"
    comparison = outcome.comparison
    metric = tasks.TASKS[outcome.task].objective
    if comparison is not None and metric.name in comparison.scores:
        score = comparison.scores[metric.name]
        score = score_tables.write(metric, score.value, score.ci95)
        text += f" at <b>{score}</b> {html.escape(_in_sentence(metric.title))}"
    if outcome.abstained:
        text += f", {outcome.abstained:,} abstained"
    return f'<p class="coverage" role="status">{text}</p>'


def _in_sentence(title: str) -> str:
    """Return a metric's title as it is written within a sentence: `accuracy`, but `F1, macro`."""
    return title if title[1:2].isdigit() else title[0].lower() + title[1:]


def counts(outcome: Outcome) -> str:
    """Return a bar for each label with its share of the answers."""
    if not outcome.counts:
        return ""
    answered = max(1, outcome.answered)
    content = "<h3>Answers</h3>"
    for label, count in outcome.counts.items():
        content += fragments.bar(count / answered, f"{label} ({count:,})")
    if outcome.abstained:
        content += fragments.bar(outcome.abstained / answered, f"abstained ({outcome.abstained:,})", quiet=True)
    return f'<div class="tall">{content}</div>'


def chart(outcome: Outcome) -> PlotData:
    """Return the numbers of a regression against those of the file or, without these, a histogram of the answers."""
    if outcome.task == tasks.REGRESSION and outcome.comparison and outcome.comparison.n:
        return _scatter(outcome)
    return _histogram(outcome)


def _scatter(outcome: Outcome) -> PlotData:
    """Return a mark for each of the first rows with a label; marks on the diagonal are right."""
    name = outcome.number_column
    rows = outcome.frame[["row", "truth", name]].dropna().head(_MAX_MARKS).rename(columns={name: "answer"})
    low = float(rows[["truth", "answer"]].min().min())
    high = float(rows[["truth", "answer"]].max().max())
    position = {
        "x": _number("truth", "Label"),
        "y": _number("answer", f"Answer, {outcome.labels[0]}"),
    }
    diagonal = {
        "data": {"values": [{"truth": low, "answer": low}, {"truth": high, "answer": high}]},
        "mark": {"type": "line", "strokeDash": [4, 4], "strokeWidth": 1.5, "color": "var(--body-text-color-subdued)"},
        "encoding": position,
    }
    tooltip = [{"field": field, "type": "quantitative", "title": field.capitalize()} for field in rows]
    marks = {
        "data": {"values": rows.to_dict("records")},
        "mark": {"type": "point", "filled": True, "size": 40, "opacity": 0.6, "color": "var(--accent)"},
        "encoding": position | {"tooltip": tooltip},
    }
    return charts.panel([diagonal, marks], "Answers against labels", _HEIGHT)


def _number(field: str, title: str) -> dict:
    scale = {"zero": False, "padding": 8}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": {"tickCount": 5}}


def _histogram(outcome: Outcome) -> PlotData:
    """Return the histogram from the first bin that can contain the confidence of a most likely label.

    Of a regression it is that of the numbers, and of several labels no bin is impossible.
    """
    if outcome.task == tasks.REGRESSION:
        return charts.histogram(outcome.histogram, outcome.edges, outcome.labels[0], ".3g")
    if outcome.task == tasks.MULTI_LABEL:
        return charts.histogram(outcome.histogram, outcome.edges, "Highest probability")
    lowest = 1 / max(2, len(outcome.labels))
    first = 0
    while outcome.edges[first + 1] <= lowest + 1e-9:
        first += 1
    return charts.histogram(outcome.histogram[first:], outcome.edges[first:], "Confidence")


def comparison(outcome: Outcome) -> str:
    """Return the scores of the task on the rows with labels; empty if the file has none."""
    found = outcome.comparison
    if found is None:
        return ""
    content = f"<h3>Against the labels of {found.n:,} rows</h3>"
    if found.unlabelled:
        content += fragments.notice(f"{found.unlabelled:,} rows have no label that the adapter knows.")
    if found.n == 0:
        return content
    content += score_tables.of_task(outcome.task, {"On this file": found.scores})
    if found.majority:
        content += fragments.notice(
            f"Always answering “{found.majority.label}” is right in {100 * found.majority.accuracy:.1f} % of them."
        )
    if found.confusion_matrix:
        content += "<h3>Confusion matrix</h3>" + score_tables.confusion(outcome.labels, found.confusion_matrix)
    if found.per_class:
        content += "<h3>By label</h3>" + score_tables.per_class(found.per_class)
    return content
