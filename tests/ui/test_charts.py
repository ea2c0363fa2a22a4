import json

import pytest

from adapter_arena.ui import charts
from adapter_arena.ui.charts import Axis, CurvePoint, Point

SIZE = Axis("Size, MB", log=True)
ACCURACY = Axis("Accuracy, %", more_is_better=True)
POINTS = [
    Point("qlora", "qlora", 3.3, 92.2, 91.7, 92.6, "91.7–92.6", "#open=qlora"),
    Point("lora", "lora", 3.3, 91.4, 90.9, 91.9, "90.9–91.9"),
    Point("full", "full", 29.8, 91.8),
    Point("ia3", "ia3", 0.7, 89.9),
    Point("ln", "ln", 0.7, 85.3),
]


def specification(plot) -> dict:
    assert plot.type == "altair"
    return json.loads(plot.plot)


def adapters(data: dict) -> list[str]:
    return [row["adapter"] for row in data["values"]]


def test_scatter_has_a_mark_with_a_tooltip_for_each_point():
    spec = specification(charts.scatter(POINTS, SIZE, ACCURACY))
    front, intervals, marks = spec["layer"]
    assert adapters(spec["data"]) == ["qlora", "lora", "full", "ia3", "ln"]
    assert adapters(front["data"]) == ["ia3", "qlora"]
    assert marks["encoding"]["x"]["scale"]["type"] == "log"
    assert marks["encoding"]["tooltip"][-1] == {"field": "interval", "title": "95 % interval"}
    assert intervals["transform"] == [{"filter": "isValid(datum.low)"}]
    assert marks["encoding"]["href"] == {"field": "link"}
    assert spec["data"]["values"][0]["link"] == "#open=qlora"


def test_pareto_front_follows_the_better_end_of_each_axis():
    qlora, _, _, ia3, ln = POINTS
    assert charts.pareto_front(POINTS, SIZE, ACCURACY) == [ia3, qlora]
    assert charts.pareto_front(POINTS, SIZE, Axis("Calibration error")) == [ln]
    assert charts.pareto_front([qlora, qlora], SIZE, ACCURACY) == [qlora, qlora]


def test_colours_are_those_of_the_methods_and_shapes_tell_their_adapters_apart():
    points = [Point(f"lora {seed}", "lora", seed, 90) for seed in (1, 2, 3)] + [Point("own", "a stranger's", 1, 80)]
    marks = specification(charts.scatter(points, SIZE, ACCURACY))["layer"][-1]
    color = marks["encoding"]["color"]["scale"]
    shape = marks["encoding"]["shape"]["scale"]
    assert color["domain"] == shape["domain"] == ["lora 1", "lora 2", "lora 3", "own"]
    assert color["range"] == ["var(--method-lora)"] * 3 + ["var(--method-other)"]
    assert shape["range"] == ["circle", "square", "triangle-up", "circle"]


@pytest.mark.parametrize("number", [1, 6, 20])
def test_no_two_lines_look_alike(number):
    methods = ["lora", "qlora", "ia3", "full", "dora"]
    points = [CurvePoint(f"run {run:02}", methods[run % 5], 1, run) for run in range(number)]
    encoding = specification(charts.lines(points, Axis("Step"), Axis("Loss")))["encoding"]
    colors = encoding["color"]["scale"]["range"]
    dashes = encoding["strokeDash"]["scale"]["range"]
    assert len({(color, tuple(dash)) for color, dash in zip(colors, dashes, strict=True)}) == number


def test_histogram_has_a_column_for_each_bin():
    spec = specification(charts.histogram([3, 7], [0.9, 0.95, 1.0], "Confidence"))
    assert spec["data"]["values"] == [
        {"low": 0.9, "high": 0.95, "count": 3, "range": "90% – 95%"},
        {"low": 0.95, "high": 1.0, "count": 7, "range": "95% – 100%"},
    ]


@pytest.mark.parametrize("chart", [charts.scatter([], SIZE, ACCURACY), charts.lines([], SIZE, ACCURACY)])
def test_chart_without_data_says_so(chart):
    assert "No adapter has" in specification(chart)["description"]
