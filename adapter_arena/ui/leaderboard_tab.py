"""Leaderboard: every measured adapter, what it scores against what it costs, and which differences are real."""

import csv
import functools
import hashlib
import html
import io
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from adapter_arena import files, results, stats
from adapter_arena.data.tables import escape_formula
from adapter_arena.serve.catalogue import Catalogue, Entry
from adapter_arena.ui import charts, fragments
from adapter_arena.ui.charts import Axis
from adapter_arena.ui.fragments import Column
from adapter_arena.ui.shared import PRIVATE, title

ALL = "All"


@dataclass(frozen=True)
class Measure:
    """A number of an adapter that can be a column, an axis or a CSV field."""

    axis: Axis
    value: Callable[[Entry], float | None]
    cell: Callable[[Entry], str]


def _of(entry: Entry, part: str, name: str, factor: float = 1.0) -> float | None:
    found = entry.results
    return None if found is None else factor * getattr(getattr(found, part), name)


def _accuracy(entry: Entry) -> str:
    interval = entry.accuracy_ci95
    span = f"<small>{100 * interval[0]:.1f}–{100 * interval[1]:.1f}</small>" if interval else ""
    return f"<b>{fragments.percent(entry.accuracy)}</b> {span}"


def _figure(text: str, value: Callable[[Entry], float | None]) -> Callable[[Entry], str]:
    return lambda entry: "–" if value(entry) is None else text.format(value(entry))


def _measure(axis: Axis, value: Callable[[Entry], float | None], text: str | Callable[[Entry], str]) -> Measure:
    return Measure(axis, value, _figure(text, value) if isinstance(text, str) else text)


MEASURES = {
    measure.axis.title: measure
    for measure in (
        _measure(Axis("Accuracy, %", "{:.1f}", True), lambda e: e.accuracy and 100 * e.accuracy, _accuracy),
        _measure(Axis("F1", "{:.3f}", True), lambda e: _of(e, "evaluation", "f1"), "{:.3f}"),
        _measure(Axis("Calibration error", "{:.3f}"), lambda e: _of(e, "evaluation", "ece"), "{:.3f}"),
        _measure(
            Axis("Trained parameters", fragments.count, log=True),
            lambda e: _of(e, "training", "trainable_params"),
            lambda e: fragments.count(_of(e, "training", "trainable_params")),
        ),
        _measure(Axis("Size, MB", "{:.3g}", log=True), lambda e: e.megabytes, "{:.1f}"),
        _measure(Axis("Training, minutes", "{:.3g}"), lambda e: _of(e, "training", "seconds", 1 / 60), "{:.1f}"),
        _measure(Axis("Peak memory, GB", "{:.3g}"), lambda e: _of(e, "training", "peak_memory_mb", 1e-3), "{:.1f}"),
        _measure(Axis("One text, ms", "{:.3g}"), lambda e: e.latency_ms, "{:.0f}"),
    )
}
_CURVES = {
    "Validation accuracy by epoch": (Axis("Epoch", "{:.0f}"), Axis("Validation accuracy, %", "{:.1f}")),
    "Validation loss by epoch": (Axis("Epoch", "{:.0f}"), Axis("Validation loss", "{:.3f}")),
    "Train loss by step": (Axis("Step", "{:,.0f}"), Axis("Train loss", "{:.2f}")),
}


def build(demo: gr.Blocks, catalogue: Catalogue, pickable: Callable[[gr.HTML], None]) -> None:
    """The tab's content; `pickable` is told of each piece in which an adapter can be picked."""
    with gr.Row(elem_classes="filters"):
        dataset = gr.Dropdown([ALL], value=ALL, label="Data", elem_id="board-data")
        method = gr.Dropdown([ALL], value=ALL, label="Method")
        base = gr.Dropdown([ALL], value=ALL, label="Base model")
        export = gr.DownloadButton("CSV", elem_id="export", scale=0, min_width=120)
    table = gr.HTML(elem_id="board", js_on_load=fragments.SORT + fragments.PICK)
    with gr.Row(elem_classes="split"):
        with gr.Column(min_width=320):
            with gr.Row():
                x = gr.Dropdown(list(MEASURES), value="Trained parameters", label="Across", elem_id="axis-x")
                y = gr.Dropdown(list(MEASURES), value="Accuracy, %", label="Up", elem_id="axis-y")
            pareto = gr.HTML(elem_id="pareto", js_on_load=fragments.PICK)
        with gr.Column(min_width=320):
            curve = gr.Dropdown(list(_CURVES), value=next(iter(_CURVES)), label="Curve", elem_id="curve")
            curves = gr.HTML(elem_id="curves")
    with gr.Row(elem_classes="split"):
        before = gr.HTML(elem_id="before", min_width=320)
        significance = gr.HTML(elem_id="significance", min_width=320, js_on_load=fragments.SORT)

    def chosen(dataset: str, method: str, base: str) -> list[Entry]:
        wanted = {"dataset": dataset, "title": method, "base_model": base}
        entries = [entry for entry in catalogue.entries if entry.accuracy is not None]
        return [e for e in entries if all(value in (ALL, getattr(e, key)) for key, value in wanted.items())]

    def show(dataset: str, method: str, base: str, x: str, y: str, curve: str):
        entries = chosen(dataset, method, base)
        return (
            _table(entries),
            charts.scatter(_points(entries, MEASURES[x], MEASURES[y]), MEASURES[x].axis, MEASURES[y].axis),
            charts.lines(_curves(entries, curve), *_CURVES[curve]),
            _before_after(entries),
            _significance(entries),
            _csv(entries),
        )

    def start():
        """What there is to choose from by now; the data set with most adapters is chosen first."""
        entries = [entry for entry in catalogue.entries if entry.accuracy is not None]
        names = [entry.dataset for entry in entries if entry.dataset]
        first = max(set(names), key=names.count) if names else ALL
        options = [
            sorted({getattr(e, key) or "" for e in entries} - {""}) for key in ("dataset", "title", "base_model")
        ]
        values = (first, ALL, ALL)
        return [gr.Dropdown([ALL, *option], value=value) for option, value in zip(options, values)] + list(
            show(*values, "Trained parameters", "Accuracy, %", next(iter(_CURVES)))
        )

    inputs, outputs = [dataset, method, base, x, y, curve], [table, pareto, curves, before, significance, export]
    gr.on([control.input for control in inputs], show, inputs, outputs, **PRIVATE)
    demo.load(start, None, [dataset, method, base, *outputs], **PRIVATE)
    pickable(table)
    pickable(pareto)


def _table(entries: list[Entry]) -> str:
    if not entries:
        return fragments.notice("No measured adapter fits these filters")
    best_first = sorted(entries, key=lambda e: -e.accuracy)
    columns = [
        Column("Adapter", lambda e: html.escape(title(e)), title, number=False, less_first=True),
        Column("Source", lambda e: e.source, lambda e: e.source, number=False, less_first=True),
    ]
    columns += [
        Column(name, measure.cell, measure.value, less_first=not measure.axis.more_is_better)
        for name, measure in MEASURES.items()
    ]
    said = _told_apart(best_first, title)
    note = results.machines({said[e.name]: _device(e) for e in best_first if e.results})
    return fragments.table(best_first, columns, name=lambda e: e.name) + (fragments.notice(note) if note else "")


def _told_apart(entries: list[Entry], say: Callable[[Entry], str]) -> dict[str, str]:
    """What to call each entry, by name: what `say` says of it where it says so of no other, else its name."""
    times = Counter(map(say, entries))
    return {e.name: say(e) if times[say(e)] == 1 else e.name for e in entries}


def _points(entries: list[Entry], x: Measure, y: Measure) -> list[charts.Point]:
    methods = sorted({e.title for e in entries})
    points = []
    for e in entries:
        across, up = x.value(e), y.value(e)
        if across is None or up is None or (x.axis.log and across <= 0) or (y.axis.log and up <= 0):
            continue
        interval = (
            [100 * v for v in e.accuracy_ci95] if y.axis.title.startswith("Accuracy") and e.accuracy_ci95 else [up, up]
        )
        points.append(charts.Point(e.name, e.title, across, up, *interval, methods.index(e.title)))
    return points


def _curves(entries: list[Entry], kind: str) -> dict[str, list[tuple[float, float]]]:
    said = _told_apart(entries, title)
    return {said[e.name]: _curve(e, kind) for e in sorted(entries, key=lambda e: e.title)}


def _curve(entry: Entry, kind: str) -> list[tuple[float, float]]:
    if entry.results is None:
        return []
    training = entry.results.training
    if kind.startswith("Train loss"):
        return [(step, loss) for step, loss in training.losses or []]
    if kind.startswith("Validation accuracy"):
        return [(row.epoch, 100 * row.validation_accuracy) for row in training.epochs]
    return [(row.epoch, row.validation_loss) for row in training.epochs]


def _before_after(entries: list[Entry]) -> str:
    said = _told_apart(entries, title)
    rows = [
        f"<dt>{html.escape(said[e.name])}</dt><dd>{fragments.bar(e.results.evaluation.baseline.accuracy, quiet=True)}"
        f"{fragments.bar(e.results.evaluation.accuracy)}</dd>"
        for e in sorted((e for e in entries if e.results), key=lambda e: -e.accuracy)
    ]
    return f'<h3>Untrained and trained</h3><dl class="pairs">{"".join(rows)}</dl>' if rows else ""


def _significance(entries: list[Entry]) -> str:
    found = stats.differences({e.name: e.results for e in entries if e.results})
    if not found:
        return ""
    paired = {name for d in found for name in (d.first, d.second)}
    compared = [e for e in entries if e.name in paired]
    alike = len({e.results.evaluation.test_sha256 for e in compared}) == 1
    names = _told_apart(compared, (lambda e: e.title) if alike else title)
    rows = sorted(found, key=lambda d: d.p)
    columns = [
        Column("Pair", lambda d: f"{html.escape(names[d.first])} – {html.escape(names[d.second])}", number=False),
        Column("Points", lambda d: f"{d.points:+.2f}", lambda d: d.points),
        Column(
            "p (McNemar, Holm)",
            lambda d: f"{d.p:.3f}" if d.p >= 0.001 else "&lt; 0.001",
            lambda d: d.p,
            less_first=True,
        ),
        Column(
            "Verdict",
            lambda d: "differs" if d.significant else "could be chance",
            lambda d: d.significant,
            number=False,
        ),
    ]
    n = f"{found[0].n:,} " if alike else ""
    return f"<h3>Differences on the same {n}texts</h3>{fragments.table(rows, columns)}"


def _device(entry: Entry) -> str | None:
    return entry.results and entry.results.training.device


@functools.cache
def _place() -> Path:
    """A folder of this process for the tables as files."""
    return Path(tempfile.mkdtemp(prefix="arena-"))


def _csv(entries: list[Entry]) -> str:
    """The table as a CSV file, one for each that was asked for; names a repo chose cannot start a formula."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["adapter", "method", "base_model", "dataset", "source", "trained_on", *MEASURES])
    for e in entries:
        texts = [str(v or "") for v in (e.name, e.method, e.base_model, e.dataset, e.source, _device(e))]
        writer.writerow([*map(escape_formula, texts), *(measure.value(e) for measure in MEASURES.values())])
    folder = _place() / hashlib.sha256(file.getvalue().encode()).hexdigest()[:16]
    path = folder / "leaderboard.csv"
    folder.mkdir(exist_ok=True)
    if not path.is_file():
        files.write_atomic(path, file.getvalue())
    return str(path)
