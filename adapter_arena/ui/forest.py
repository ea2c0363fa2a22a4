"""A forest plot in HTML: the score of each row with its 95 % interval on a common axis, the best first."""

import html
import itertools
import math
from urllib.parse import quote

from adapter_arena.ui import measures, palette
from adapter_arena.ui.measures import Measure, Row

_TICKS = 5
"""Largest number of marks of an axis."""


def link(name: str) -> str:
    """Return the address that opens an adapter, see board.js."""
    return f"#open={quote(name, safe='')}"


def render(rows: list[Row]) -> str:
    """Return a plot for each data set, since scores on different test texts have no common axis."""
    plots = ""
    for dataset, group in _by_dataset(rows).items():
        measure = measures.objective(group[0].task)
        title = f"{measure.title} · {dataset}" if dataset else measure.title
        plots += f"<h3>{html.escape(title)}</h3>{_plot(group, measure)}"
    return plots


def _by_dataset(rows: list[Row]) -> dict[str, list[Row]]:
    """Return the rows of each data set with an adapter, the largest data set first; none of them has two tasks."""
    groups: dict[tuple, list[Row]] = {}
    for row in measures.best_first(rows):
        groups.setdefault((row.dataset or "", row.task), []).append(row)
    with_adapter = {key: group for key, group in groups.items() if any(row.entry for row in group)}
    largest_first = sorted(with_adapter.items(), key=lambda item: -len(item[1]))
    return {dataset: group for (dataset, _), group in largest_first}


def _plot(rows: list[Row], measure: Measure) -> str:
    axis = _Axis.of(rows, measure)
    lines = "".join(f"<li>{_line(row, measure, axis)}</li>" for row in rows)
    labels = ""
    for tick in axis.ticks:
        labels += f'<span style="left:{axis.percent(tick):.2f}%">{tick:.{axis.digits}f}</span>'
    scale = f'<div class="line scale" aria-hidden="true"><span></span><span class="strip">{labels}</span></div>'
    return f'<ul class="forest" style="--rows:{len(rows)}">{lines}</ul>{scale}'


class _Axis:
    """The part of the numbers that a plot shows, with its marks."""

    def __init__(self, low: float, high: float):
        margin = 0.04 * (high - low) or 1.0
        self.low = low - margin
        self.high = high + margin
        rough = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first = math.ceil(self.low / step)
        self.ticks = [step * number for number in range(first, math.floor(self.high / step) + 1)]
        self.digits = max(0, -math.floor(math.log10(step)))

    @classmethod
    def of(cls, rows: list[Row], measure: Measure) -> "_Axis":
        """Return the axis for all adapters, and for the baselines that are not far below: these would squeeze the rest."""
        numbers = list(itertools.chain.from_iterable(_ends(row, measure) for row in rows if row.entry))
        low, high = min(numbers), max(numbers)
        span = high - low
        for row in rows:
            ends = _ends(row, measure)
            if row.entry is None and min(ends) >= low - span and max(ends) <= high + span:
                numbers += ends
        return cls(min(numbers), max(numbers))

    def percent(self, number: float) -> float:
        """Return the place of a number on the axis, from 0 to 100."""
        return 100 * min(1.0, max(0.0, (number - self.low) / (self.high - self.low)))


def _ends(row: Row, measure: Measure) -> list[float]:
    return [measure.value(row), *(measure.interval(row) or [])]


def _line(row: Row, measure: Measure, axis: _Axis) -> str:
    value = measure.value(row)
    interval = measure.interval(row)
    strip = "".join(f'<i class="tick" style="left:{axis.percent(tick):.2f}%"></i>' for tick in axis.ticks)
    if not axis.low <= value <= axis.high:
        strip += f'<i class="outside">{"◂" if value < axis.low else "▸"}</i>'
    else:
        if interval:
            low, high = map(axis.percent, interval)
            strip += f'<i class="interval" style="left:{low:.2f}%;width:{high - low:.2f}%"></i>'
        strip += f'<i class="point" style="left:{axis.percent(value):.2f}%"></i>'
    known = f"95 % interval {measure.write_interval(row)}" if interval else "no interval"
    content = (
        f"<span>{html.escape(row.title)}</span>"
        f'<span class="strip" aria-hidden="true">{strip}</span>'
        f'<span class="number">{measure.write(value)}<span class="unseen">, {known}</span></span>'
    )
    style = f'style="--method:{palette.colour(row.method)}" title="{measure.write(value)}, {known}"'
    if row.entry is None:
        return f'<div class="line baseline" {style}>{content}</div>'
    return f'<a class="line" href="{link(row.entry.name)}" {style}>{content}</a>'
