"""Pieces of HTML that several tabs share. Text from users and repos is escaped here."""

import html
import math
from collections.abc import Callable
from dataclasses import dataclass

from adapter_arena.serve.served import Prediction

SURE = 0.9
LEANING = 0.65
"""Calibrated confidence from which an answer is called sure or leaning; below LEANING it is undecided."""
_MIN_RELATIVE_WEIGHT = 0.12
_MIN_WEIGHT = 1e-4
"""Words below either weight are not highlighted; the first is relative to the heaviest word."""

# A click on a header sorts by its column; a second click reverses the order. The listener is on the element, so that it
# also works for tables that replace the first one.
SORT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('th button');
  if (!button) return;
  const header = button.closest('th');
  const row = header.parentElement;
  const body = header.closest('table').tBodies[0];
  const column = [...row.children].indexOf(header);
  const order = header.getAttribute('aria-sort');
  const ascending = order === 'descending' || (order === null && 'ascending' in header.dataset);
  for (const other of row.children) other.removeAttribute('aria-sort');
  header.setAttribute('aria-sort', ascending ? 'ascending' : 'descending');
  const valueOf = (row) => row.children[column].dataset.value ?? '';
  const compare = (first, second) => {
    const [a, b] = [valueOf(first), valueOf(second)];
    if (a === '' || b === '') return (a === '') - (b === '');
    const difference = Number(a) - Number(b);
    const result = Number.isNaN(difference) ? a.localeCompare(b) : difference;
    return ascending ? result : -result;
  };
  body.append(...[...body.rows].sort(compare));
});
"""
# A row with a name reports it as a select event when it is clicked, or when Enter is pressed on it.
PICK = """
const pick = (event) => {
  const row = event.target.closest('[data-name]');
  if (row) trigger('select', {name: row.dataset.name});
};
element.addEventListener('click', pick);
element.addEventListener('keydown', (event) => { if (event.key === 'Enter') pick(event); });
"""


def confidence_word(confidence: float) -> str:
    """Return `sure`, `leaning` or `undecided` for a calibrated confidence."""
    if confidence >= SURE:
        return "sure"
    return "leaning" if confidence >= LEANING else "undecided"


def confidence_chip(confidence: float) -> str:
    """Return the confidence as a word in a coloured frame."""
    word = confidence_word(confidence)
    return f'<span class="chip {word}">{word}</span>'


def bar(share: float, label: str = "", quiet: bool = False) -> str:
    """Return a horizontal bar of `share` in [0, 1] with its percentage; `quiet` makes it grey."""
    css_class = "bar quiet" if quiet else "bar"
    name = f'<span class="name">{html.escape(label)}</span>' if label else ""
    track = f'<span class="track"><span style="width:{100 * share:.1f}%"></span></span>'
    return f'<div class="{css_class}">{name}{track}<span class="share">{100 * share:.1f} %</span></div>'


def verdict(prediction: Prediction) -> str:
    """Return the answer in large type, its confidence in words, and a bar for the probability of each label.

    Several labels have no common confidence, and a number has no probability.
    """
    label = f'<p class="label">{html.escape(answer_text(prediction))}</p>'
    if prediction.confidence is None:
        return f'<div class="verdict">{label}</div>'
    given = [prediction.label] if prediction.labels is None else prediction.labels
    bars = ""
    for name, share in sorted(prediction.scores.items(), key=lambda item: -item[1]):
        bars += bar(share, name, quiet=name not in given)
    if prediction.labels is not None:
        return f'<div class="verdict">{label}</div>{bars}'
    return f'<div class="verdict">{label}{confidence_chip(prediction.confidence)}</div>{bars}'


def answer_text(prediction: Prediction) -> str:
    """Return the answer as the page shows it: several labels with commas, and a number with its name."""
    if prediction.confidence is None:
        return ", ".join(f"{name} {value:.4g}" for name, value in prediction.scores.items())
    if prediction.labels is None:
        return prediction.label
    return ", ".join(prediction.labels) or "no label"


def words(weighted_words: list[tuple[str, float]], label: str, is_number: bool = False) -> str:
    """Return the text with each word highlighted by its weight; words for and against also differ in their underline.

    Weights are probabilities or, with `is_number`, parts of a number that is called `label`.
    """
    # Relative to the heaviest word: if an answer is certain, no single word has much weight.
    heaviest = max((abs(weight) for _, weight in weighted_words), default=0.0)
    threshold = max(_MIN_RELATIVE_WEIGHT * heaviest, _MIN_WEIGHT)
    text = ""
    for word, weight in weighted_words:
        if abs(weight) < threshold or not word.strip():
            text += html.escape(word)
        else:
            text += _highlighted(word, weight, heaviest, label, is_number)
    names = (f"raises {label}", "lowers it") if is_number else (f"for {label}", "against it")
    key = f'<mark class="for">{html.escape(names[0])}</mark> <mark class="against">{names[1]}</mark>'
    return f'<div class="words">{text}</div><p class="key">{key}</p>'


def _highlighted(word: str, weight: float, heaviest: float, label: str, is_number: bool) -> str:
    side = "for" if weight > 0 else "against"
    points = f"{100 * weight:+.1f} points {side} {html.escape(label)}"
    if is_number:
        points = f"{weight:+.3g} of {html.escape(label)}"
    stripped = word.rstrip()
    space = word[len(stripped) :]
    style = f"--strength:{abs(weight) / heaviest:.2f}"
    return f'<mark class="{side}" style="{style}" title="{points}">{html.escape(stripped)}</mark>{space}'


def facts(values: dict[str, object]) -> str:
    """Return names and values as a definition list."""
    items = ""
    for name, value in values.items():
        items += f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd></div>"
    return f'<dl class="facts">{items}</dl>'


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, a row's cell as HTML, and the value by which rows are sorted."""

    title: str
    cell: Callable[[object], str]
    value: Callable[[object], object] = lambda row: None
    number: bool = True
    less_first: bool = False
    """Whether the first click puts small values on top."""


def table(
    rows: list,
    columns: list[Column],
    name: Callable[[object], str] | None = None,
    is_odd: Callable[[object], bool] = lambda row: False,
    foot: list[list[str]] | None = None,
) -> str:
    """Return a table that can be sorted (see SORT). `name` makes rows selectable (see PICK); odd rows are highlighted.

    `foot` has further rows of cells as HTML, which stay below the others.
    """
    header = "".join(map(_header_cell, columns))
    body = ""
    for row in rows:
        attributes = f' data-name="{html.escape(name(row))}" tabindex="0"' if name else ""
        if is_odd(row):
            attributes += ' class="odd"'
        cells = "".join(_cell(column, row) for column in columns)
        body += f"<tr{attributes}>{cells}</tr>"
    footer = ""
    for cells in foot or []:
        footer += "<tr>"
        for column, cell in zip(columns, cells):
            footer += f'<td class="number">{cell}</td>' if column.number else f"<td>{cell}</td>"
        footer += "</tr>"
    if footer:
        footer = f"<tfoot>{footer}</tfoot>"
    table = f'<table class="data"><thead><tr>{header}</tr></thead><tbody>{body}</tbody>{footer}</table>'
    return f'<div class="scroll">{table}</div>'


def _header_cell(column: Column) -> str:
    attributes = ' class="number"' if column.number else ""
    if column.less_first:
        attributes += " data-ascending"
    return f"<th{attributes}><button>{html.escape(column.title)}</button></th>"


def _cell(column: Column, row: object) -> str:
    value = column.value(row)
    attributes = "" if value is None else f' data-value="{html.escape(str(value))}"'
    if column.number:
        attributes += ' class="number"'
    return f"<td{attributes}>{column.cell(row)}</td>"


def percent(share: float | None) -> str:
    """Return `91.85 %`, or a dash if it is unknown."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.2f} %"


def interval(low: float, high: float) -> str:
    """Return `91.7–92.6`."""
    return f"{low:.1f}–{high:.1f}"


def count(number: float | None) -> str:
    """Return `812 k` or `22.7 M`, or a dash if it is unknown."""
    if number is None:
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:,.0f}"


def megabytes(number: float | None) -> str:
    """Return `3.3 MB`, or a dash if it is unknown."""
    return "–" if number is None else f"{number:,.1f} MB"


def notice(text: str, kind: str = "notice") -> str:
    """Return a line of text for a screen reader to announce; `kind` is its class, `notice` or `error`."""
    return f'<p class="{kind}" role="status">{html.escape(text)}</p>'


def placeholder(text: str) -> str:
    """Return a line in place of a result that does not exist yet."""
    return f'<p class="nothing">{html.escape(text)}</p>'
