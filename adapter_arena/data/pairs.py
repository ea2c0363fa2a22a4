"""Which two columns hold the texts of a pair, and the pairs that lack one of them."""

from collections.abc import Iterable

import pandas
import pyarrow
import pyarrow.compute

from adapter_arena.data.classes import Note
from adapter_arena.data.labels import TEXT_COLUMNS, choose_column, usual_columns
from adapter_arena.errors import DataError

PAIR_COLUMNS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("sent1", "sent2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("texta", "textb"),
    ("text_1", "text_2"),
    ("sentence_1", "sentence_2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "answer"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("query", "passage"),
    ("query", "document"),
)
"""Usual names of the columns of a pair, in any case."""


def guess(columns: Iterable[str]) -> tuple[str, str] | None:
    """Return the columns with the usual names of a pair; None if there are none, or if another column has the text."""
    by_name = {str(column).casefold(): str(column) for column in columns}
    for first, second in PAIR_COLUMNS:
        if first in by_name and second in by_name:
            others = by_name.keys() - {first, second}
            if usual_columns(others, TEXT_COLUMNS):
                return None
            return by_name[first], by_name[second]
    return None


def choose(columns: list[str], text: str | None, pair: str | None) -> tuple[str | None, str | None]:
    """Return the columns with the first and the second text, given those that the user named. Raises DataError.

    The second is None for single texts, and the first is None if it has to be chosen like that of single texts.
    """
    if pair is None:
        if text is not None:
            return text, None
        return guess(columns) or (None, None)
    choose_column("text-pair", columns, pair, ())
    if text is None:
        guessed = guess(columns)
        if guessed and guessed[1] == pair:
            text = guessed[0]
    return text, pair


def check_different(text: str, labels: list[str], pair: str | None) -> None:
    """Raise DataError if the second text of the pairs is the first one or a label."""
    if pair == text:
        raise DataError(f"Column {pair} is both texts of the pair: name the first text with --text-column.")
    if pair in labels:
        raise DataError(f"Column {pair} is a text and the label: name the label with --label-column.")


def half_empty_notes(tables: dict[str, pyarrow.Table]) -> list[Note]:
    """Return how many rows of each split have only one of the two texts; `splits.clean` removes them."""
    parts = []
    for split, table in tables.items():
        is_half = pyarrow.compute.xor(table["text"].is_valid(), table["pair"].is_valid())
        rows = pyarrow.compute.indices_nonzero(is_half)
        if len(rows):
            parts.append(f"{len(rows):,} of {split} (row {rows[0].as_py() + 1:,})")
    return [Note("half empty", f"pairs with only one text left out: {', '.join(parts)}")] if parts else []


def joined(first: pandas.Series, second: pandas.Series) -> pandas.Series:
    """Return a string for each pair of texts that is equal for equal pairs only."""
    return first + "\x1f" + second
