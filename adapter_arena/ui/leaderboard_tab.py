"""Leaderboard: every measured adapter, its quality against its cost, and which differences are significant."""

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.components.plot import PlotData

from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import (
    about,
    board_address,
    board_plots,
    board_table,
    charts,
    forest,
    fragments,
    measures,
    significance,
)
from adapter_arena.ui.board_plots import CURVES
from adapter_arena.ui.shared import PRIVATE

ALL = "All"
_CURVES = [(curve.title, key) for key, curve in CURVES.items()]
_CHART_HELP = "Hover for values, click to open. Ctrl + wheel or a pinch zooms, a double click resets."
_FILTERS = {"task": "Task", "data": "Data set", "base": "Base model", "method": "Method"}
"""Label of each filter by the name of its control."""


@dataclass
class View:
    """What the tab shows; the fields are the controls of board_address.CONTROLS."""

    task: str = ALL
    data: str = ALL
    base: str = ALL
    method: str = ALL
    search: str = ""
    columns: list[str] = field(default_factory=lambda: list(board_table.DEFAULT_COLUMNS))
    x: str = "parameters"
    y: str = "accuracy"
    curve: str = "score"

    @property
    def filters(self) -> tuple[str, str, str, str]:
        """The values of the four filters."""
        return self.task, self.data, self.base, self.method


class LeaderboardTab:
    """The tab's components and events; the select event of `table` names an adapter."""

    def __init__(self, demo: gr.Blocks, catalogue: Catalogue):
        self._catalogue = catalogue
        entries = _measured(catalogue)
        view = _default_view(entries)
        selected = _select(entries, *view.filters)
        # All has its first contents at once, so that nothing moves when the page has loaded.
        self._build_controls(entries, view)
        self.table = gr.HTML(
            board_table.render(selected, view.columns),
            elem_id="board",
            elem_classes="pinned",
            js_on_load=board_table.SCRIPT,
        )
        self._build_charts(selected, view)
        with gr.Accordion("About these numbers, and how to cite them", open=False, elem_id="about"):
            self._about = gr.HTML(about.render(selected))
            self._citation = gr.Code(
                about.citation(selected), label="BibTeX", interactive=False, show_line_numbers=False, elem_id="bibtex"
            )
        self._wire_events(demo)

    def _build_controls(self, entries: list[Entry], view: View) -> None:
        with gr.Row(elem_classes="filters"):
            self._task, self._data, self._base, self._method = (
                gr.Dropdown(choices, value=value, label=label, elem_id=f"board-{control}", min_width=130)
                for (control, label), choices, value in zip(_FILTERS.items(), _filter_choices(entries), view.filters)
            )
            self._search = gr.Textbox(label="Search", elem_id="board-search", max_lines=1, min_width=130)
        with gr.Row(elem_classes="board-actions"):
            with gr.Accordion("Columns", open=False, elem_id="board-columns"):
                self._columns = gr.CheckboxGroup(
                    board_table.choices(entries), value=view.columns, show_label=False, container=False
                )
            self._copy = gr.Button("Copy link", elem_id="board-link", scale=0, min_width=150)
            self._export = gr.DownloadButton("Download CSV", elem_id="export", scale=0, min_width=150)

    def _build_charts(self, selected: list[Entry], view: View) -> None:
        axes = _axis_choices(_measured(self._catalogue))
        curves, note = _curves(selected, view.curve)
        with gr.Row(elem_classes="split"):
            self._forest = gr.HTML(forest.render(board_table.rows(selected)), elem_id="forest", min_width=320)
            with gr.Column(min_width=320):
                with gr.Row():
                    self._x = gr.Dropdown(axes, value=_among(axes, view.x), label="Horizontal axis", elem_id="axis-x")
                    self._y = gr.Dropdown(axes, value=_among(axes, view.y), label="Vertical axis", elem_id="axis-y")
                self._scatter = gr.Plot(
                    _scatter(selected, view.x, view.y),
                    show_label=False,
                    container=False,
                    elem_id="scatter",
                    elem_classes="chart",
                )
                gr.HTML(fragments.notice(_CHART_HELP))
        with gr.Row(elem_classes="split"):
            self._significance = gr.HTML(significance.render(selected), elem_id="significance", min_width=320)
            with gr.Column(min_width=320):
                self._curve = gr.Dropdown(_CURVES, value=view.curve, label="Curve", elem_id="curve")
                self._curves = gr.Plot(
                    curves, show_label=False, container=False, elem_id="curves", elem_classes="chart"
                )
                self._curve_note = gr.HTML(note, elem_id="curve-note")

    def _wire_events(self, demo: gr.Blocks) -> None:
        filters = [self._task, self._data, self._base, self._method]
        controls = [*filters, self._search, self._columns, self._x, self._y, self._curve]
        table = [self.table, self._export]
        curves = [self._curves, self._curve_note]
        shown = [*table, self._forest, self._scatter, *curves, self._significance, self._about, self._citation]
        for number, control in enumerate(filters):
            filter_by = functools.partial(self._filter, number)
            control.input(filter_by, controls, [*filters, self._y, *shown], **PRIVATE)
        self._columns.input(self._show_table, [*filters, self._columns], table, **PRIVATE)
        self._curve.input(self._show_curves, [*filters, self._curve], curves, **PRIVATE)
        for axis in (self._x, self._y):
            axis.input(self._show_scatter, [*filters, self._x, self._y], self._scatter, **PRIVATE)
        self._wire_address(controls)
        self._everything = [*controls, *shown]
        self.refresh_on(demo.load)

    def refresh_on(self, event: Callable) -> None:
        """Show the adapters that there are after an event."""
        event(self._start, None, self._everything, **PRIVATE)

    def _wire_address(self, controls: list) -> None:
        """Keep the controls' values in the page's address, and copy it."""
        for name, control in zip(board_address.CONTROLS, controls):
            if control is not self._search:  # board.js does it
                control.input(None, control, js=board_address.remember_script(name), api_visibility="private")
        copied = self._copy.click(None, controls, self._copy, js=board_address.copy_script(), api_visibility="private")
        copied.then(None, None, self._copy, js=board_address.AFTER_COPY, api_visibility="private")

    def _selected(self, task: str, data: str, base: str, method: str) -> list[Entry]:
        return _select(_measured(self._catalogue), task, data, base, method)

    def _filter(self, changed: int, *controls: Any) -> list:
        view = View(*controls)
        view.task, view.data, view.base, view.method = _matching(_measured(self._catalogue), view.filters, changed)
        view.y = _vertical_axis(self._selected(*view.filters), view.y)
        return [*view.filters, view.y, *self._show(view)]

    def _show(self, view: View) -> list:
        """Return the contents of all components that show the adapters of a view."""
        entries = self._selected(*view.filters)
        return [
            *_table(entries, view.columns),
            forest.render(board_table.rows(entries)),
            _scatter(entries, view.x, view.y),
            *_curves(entries, view.curve),
            significance.render(entries),
            about.render(entries),
            about.citation(entries),
        ]

    def _show_table(self, task: str, data: str, base: str, method: str, columns: list[str]) -> list:
        return _table(self._selected(task, data, base, method), columns)

    def _show_scatter(self, task: str, data: str, base: str, method: str, x: str, y: str) -> PlotData:
        return _scatter(self._selected(task, data, base, method), x, y)

    def _show_curves(self, task: str, data: str, base: str, method: str, curve: str) -> list:
        return _curves(self._selected(task, data, base, method), curve)

    def _start(self, request: gr.Request) -> list:
        """Show the view of the page's address, or the default one, with the adapters that there are now."""
        entries = _measured(self._catalogue)
        view = _view(entries, board_address.read(request.query_params))
        filters = []
        for choices, value in zip(_filter_choices(entries), view.filters):
            filters.append(gr.Dropdown(choices, value=value))
        columns = gr.CheckboxGroup(board_table.choices(entries), value=view.columns)
        axes = _axis_choices(entries)
        x = gr.Dropdown(axes, value=_among(axes, view.x))
        y = gr.Dropdown(axes, value=_among(axes, view.y))
        return [*filters, view.search, columns, x, y, view.curve, *self._show(view)]


def opened(request: gr.Request) -> gr.Tabs:
    """Select the tab if the page's address is that of a view of the leaderboard."""
    return gr.Tabs(selected="leaderboard") if board_address.names_view(request.query_params) else gr.skip()


def _measured(catalogue: Catalogue) -> list[Entry]:
    """Return the adapters with a score."""
    return [entry for entry in catalogue.entries if entry.headline is not None]


def _select(entries: list[Entry], task: str, data: str, base: str, method: str) -> list[Entry]:
    """Return the adapters that have these values, each of which may be ALL."""
    wanted = {"task": task, "dataset": data, "base_model": base, "method": method}
    for attribute, value in wanted.items():
        if value != ALL:
            entries = [entry for entry in entries if getattr(entry, attribute) == value]
    return entries


def _matching(entries: list[Entry], filters: tuple[str, ...], changed: int) -> tuple[str, ...]:
    """Return the filters, or only the one that was changed, by its number, if no adapter matches all of them."""
    if _select(entries, *filters):
        return filters
    return tuple(value if number == changed else ALL for number, value in enumerate(filters))


def _filter_choices(entries: list[Entry]) -> list[list[tuple[str, str]]]:
    """Return label and value of the choices of each filter, in the order of _FILTERS."""
    titles = {entry.method: entry.title for entry in entries}
    found = []
    for attribute in ("task", "dataset", "base_model", "method"):
        values = {getattr(entry, attribute) for entry in entries} - {None, ""}
        labelled = sorted((titles.get(value, value), value) for value in values)
        found.append([(ALL, ALL), *labelled])
    return found


def _default_view(entries: list[Entry]) -> View:
    """Return the view of the data set with the most adapters."""
    columns = [key for _, key in board_table.choices(entries) if key in board_table.DEFAULT_COLUMNS]
    view = View(columns=columns)
    counts = Counter(entry.dataset for entry in entries if entry.dataset)
    if counts:
        view.data = counts.most_common(1)[0][0]
    shown = _select(entries, *view.filters)
    view.y = _vertical_axis(shown, view.y)
    view.curve = _recorded_curve(shown, view.curve)
    return view


def _view(entries: list[Entry], values: dict[str, str]) -> View:
    """Return the default view with the values that the page's address has; values that do not exist are ignored."""
    view = _default_view(entries)
    axes = _axis_choices(entries)
    choices = dict(zip(_FILTERS, _filter_choices(entries))) | {"x": axes, "y": axes, "curve": _CURVES}
    for control, value in values.items():
        if control == "search":
            view.search = value
        elif control == "columns":
            view.columns = [key for _, key in board_table.choices(entries) if key in value.split(",")]
        elif value in {key for _, key in choices[control]}:
            setattr(view, control, value)
    return view


def _recorded_curve(entries: list[Entry], key: str) -> str:
    """Return the key of the first curve that any of the adapters has recorded; `key` if there is none."""
    for recorded, curve in CURVES.items():
        if any(entry.results and curve.points(entry.results) for entry in entries):
            return recorded
    return key


def _vertical_axis(entries: list[Entry], key: str) -> str:
    """Return the key if any of the adapters has this measure, else that of the score by which they are ranked."""
    measure = board_table.measures_of(entries).get(key)
    return key if measure or not entries else measures.objective(entries[0].task).key


def _axis_choices(entries: list[Entry]) -> list[tuple[str, str]]:
    return [(measure.title, key) for key, measure in board_table.measures_of(entries).items()]


def _among(choices: list[tuple[str, str]], value: str) -> str | None:
    """Return the value if it is one of the choices; it is not if no adapter has that measurement."""
    return value if value in [choice for _, choice in choices] else None


def _table(entries: list[Entry], columns: list[str]) -> list[str]:
    return [board_table.render(entries, columns), board_table.write_csv(entries, columns)]


def _scatter(entries: list[Entry], x: str, y: str) -> PlotData:
    known = board_table.measures_of(entries)
    if x not in known or y not in known:
        return charts.message("No adapter has both measurements")
    return board_plots.scatter(entries, known[x], known[y])


def _curves(entries: list[Entry], curve: str) -> list:
    plot, note = board_plots.curves(entries, CURVES[curve])
    return [plot, fragments.notice(note)]
