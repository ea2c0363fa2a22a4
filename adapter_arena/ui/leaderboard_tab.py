"""Leaderboard: every measured adapter, its quality against its cost, and which differences are significant."""

import csv
import functools
import hashlib
import html
import io
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.plot import PlotData

from adapter_arena import files, results, stats
from adapter_arena.data.formulas import escape_formula
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import baseline_rows, charts, fragments, measures
from adapter_arena.ui.charts import Axis, CurvePoint, Point
from adapter_arena.ui.fragments import Column
from adapter_arena.ui.measures import MEASURES, Measure
from adapter_arena.ui.shared import PRIVATE, title

ALL = "All"
_X = "Trained parameters"
_Y = "Accuracy, %"
_CURVE = "Training loss"
_CHART_HELP = "Hover over a mark for its values. Ctrl + wheel or a pinch zooms, dragging moves, a double click resets."


@dataclass(frozen=True)
class Curve:
    """A quantity that was recorded at several points, and how these are read from an adapter's results."""

    x: Axis
    y: Axis
    points: Callable[[results.Results], list[tuple[float, float]]]


CURVES = {
    "Training loss": Curve(
        Axis("Step", ",d"),
        Axis("Training loss", ".2f"),
        lambda found: found.training.losses or [],
    ),
    "Validation loss": Curve(
        Axis("Epoch", ",.2~f"),
        Axis("Validation loss", ".3f"),
        lambda found: [(row.epoch, row.validation_loss) for row in found.training.epochs],
    ),
    "Validation accuracy": Curve(
        Axis("Epoch", ",.2~f"),
        Axis("Validation accuracy, %", ".1f"),
        lambda found: [
            (row.epoch, 100 * row.validation_accuracy)
            for row in found.training.epochs
            if row.validation_accuracy is not None
        ],
    ),
    "Accuracy when abstaining": Curve(
        Axis("Texts answered, %", ".0f"),
        Axis("Accuracy of the answers, %", ".1f", more_is_better=True),
        lambda found: [(100 * point.share, 100 * point.accuracy) for point in found.evaluation.abstention],
    ),
}


class LeaderboardTab:
    """The tab's components and events; the select event of `table` names an adapter."""

    def __init__(self, demo: gr.Blocks, catalogue: Catalogue):
        self._catalogue = catalogue
        with gr.Row(elem_classes="filters"):
            self._dataset = gr.Dropdown([ALL], value=ALL, label="Dataset", elem_id="board-data")
            self._method = gr.Dropdown([ALL], value=ALL, label="Method")
            self._base_model = gr.Dropdown([ALL], value=ALL, label="Base model")
            self._export = gr.DownloadButton("Download CSV", elem_id="export", scale=0, min_width=150)
        self.table = gr.HTML(elem_id="board", elem_classes="pinned", js_on_load=fragments.SORT + fragments.PICK)
        self._build_charts()
        with gr.Row(elem_classes="split"):
            self._before_after = gr.HTML(elem_id="before", min_width=320)
            self._significance = gr.HTML(elem_id="significance", min_width=320, js_on_load=fragments.SORT)
        self._wire_events(demo)

    def _build_charts(self) -> None:
        with gr.Row(elem_classes="split"):
            with gr.Column(min_width=320):
                with gr.Row():
                    self._x = gr.Dropdown(list(MEASURES), value=_X, label="Horizontal axis", elem_id="axis-x")
                    self._y = gr.Dropdown(list(MEASURES), value=_Y, label="Vertical axis", elem_id="axis-y")
                self._scatter = gr.Plot(show_label=False, container=False, elem_id="scatter", elem_classes="chart")
            with gr.Column(min_width=320):
                self._curve = gr.Dropdown(list(CURVES), value=_CURVE, label="Curve", elem_id="curve")
                self._curves = gr.Plot(show_label=False, container=False, elem_id="curves", elem_classes="chart")
        gr.HTML(fragments.notice(_CHART_HELP))

    def _wire_events(self, demo: gr.Blocks) -> None:
        filters = [self._dataset, self._method, self._base_model]
        inputs = [*filters, self._x, self._y, self._curve]
        outputs = [
            self.table,
            self._scatter,
            self._curves,
            self._before_after,
            self._significance,
            self._export,
        ]
        gr.on([dropdown.input for dropdown in inputs], self._show, inputs, outputs, **PRIVATE)
        demo.load(self._start, None, filters + outputs, **PRIVATE)

    def _show(self, dataset: str, method: str, base_model: str, x: str, y: str, curve: str) -> list:
        filters = {"dataset": dataset, "title": method, "base_model": base_model}
        entries = _select(self._catalogue, filters)
        return [
            _table(entries),
            _scatter(entries, MEASURES[x], MEASURES[y]),
            _curves(entries, CURVES[curve]),
            _before_after(entries),
            _significance(entries),
            _csv(entries),
        ]

    def _start(self) -> list:
        entries = _select(self._catalogue, {})
        dataset = _largest_dataset(entries)
        filters = [
            _filter(entries, "dataset", dataset),
            _filter(entries, "title", ALL),
            _filter(entries, "base_model", ALL),
        ]
        return filters + self._show(dataset, ALL, ALL, _X, _Y, _CURVE)


def _select(catalogue: Catalogue, filters: dict[str, str]) -> list[Entry]:
    """Return the measured adapters whose attributes have the values of `filters`."""
    entries = [entry for entry in catalogue.entries if entry.headline is not None]
    for attribute, value in filters.items():
        if value != ALL:
            entries = [entry for entry in entries if getattr(entry, attribute) == value]
    return entries


def _filter(entries: list[Entry], attribute: str, value: str) -> gr.Dropdown:
    """Return a drop-down list of the values of an attribute."""
    values = set(map(attrgetter(attribute), entries)) - {None, ""}
    return gr.Dropdown([ALL, *sorted(values)], value=value)


def _largest_dataset(entries: list[Entry]) -> str:
    """Return the dataset with the most adapters."""
    counts = Counter(entry.dataset for entry in entries if entry.dataset)
    return counts.most_common(1)[0][0] if counts else ALL


def _best_first(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: (entry.task, -entry.headline))


def _short_names(entries: list[Entry]) -> dict[str, str]:
    """Return a label for each adapter name: the method if all have one dataset, else also the dataset.

    Adapters with the same label get their own name instead.
    """
    several_datasets = len({entry.dataset for entry in entries}) > 1
    names = {}
    for entry in entries:
        names[entry.name] = title(entry) if several_datasets else entry.title
    counts = Counter(names.values())
    for name, label in names.items():
        if counts[label] > 1:
            names[name] = name
    return names


def _table(entries: list[Entry]) -> str:
    if not entries:
        return fragments.notice("No measured adapter matches these filters.")
    columns = [
        Column("Adapter", lambda e: html.escape(title(e)), title, number=False, less_first=True),
        Column("Source", lambda e: e.source, lambda e: e.source, number=False, less_first=True),
    ]
    for name, measure in measures.shown(entries).items():
        columns.append(Column(name, measure.cell, measure.value, less_first=not measure.axis.more_is_better))
    if any(map(_elsewhere, entries)):
        columns.append(Column("Elsewhere", lambda e: html.escape(_elsewhere(e)) or "–", _elsewhere, number=False))
    rows = _best_first(entries)
    names = _short_names(rows)
    note = results.machines({names[entry.name]: _device(entry) for entry in rows if entry.results})
    foot = baseline_rows.cells(entries, [column.title for column in columns])
    table = fragments.table(rows, columns, name=lambda entry: entry.name, foot=foot)
    return table + fragments.notice(note) if note else table


def _elsewhere(entry: Entry) -> str:
    """Return the accuracy on each other data set that the adapter was scored on, for example `amazon 91.20 %`."""
    scores = entry.results.out_of_domain if entry.results else {}
    return ", ".join(f"{dataset} {fragments.percent(score.accuracy)}" for dataset, score in scores.items())


def _scatter(entries: list[Entry], x: Measure, y: Measure) -> PlotData:
    names = _short_names(entries)
    points = []
    for entry in entries:
        x_value = x.value(entry)
        y_value = y.value(entry)
        if not _fits(x_value, x.axis) or not _fits(y_value, y.axis):
            continue
        point = {"adapter": names[entry.name], "method": entry.title, "x": x_value, "y": y_value}
        interval = y.interval(entry)
        if interval:
            low, high = interval
            point |= {"low": low, "high": high, "interval": fragments.interval(low, high)}
        points.append(Point(**point))
    return charts.scatter(points, x.axis, y.axis)


def _fits(value: float | None, axis: Axis) -> bool:
    """Whether a value can be drawn: a logarithmic axis has no zero."""
    return value is not None and (value > 0 or not axis.log)


def _curves(entries: list[Entry], curve: Curve) -> PlotData:
    names = _short_names(entries)
    points = []
    for entry in entries:
        if entry.results is None:
            continue
        for x, y in curve.points(entry.results):
            points.append(CurvePoint(names[entry.name], x, y))
    return charts.lines(points, curve.x, curve.y)


def _before_after(entries: list[Entry]) -> str:
    names = _short_names(entries)
    rows = []
    for entry in _best_first(entries):
        if entry.results and entry.results.evaluation.baseline:
            evaluation = entry.results.evaluation
            before = fragments.bar(evaluation.baseline.accuracy, quiet=True)
            after = fragments.bar(evaluation.accuracy)
            rows.append(f"<dt>{html.escape(names[entry.name])}</dt><dd>{before}{after}</dd>")
    if not rows:
        return ""
    return f'<h3>Accuracy before and after training</h3><dl class="pairs">{"".join(rows)}</dl>'


def _significance(entries: list[Entry]) -> str:
    """Return the table of paired tests between all adapters that were evaluated on the same texts."""
    differences = stats.differences({entry.name: entry.results for entry in entries if entry.results})
    if not differences:
        return ""
    differences.sort(key=lambda difference: difference.p)
    compared = set()
    sizes = set()
    for difference in differences:
        compared |= {difference.first, difference.second}
        sizes.add(difference.n)
    names = _short_names([entry for entry in entries if entry.name in compared])
    columns = [
        Column("Pair", lambda d: html.escape(f"{names[d.first]} – {names[d.second]}"), number=False),
        Column("Points", lambda d: f"{d.points:+.2f}", lambda d: d.points),
        Column("p (McNemar, Holm)", _p_value, lambda d: d.p, less_first=True),
        Column("Difference", _verdict, lambda d: d.significant, number=False),
    ]
    texts = f"{sizes.pop():,} texts" if len(sizes) == 1 else "texts"
    return f"<h3>Differences on the same {texts}</h3>{fragments.table(differences, columns)}"


def _p_value(difference: stats.Difference) -> str:
    return f"{difference.p:.3f}" if difference.p >= 0.001 else "&lt; 0.001"


def _verdict(difference: stats.Difference) -> str:
    return "significant" if difference.significant else "may be chance"


def _device(entry: Entry) -> str | None:
    return entry.results and entry.results.training.device


@functools.cache
def _csv_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="arena-"))


def _csv(entries: list[Entry]) -> str:
    """Write the table as a CSV file, if there is none with this content, and return its path."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    shown = measures.shown(entries)
    writer.writerow(["adapter", "method", "base_model", "dataset", "source", "trained_on", *shown])
    for entry in entries:
        writer.writerow(_csv_row(entry, shown))
    content = file.getvalue()
    folder = _csv_folder() / hashlib.sha256(content.encode()).hexdigest()[:16]
    folder.mkdir(exist_ok=True)
    path = folder / "leaderboard.csv"
    if not path.is_file():
        files.write_atomic(path, content)
    return str(path)


def _csv_row(entry: Entry, shown: dict[str, Measure]) -> list[Any]:
    row = []
    for text in (entry.name, entry.method, entry.base_model, entry.dataset, entry.source, _device(entry)):
        row.append(escape_formula(text or ""))
    for measure in shown.values():
        row.append(measure.value(entry))
    return row
