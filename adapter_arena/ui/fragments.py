"""Pieces of HTML that several tabs share; every text of a visitor or a repo is escaped here."""

import html
import math
from collections.abc import Callable
from dataclasses import dataclass

from adapter_arena.serve.served import Prediction

SURE, LEANING = 0.9, 0.65
"""Calibrated confidence from which an answer is called sure, or leaning; below it is undecided."""
_FAINT = 0.12
"""Share of the strongest word's weight below which a word is left plain."""

# Headers sort their column; a second click turns the order. One listener on the element outlives each new table.
SORT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('th button');
  if (!button) return;
  const th = button.closest('th'), row = th.parentElement, body = th.closest('table').tBodies[0];
  const at = [...row.children].indexOf(th);
  const up = th.getAttribute('aria-sort') === 'descending' || (!th.hasAttribute('aria-sort') && th.dataset.up);
  [...row.children].forEach((other) => other.removeAttribute('aria-sort'));
  th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const value = (tr) => tr.children[at].dataset.v ?? '';
  const number = (text) => (text === '' ? NaN : Number(text));
  [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)], [m, n] = [number(x), number(y)];
    if (x === '' || y === '') return (x === '') - (y === '');
    const order = Number.isNaN(m) || Number.isNaN(n) ? x.localeCompare(y) : m - n;
    return up ? order : -order;
  }).forEach((tr) => body.append(tr));
});
"""
# A mark or row that carries a name reports it, by mouse and by keyboard.
PICK = """
const pick = (event) => {
  const mark = event.target.closest('[data-name]');
  if (mark) trigger('select', {name: mark.dataset.name});
};
element.addEventListener('click', pick);
element.addEventListener('keydown', (event) => { if (event.key === 'Enter') pick(event); });
"""


def in_words(confidence: float) -> str:
    """Calibrated confidence as people say it."""
    return "sure" if confidence >= SURE else "leaning" if confidence >= LEANING else "undecided"


def bar(share: float, label: str = "", quiet: bool = False) -> str:
    """A horizontal bar of `share` in [0, 1] with its percentage."""
    name = f'<span class="name">{html.escape(label)}</span>' if label else ""
    return (
        f'<div class="bar{" quiet" if quiet else ""}">{name}<span class="track"><span style="width:{100 * share:.1f}%">'
        f'</span></span><span class="share">{100 * share:.1f} %</span></div>'
    )


def verdict(prediction: Prediction) -> str:
    """The answer large, how sure it is, and each label's probability."""
    word = in_words(prediction.confidence)
    scores = sorted(prediction.scores.items(), key=lambda item: -item[1])
    rows = "".join(bar(share, label, label != prediction.label) for label, share in scores)
    return f'<div class="verdict"><p class="label">{html.escape(prediction.label)}</p><p class="chip {word}">{word}</p></div>{rows}'


def words(found: list[tuple[str, float]], label: str) -> str:
    """The text with each word coloured by how it moved the answer; for it and against it differ also in line."""
    # Relative to the strongest word: where an answer is sure, no single word moves it by much.
    most = max((abs(weight) for _, weight in found), default=0.0)
    marks = []
    for word, weight in found:
        said = html.escape(word)
        if abs(weight) < max(_FAINT * most, 1e-4) or not word.strip():
            marks.append(said)
            continue
        side = "for" if weight > 0 else "against"
        strength = abs(weight) / most
        marks.append(
            f'<mark class="{side}" style="--strength:{strength:.2f}" title="{100 * weight:+.1f} points {side} '
            f'{html.escape(label)}">{said.rstrip()}</mark>{said[len(said.rstrip()) :]}'
        )
    key = f'<p class="key"><mark class="for">for {html.escape(label)}</mark> <mark class="against">against</mark></p>'
    return f'<div class="words">{"".join(marks)}</div>{key}'


def facts(rows: dict[str, str]) -> str:
    """Names and values as a definition list."""
    return (
        '<dl class="facts">'
        + "".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd></div>" for name, value in rows.items()
        )
        + "</dl>"
    )


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, a row's cell as HTML, and the value it is sorted by."""

    title: str
    cell: Callable[[object], str]
    value: Callable[[object], object] = lambda row: None
    number: bool = True
    less_first: bool = False
    """Whether the first click puts small values on top."""


def table(rows: list, columns: list[Column], name: Callable[[object], str] | None = None, mark=None) -> str:
    """A table whose headers sort (see SORT); `name` makes rows pickable (see PICK), `mark` gives a row a class."""
    heads = "".join(
        f"<th{' data-up=1' if c.less_first else ''}{' class=number' if c.number else ''}><button>{html.escape(c.title)}</button></th>"
        for c in columns
    )
    body = []
    for row in rows:
        cells = []
        for column in columns:
            value = column.value(row)
            kept = "" if value is None else html.escape(str(value))
            cells.append(f'<td data-v="{kept}"{" class=number" if column.number else ""}>{column.cell(row)}</td>')
        named = f' data-name="{html.escape(name(row))}" tabindex="0"' if name else ""
        kind = f' class="{mark(row)}"' if mark and mark(row) else ""
        body.append(f"<tr{named}{kind}>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table class="data"><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def percent(share: float | None) -> str:
    """`91.85 %`, or a dash when unknown."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.2f} %"


def count(number: float | None) -> str:
    """`812 k`, `22.7 M`: three figures are what people read."""
    if number is None:
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:,.0f}"


def megabytes(number: float | None) -> str:
    """`3.3 MB`, or a dash when unknown."""
    return "–" if number is None else f"{number:,.1f} MB"


def minutes(seconds: float | None) -> str:
    """`9.2 min`, or a dash when unknown."""
    return "–" if seconds is None else f"{seconds / 60:,.1f} min"


def notice(said: str, kind: str = "notice") -> str:
    """A line that says why there is nothing else to see, or what went wrong (`error`)."""
    return f'<p class="{kind}" role="status">{html.escape(said)}</p>'
