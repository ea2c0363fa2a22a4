"""Charts as SVG text, drawn on the server; colours are the page's CSS variables, so both schemes fit."""

import html
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

_WIDTH, _HEIGHT = 520, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 16, 48
SERIES = 6
"""Number of series colours in page.css; further series take the first ones again, dashed and hollow."""
_LETTER, _LINE, _GAP = 8.5, 16.0, 11.0
"""Width of a letter of a point's title, height of its line (both as on a narrow page), its distance from the point."""
_MOVES = (0, 1, -1, 2, -2, 3, -3)
"""Lines that a point's title may be moved down where another stands in its place."""


@dataclass(frozen=True)
class Axis:
    """A quantity to plot: its title, how a value is written, and whether more of it is better."""

    title: str
    text: str | Callable[[float], str] = "{:.3g}"
    more_is_better: bool = False
    log: bool = False

    def write(self, value: float) -> str:
        return self.text.format(value) if isinstance(self.text, str) else self.text(value)


@dataclass(frozen=True)
class Point:
    """A mark of a scatter plot; `low` and `high` are the interval of `y`, equal to it where there is none."""

    name: str
    title: str
    x: float
    y: float
    low: float
    high: float
    series: int


def scatter(points: list[Point], x: Axis, y: Axis) -> str:
    """Points with their intervals and the Pareto front; each point is a button that carries its name."""
    if not points:
        return _empty("Nothing measured to plot")
    to_x = _scale([p.x for p in points], x, _LEFT, _WIDTH - _RIGHT)
    to_y = _scale([v for p in points for v in (p.low, p.high)], y, _HEIGHT - _BOTTOM, _TOP)
    front = pareto(points, x, y)
    steps = " ".join(f"{to_x(p.x):.1f},{to_y(p.y):.1f}" for p in sorted(front, key=lambda p: p.x))
    marks = [_frame(to_x, to_y, x, y), f'<polyline class="front" points="{steps}"/>']
    titles = _beside([(to_x(p.x), to_y(p.y), p.title) for p in points])
    for p, (text_x, text_y, anchor) in zip(points, titles):
        at_x, at_y = to_x(p.x), to_y(p.y)
        said = html.escape(f"{p.title}: {y.title} {y.write(p.y)}, {x.title} {x.write(p.x)}")
        marks.append(
            f'<g class="point {_kind(p.series)}" data-name="{html.escape(p.name)}" tabindex="0" role="button" '
            f'aria-label="{said}"><title>{said}</title>'
            f'<line x1="{at_x:.1f}" x2="{at_x:.1f}" y1="{to_y(p.low):.1f}" y2="{to_y(p.high):.1f}"/>'
            f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="{7 if p in front else 5}"/>'
            f'<text x="{text_x:.1f}" y="{text_y:.1f}" text-anchor="{anchor}">{html.escape(p.title)}</text></g>'
        )
    return _figure(marks, f"{y.title} against {x.title}")


def _kind(number: int) -> str:
    """The classes of a series: its colour, and whether it is the second one of that colour."""
    return f"s{number % SERIES}" + (" again" if number >= SERIES else "")


def _beside(points: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Where each point's title starts or ends, in the order of (x, y, title): beside it, and clear of the others' if it can be."""
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y, _ in points]
    places = []
    for x, y, title in points:
        width, sides = _LETTER * len(title), (1, -1) if x <= _WIDTH - 140 else (-1, 1)
        tried = []
        for move, side in itertools.product(_MOVES, sides):
            left, middle = x + _GAP if side > 0 else x - _GAP - width, y + move * _LINE
            box = (left, middle - _LINE / 2, left + width, middle + _LINE / 2)
            crossed = sum(_overlap(box, other) for other in taken)
            outside = left < _LEFT or left + width > _WIDTH or not 0 < middle < _HEIGHT - _BOTTOM
            tried.append((crossed + 1000 * outside, len(tried), box, (x + side * _GAP, middle + 4, side)))
        _, _, box, (at_x, at_y, side) = min(tried)
        taken.append(box)
        places.append((at_x, at_y, "start" if side > 0 else "end"))
    return places


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The area that two boxes (left, top, right, bottom) share."""
    across, down = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0)


def pareto(points: list[Point], x: Axis, y: Axis) -> list[Point]:
    """The points that no other is at least as good as on both axes and better on one."""

    def good(p: Point) -> tuple[float, float]:
        return (p.x if x.more_is_better else -p.x), (p.y if y.more_is_better else -p.y)

    return [
        p
        for p in points
        if not any(good(q) != good(p) and all(a >= b for a, b in zip(good(q), good(p))) for q in points)
    ]


def lines(series: dict[str, list[tuple[float, float]]], x: Axis, y: Axis) -> str:
    """One line a series, of (x, y) pairs; a series of one pair is a dot."""
    series = {name: rows for name, rows in series.items() if rows}
    if not series:
        return _empty("No curve recorded")
    to_x = _scale([a for rows in series.values() for a, _ in rows], x, _LEFT, _WIDTH - _RIGHT)
    to_y = _scale([b for rows in series.values() for _, b in rows], y, _HEIGHT - _BOTTOM, _TOP)
    marks = [_frame(to_x, to_y, x, y)]
    for number, (name, rows) in enumerate(series.items()):
        at = [(to_x(a), to_y(b)) for a, b in rows]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in at)
        dot = f'<circle cx="{at[-1][0]:.1f}" cy="{at[-1][1]:.1f}" r="4"/>'
        marks.append(
            f'<g class="series {_kind(number)}"><title>{html.escape(name)}</title><polyline points="{path}"/>{dot}</g>'
        )
    legend = "".join(f'<li class="{_kind(n)}">{html.escape(name)}</li>' for n, name in enumerate(series))
    return _figure(marks, f"{y.title} by {x.title}", f'<ul class="legend">{legend}</ul>')


def histogram(bins: list[tuple[str, int]], title: str) -> str:
    """Columns of counts, each with its label below and its count above."""
    if not any(count for _, count in bins):
        return _empty("Nothing to count yet")
    top, step = max(count for _, count in bins), (_WIDTH - 2 * _RIGHT) / len(bins)
    marks = []
    for number, (label, count) in enumerate(bins):
        height = (_HEIGHT - _TOP - _BOTTOM - 16) * count / top
        left, middle, base = _RIGHT + number * step, _RIGHT + (number + 0.5) * step, _HEIGHT - _BOTTOM
        marks.append(
            f'<g class="column"><title>{html.escape(label)}: {count:,}</title>'
            f'<rect x="{left + 2:.1f}" y="{base - height:.1f}" width="{step - 4:.1f}" height="{height:.1f}" rx="3"/>'
            f'<text x="{middle:.1f}" y="{base - height - 6:.1f}" text-anchor="middle">{count:,}</text>'
            f'<text class="tick" x="{middle:.1f}" y="{base + 20}" text-anchor="middle">{html.escape(label)}</text></g>'
        )
    return _figure(marks, title)


def _figure(marks: list[str], title: str, below: str = "") -> str:
    said = html.escape(title)
    return (
        f'<figure class="chart"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="group" aria-label="{said}">'
        f"{''.join(marks)}</svg>{below}</figure>"
    )


def _empty(said: str) -> str:
    return f'<p class="nothing">{html.escape(said)}</p>'


def _scale(values: list[float], axis: Axis, start: float, end: float):
    """A function from a value to a place between `start` and `end`, with a little room at both ends."""
    change = math.log10 if axis.log else float
    low, high = change(min(values)), change(max(values))
    room = 0.08 * (high - low) or abs(low) * 0.05 or 1.0
    low, high = low - room, high + room

    def place(value: float) -> float:
        return start + (change(value) - low) / (high - low) * (end - start)

    place.ticks = _log_ticks(low, high) if axis.log else _ticks(low, high)
    return place


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between `low` and `high`."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    first = math.ceil(low / step)
    return [round(n * step, 12) for n in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten (and 2, 5 times them where those are few) between the exponents."""
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [f * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for f in factors]
        found = [value for value in found if low <= math.log10(value) <= high]
        if len(found) >= 3:
            break
    return found or [10**low, 10**high]


def _named(ticks: list[float], axis: Axis) -> dict[str, float]:
    """Ticks by what is written at them: `1` twice on an axis of one epoch would be a riddle."""
    named: dict[str, list[float]] = {}
    for value in ticks:
        named.setdefault(axis.write(value), []).append(value)
    return {said: values[len(values) // 2] for said, values in named.items()}


def _frame(to_x, to_y, x: Axis, y: Axis) -> str:
    """Axis titles, ticks and faint rules."""
    base = _HEIGHT - _BOTTOM
    marks = [
        f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{to_y(v):.1f}" y2="{to_y(v):.1f}"/>'
        f'<text class="tick" x="{_LEFT - 8}" y="{to_y(v) + 4:.1f}" text-anchor="end">{said}</text>'
        for said, v in _named(to_y.ticks, y).items()
    ]
    marks += [
        f'<text class="tick" x="{to_x(v):.1f}" y="{base + 18}" text-anchor="middle">{said}</text>'
        for said, v in _named(to_x.ticks, x).items()
    ]
    marks.append(
        f'<text class="title" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{html.escape(x.title)}</text>'
        f'<text class="title" x="{-(_TOP + base) / 2}" y="14" transform="rotate(-90)" text-anchor="middle">{html.escape(y.title)}</text>'
    )
    return "".join(marks)
