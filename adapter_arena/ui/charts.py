"""Charts with hover and zoom: Vega-Lite specifications, which Gradio draws in the browser.

Gradio's Plot takes a specification in the form in which it sends Altair's charts, so Altair is not needed. Its native
ScatterPlot has no logarithmic axis and no intervals. Colours are CSS variables of palette.py and css/base.css, which
differ between the light and the dark scheme.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from gradio.components.plot import PlotData

from adapter_arena.ui import palette

_HEIGHT = 300
_NARROWEST = 310
"""Width in pixels of a chart's inside on a phone, in which a row of the legend has to fit."""
_SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]
"""Shapes of the adapters of one method, which share its colour."""
_DASHES = [[1, 0], [6, 4], [2, 3], [10, 3, 2, 3]]
"""Dashes of the lines of one method, since a line has no shape."""
# Only with Ctrl does the mouse wheel zoom: without it, the page scrolls. A pinch on a trackpad is sent as Ctrl + wheel.
_ZOOM = [{"name": "zoom", "bind": "scales", "select": {"type": "interval", "zoom": "wheel![event.ctrlKey]"}}]
_TEXT, _SUBDUED, _RULE = "var(--body-text-color)", "var(--body-text-color-subdued)", "var(--border-color-primary)"
_CONFIG = {
    "background": None,
    "font": "Avenir Next, Segoe UI, Noto Sans, Helvetica Neue, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": _SUBDUED,
        "labelFontSize": 12,
        "titleColor": _SUBDUED,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "gridColor": _RULE,
        "domainColor": _RULE,
        "tickColor": _RULE,
    },
    "legend": {"labelColor": _TEXT, "labelFontSize": 13, "labelLimit": 300, "symbolStrokeWidth": 2},
    "text": {"color": _SUBDUED, "fontSize": 14},
}


@dataclass(frozen=True)
class Axis:
    """A quantity to plot, and its number format in the notation of d3-format."""

    title: str
    number_format: str = ",.3~r"
    log: bool = False
    more_is_better: bool = False


@dataclass(frozen=True)
class Point:
    """A mark of a scatter plot; `low` and `high` are the interval of `y`, None if there is none."""

    adapter: str
    method: str | None
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    interval: str = ""
    """The interval as it is written in the tooltip."""
    link: str = ""
    """The address that a click on the mark opens."""


@dataclass(frozen=True)
class CurvePoint:
    """A point of one adapter's curve."""

    adapter: str
    method: str | None
    x: float
    y: float


def scatter(points: list[Point], x: Axis, y: Axis) -> PlotData:
    """Return a scatter plot with a colour for each method, intervals of `y`, and the Pareto front."""
    if not points:
        return message("No adapter has both measurements")
    methods = _methods(points)
    color = {"color": _series(_colors(methods), symbol="circle")}
    shape = {"shape": _series(_told_apart(methods, _SHAPES), symbol="circle")}
    position = {"x": _position("x", x), "y": _position("y", y)}
    tooltip = [{"field": "adapter", "title": "Adapter"}, _tooltip("x", x), _tooltip("y", y)]
    if any(point.interval for point in points):
        tooltip.append({"field": "interval", "title": "95 % interval"})
    front = {
        "data": _data(pareto_front(points, x, y)),
        "mark": {"type": "line", "strokeDash": [4, 4], "strokeWidth": 1.5, "color": _SUBDUED, "clip": True},
        "encoding": position,
    }
    intervals = {
        "transform": [{"filter": "isValid(datum.low)"}],
        "mark": {"type": "rule", "strokeWidth": 2, "clip": True},
        "encoding": position | color | {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}},
    }
    marks = {
        "params": _ZOOM,
        "mark": {"type": "point", "filled": True, "size": 120, "opacity": 1, "clip": True},
        "encoding": position | color | shape | {"tooltip": tooltip, "href": {"field": "link"}},
    }
    layers = {"data": _data(points), "layer": [front, intervals, marks]}
    return _chart(layers, f"{y.title} against {x.title}")


def pareto_front(points: list[Point], x: Axis, y: Axis) -> list[Point]:
    """Return the points that no other one beats on one axis and at least equals on the other, from the best `x` on."""
    x_sign = 1 if x.more_is_better else -1
    y_sign = 1 if y.more_is_better else -1
    best_first = sorted(points, key=lambda point: (x_sign * point.x, y_sign * point.y), reverse=True)
    front: list[Point] = []
    for point in best_first:
        is_better = not front or y_sign * point.y > y_sign * front[-1].y
        is_equal = bool(front) and (point.x, point.y) == (front[-1].x, front[-1].y)
        if is_better or is_equal:
            front.append(point)
    return front


def lines(
    points: list[CurvePoint], x: Axis, y: Axis, placeholder: str = "No adapter has recorded this curve"
) -> PlotData:
    """Return a line for each adapter; without points the placeholder."""
    if not points:
        return message(placeholder)
    methods = _methods(points)
    mark = {"type": "line", "clip": True, "strokeWidth": 2, "point": {"size": 30}}
    encoding = {
        "x": _position("x", x),
        "y": _position("y", y),
        "color": _series(_colors(methods), symbol="stroke"),
        "strokeDash": _series(_told_apart(methods, _DASHES), symbol="stroke"),
        "tooltip": [{"field": "adapter", "title": "Adapter"}, _tooltip("x", x), _tooltip("y", y)],
    }
    return _chart(
        {"data": _data(points), "mark": mark, "encoding": encoding, "params": _ZOOM}, f"{y.title} by {x.title}"
    )


def histogram(counts: list[int], edges: list[float], title: str, number_format: str = ".0%") -> PlotData:
    """Return columns of `counts` between `edges`, written in a format that Python and d3-format share."""
    rows = []
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        rows.append(
            {"low": low, "high": high, "count": count, "range": f"{low:{number_format}} – {high:{number_format}}"}
        )
    encoding = {
        "x": {
            "field": "low",
            "type": "quantitative",
            "bin": "binned",
            "axis": {"format": number_format},
            "title": title,
        },
        "x2": {"field": "high"},
        "y": {
            "field": "count",
            "type": "quantitative",
            "title": "Rows",
            "axis": {"format": "~s", "tickCount": 5, "tickMinStep": 1},
        },
        "tooltip": [{"field": "range", "title": title}, {"field": "count", "title": "Rows", "format": ","}],
    }
    mark = {"type": "bar", "color": "var(--accent)"}
    return _chart({"data": {"values": rows}, "mark": mark, "encoding": encoding}, title)


def message(text: str) -> PlotData:
    """Return an empty chart that says why."""
    spec = {"data": {"values": [{"text": text}]}, "mark": "text", "encoding": {"text": {"field": "text"}}}
    return _chart(spec, text)


def _chart(spec: dict[str, Any], description: str) -> PlotData:
    common = {
        "description": description,
        "width": "container",
        "height": _HEIGHT,
        "config": _CONFIG,
        "usermeta": {"embedOptions": {"renderer": "svg", "actions": False}},
    }
    return PlotData(type="altair", plot=json.dumps(spec | common))


def _data(points: list[Point] | list[CurvePoint]) -> dict[str, Any]:
    return {"values": [asdict(point) for point in points]}


def _position(field: str, axis: Axis) -> dict[str, Any]:
    """Return the encoding of a field as a position on an axis that need not start at zero."""
    scale = {"type": "log"} if axis.log else {"type": "linear", "zero": False}
    scale |= {"nice": False, "padding": 16}
    ticks = {"format": axis.number_format, "tickCount": 5, "labelOverlap": True, "grid": field == "y"}
    return {"field": field, "type": "quantitative", "title": axis.title, "scale": scale, "axis": ticks}


def _tooltip(field: str, axis: Axis) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": axis.title, "format": axis.number_format}


def _methods(points: list[Point] | list[CurvePoint]) -> dict[str, str | None]:
    """Return the method of each adapter, in the order of the points."""
    return {point.adapter: point.method for point in points}


def _colors(methods: dict[str, str | None]) -> dict[str, str]:
    return {adapter: palette.colour(method) for adapter, method in methods.items()}


def _told_apart(methods: dict[str, str | None], looks: list) -> dict[str, Any]:
    """Return a look for each adapter by which those of one method differ, while there are enough looks."""
    used: Counter[str] = Counter()
    found = {}
    for adapter, method in methods.items():
        color = palette.colour(method)
        found[adapter] = looks[used[color] % len(looks)]
        used[color] += 1
    return found


def _series(look_of: dict[str, Any], symbol: str) -> dict[str, Any]:
    """Return the encoding of the adapters by a look each, with a legend below the chart."""
    column_width = 35 + 7 * max(map(len, look_of))
    columns = max(1, _NARROWEST // column_width)
    legend = {"orient": "bottom", "columns": columns, "title": None, "symbolType": symbol}
    scale = {"domain": list(look_of), "range": list(look_of.values())}
    return {"field": "adapter", "type": "nominal", "scale": scale, "legend": legend}


def panel(layers: list[dict[str, Any]], description: str, height: int) -> PlotData:
    """Return a chart of these Vega-Lite layers, each with its own data, in the look of the others."""
    spec = json.loads(_chart({"layer": layers}, description).plot)
    return PlotData(type="altair", plot=json.dumps(spec | {"height": height}))
