import re

import pytest

from adapter_arena.ui import charts
from adapter_arena.ui.charts import Axis, Point

X, Y = Axis("Size, MB", log=True), Axis("Accuracy, %", more_is_better=True)
# Eight adapters, five of one size within two points, as they are shipped.
SHIPPED = {
    "QLoRA": (3.3, 92.18),
    "Full fine-tuning": (29.8, 91.82),
    "LoRA": (3.3, 91.39),
    "DoRA": (3.3, 91.31),
    "EVA": (3.3, 90.7),
    "LoRA+": (3.3, 90.27),
    "IA³": (0.7, 89.91),
    "LN tuning": (0.6, 85.29),
}


def boxes(svg: str) -> dict[str, tuple[float, float, float, float]]:
    """Left, top, right and bottom of each point's title."""
    found = {}
    for x, y, anchor, title in re.findall(
        r'</g>|<text x="([\d.-]+)" y="([\d.-]+)" text-anchor="(start|end)">([^<]+)', svg
    ):
        if title in SHIPPED:
            width = charts._LETTER * len(title)
            left = float(x) - (width if anchor == "end" else 0)
            found[title] = (left, float(y) - 12, left + width, float(y) + 4)
    return found


def test_titles_of_points_that_lie_close_hide_none_of_the_others():
    points = [Point(name, name, x, y, y - 0.5, y + 0.5, i) for i, (name, (x, y)) in enumerate(SHIPPED.items())]
    found = boxes(charts.scatter(points, X, Y))
    assert found.keys() == SHIPPED.keys()
    for one, box in found.items():
        assert box[0] >= 0
        assert box[2] <= charts._WIDTH
        for other in found.keys() - {one}:
            assert charts._overlap(box, found[other]) == 0, (one, other)


def test_a_lone_point_has_its_title_beside_it():
    assert charts._beside([(100.0, 50.0, "LoRA")]) == [(111.0, 54.0, "start")]
    assert charts._beside([(500.0, 50.0, "LoRA")]) == [(489.0, 54.0, "end")]


@pytest.mark.parametrize("many", [1, 6, 10])
def test_no_two_series_look_alike(many):
    svg = charts.lines({f"run {i}": [(1, i), (2, i + 1)] for i in range(many)}, X, Y)
    looks = re.findall(r'<li class="([^"]+)">', svg)
    assert len(looks) == len(set(looks)) == many
