"""The rows of a file in Batch with their answers, in an order that a visitor chooses."""

import html

import pandas

from adapter_arena import tasks
from adapter_arena.serve.batch_outcome import Outcome
from adapter_arena.ui import fragments
from adapter_arena.ui.fragments import Column

MAX_ROWS_SHOWN = 200
"""Number of result rows that the page shows; the files contain all."""
UNCERTAIN = "Most uncertain first"
CERTAIN = "Most confident first"
LARGEST_ERROR = "Largest error first"
FILE_ORDER = "Order of the file"
_MAX_CHARACTERS_SHOWN = 160


def orders(outcome: Outcome) -> list[str]:
    """Return the orders that these results can be shown in, the default first."""
    if outcome.task != tasks.REGRESSION:
        return [UNCERTAIN, CERTAIN, FILE_ORDER]
    return [FILE_ORDER] if outcome.comparison is None else [LARGEST_ERROR, FILE_ORDER]


def has_mistakes(outcome: Outcome) -> bool:
    """Return whether answers can be right or wrong: the file has labels, which are not numbers."""
    return "right" in outcome.frame


def select(outcome: Outcome, order: str, only_mistakes: bool) -> pandas.DataFrame:
    """Return the result rows in an order, rows without an answer last; with `only_mistakes` the wrong ones only."""
    frame = outcome.frame
    if only_mistakes and has_mistakes(outcome):
        frame = frame[frame["right"].eq(False).fillna(False)]
    if order in (UNCERTAIN, CERTAIN) and "confidence" in frame:
        frame = frame.sort_values("confidence", ascending=order == UNCERTAIN, kind="stable")
    if order == LARGEST_ERROR and "difference" in frame:
        frame = frame.sort_values("difference", key=abs, ascending=False, kind="stable")
    return frame


def render(outcome: Outcome, order: str, only_mistakes: bool) -> str:
    """Return the first rows of the selection as a table."""
    selected = select(outcome, order, only_mistakes)
    if selected.empty:
        return fragments.placeholder("No mistakes." if only_mistakes else "No rows.")
    rows = selected.head(MAX_ROWS_SHOWN).to_dict("records")
    table = fragments.table(rows, _columns(outcome))
    if len(selected) > MAX_ROWS_SHOWN:
        table += fragments.notice(f"{MAX_ROWS_SHOWN} of {len(selected):,} rows are shown; the files contain all.")
    return table


def _columns(outcome: Outcome) -> list[Column]:
    is_labelled = outcome.comparison is not None
    if outcome.task == tasks.REGRESSION:
        columns = [_ROW, _TEXT, _number_column(outcome)]
        return [*columns, _TRUE_NUMBER, _DIFFERENCE] if is_labelled else columns
    columns = [_ROW, _TEXT, _ANSWER, _CONFIDENCE]
    return [*columns, _TRUTH, _MARK] if is_labelled else columns


def _text_cell(row: dict) -> str:
    text = _shortened(row["text"])
    if "text_pair" in row:
        text += f"<br>{_shortened(row['text_pair'])}"
    return text


def _shortened(cell: object) -> str:
    text = " ".join(str(cell).split())
    if len(text) > _MAX_CHARACTERS_SHOWN:
        text = text[: _MAX_CHARACTERS_SHOWN - 1] + "…"
    return html.escape(text)


def _answer_cell(row: dict) -> str:
    if pandas.isna(row["label"]):
        return fragments.notice(row["error"], "error")
    label = _names(row["label"])
    return f"{label} <small>abstained</small>" if row.get("abstained") is True else label


def _names(joined: str) -> str:
    return html.escape(joined.replace(tasks.SEPARATOR, ", ")) or "no label"


def _truth_cell(row: dict) -> str:
    return "–" if pandas.isna(row["truth"]) else _names(row["truth"])


def _mark_cell(row: dict) -> str:
    if pandas.isna(row["right"]):
        return ""
    if row["right"]:
        return '<span class="mark right" role="img" aria-label="right" title="right">✓</span>'
    return '<span class="mark wrong" role="img" aria-label="wrong" title="wrong">✗</span>'


def _confidence_cell(row: dict) -> str:
    return "–" if pandas.isna(row["confidence"]) else fragments.bar(row["confidence"])


def _number_column(outcome: Outcome) -> Column:
    name = outcome.number_column

    def cell(row: dict) -> str:
        return fragments.notice(row["error"], "error") if pandas.isna(row[name]) else f"{row[name]:.4g}"

    return Column(outcome.labels[0], cell, lambda row: _none_if_missing(row[name]))


def _number(name: str, sign: str = "") -> Column:
    """Return a column of numbers, with a title that is the name of the frame's column."""

    def cell(row: dict) -> str:
        return "–" if pandas.isna(row[name]) else f"{row[name]:{sign}.4g}"

    return Column(name.capitalize(), cell, lambda row: _none_if_missing(row[name]))


def _none_if_missing(value: object) -> object:
    return None if pandas.isna(value) else value


_ROW = Column("Row", lambda r: f"{r['row']:,}", lambda r: r["row"], number=False, less_first=True)
_TEXT = Column("Text", _text_cell, lambda r: str(r["text"])[:40], number=False, less_first=True)
_ANSWER = Column("Answer", _answer_cell, lambda r: _none_if_missing(r["label"]), number=False, less_first=True)
_CONFIDENCE = Column(
    "Confidence", _confidence_cell, lambda r: _none_if_missing(r["confidence"]), number=False, less_first=True
)
_TRUTH = Column("Label", _truth_cell, lambda r: _none_if_missing(r["truth"]), number=False, less_first=True)
_MARK = Column("Right", _mark_cell, lambda r: _none_if_missing(r["right"]), number=False, less_first=True)
_TRUE_NUMBER = _number("truth")
_DIFFERENCE = _number("difference", sign="+")
