"""The charts of one adapter's results: calibration, abstaining, and its learning curves."""

from typing import Any

from gradio.components.plot import PlotData

from adapter_arena import tasks
from adapter_arena.results import Results
from adapter_arena.ui import charts, palette

HEIGHT = 240
_GREY = "var(--body-text-color-subdued)"
_TRAINING = "Training"
_VALIDATION = "Validation"


def reliability(found: Results) -> PlotData | None:
    """Return the accuracy by confidence, which is on the diagonal if it is calibrated; None if it was not measured."""
    rows = []
    for part in found.evaluation.reliability:
        low, high = part.accuracy_ci95
        rows.append({"x": part.confidence, "y": part.accuracy, "low": low, "high": high, "n": part.n})
    if not rows:
        return None
    least = min(row["x"] for row in rows)
    diagonal = {
        "data": {"values": [{"x": least, "y": least}, {"x": 1, "y": 1}]},
        "mark": {"type": "line", "strokeDash": [4, 4], "strokeWidth": 1.5, "color": _GREY},
        "encoding": {"x": _share("x", "Confidence"), "y": _share("y", "Accuracy")},
    }
    return charts.panel([diagonal, *_measured(rows, found.method)], "Accuracy by confidence", HEIGHT)


def _measured(rows: list[dict[str, float]], method: str) -> list[dict[str, Any]]:
    """Return points with their intervals."""
    colour = palette.colour(method)
    interval = {
        "data": {"values": rows},
        "mark": {"type": "rule", "strokeWidth": 2, "color": colour},
        "encoding": {
            "x": _share("x", "Confidence"),
            "y": _share("low", "Accuracy"),
            "y2": {"field": "high"},
        },
    }
    points = {
        "data": {"values": rows},
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1, "color": colour},
        "encoding": {
            "x": _share("x", "Confidence"),
            "y": _share("y", "Accuracy"),
            "tooltip": [_tip("x", "Confidence", ".1%"), _tip("y", "Accuracy", ".1%"), _tip("n", "Texts", ",")],
        },
    }
    return [interval, points]


def abstention(found: Results) -> PlotData | None:
    """Return the accuracy by the share of texts that are answered; None if it was not measured."""
    rows = []
    for point in found.evaluation.abstention:
        low, high = point.accuracy_ci95
        rows.append(
            {"x": point.share, "y": point.accuracy, "low": low, "high": high, "confidence": point.min_confidence}
        )
    if not rows:
        return None
    colour = palette.colour(found.method)
    x = _share("x", "Texts answered")
    band = {
        "data": {"values": rows},
        "mark": {"type": "area", "opacity": 0.2, "color": colour},
        "encoding": {"x": x, "y": _share("low", "Accuracy of the answers"), "y2": {"field": "high"}},
    }
    tooltip = [
        _tip("x", "Texts answered", ".0%"),
        _tip("y", "Accuracy", ".1%"),
        _tip("confidence", "From this confidence", ".2f"),
    ]
    line = {
        "data": {"values": rows},
        "mark": {"type": "line", "point": {"size": 30, "color": colour}, "strokeWidth": 2, "color": colour},
        "encoding": {"x": x, "y": _share("y", "Accuracy of the answers"), "tooltip": tooltip},
    }
    return charts.panel([band, line], "Accuracy by share of texts answered", HEIGHT)


def loss(found: Results) -> PlotData | None:
    """Return the training and the validation loss by step; None if neither was recorded."""
    training = found.training
    rows = [{"x": step, "y": value, "of": _TRAINING} for step, value in training.losses]
    rows += [{"x": step, "y": value, "of": _VALIDATION} for step, value, _ in training.validation_curve]
    return _curve(rows, "Loss", found.method)


def score(found: Results) -> PlotData | None:
    """Return the score that ranks models of the task on validation texts by step; None if it was not recorded."""
    rows = [{"x": step, "y": value, "of": _VALIDATION} for step, _, value in found.training.validation_curve]
    return _curve(rows, f"{tasks.of(found).objective.title}, validation", found.method)


def _curve(rows: list[dict[str, Any]], title: str, method: str) -> PlotData | None:
    if not rows:
        return None
    names = sorted({row["of"] for row in rows})
    colours = {_TRAINING: _GREY, _VALIDATION: palette.colour(method)}
    legend = {"orient": "bottom", "title": None, "symbolType": "stroke"} if len(names) > 1 else None
    line = {
        "data": {"values": rows},
        "mark": {"type": "line", "strokeWidth": 2, "point": {"size": 20}},
        "encoding": {
            "x": _position("x", "Step", "~s"),
            "y": _position("y", title, ".3~r"),
            "color": {
                "field": "of",
                "type": "nominal",
                "scale": {"domain": names, "range": [colours[name] for name in names]},
                "legend": legend,
            },
            "tooltip": [{"field": "of", "title": "On"}, _tip("x", "Step", ","), _tip("y", title, ".3~r")],
        },
    }
    return charts.panel([line], f"{title} by step", HEIGHT)


def _share(field: str, title: str) -> dict[str, Any]:
    return _position(field, title, ".0%")


def _position(field: str, title: str, number_format: str) -> dict[str, Any]:
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"zero": False, "nice": False, "padding": 8},
        "axis": {"format": number_format, "tickCount": 5, "labelOverlap": True},
    }


def _tip(field: str, title: str, number_format: str) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title, "format": number_format}
