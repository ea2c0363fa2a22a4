"""Recognise a table whose first row is data, not the names of the columns, and name its columns."""

import re

from adapter_arena.data.labels import LABEL_COLUMNS, TEXT_COLUMNS

_USUAL_NAMES = {*TEXT_COLUMNS, *LABEL_COLUMNS, "id", "index", "idx", "title", "category", "sentence1", "sentence2"}
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
_MAX_NAME = 80
MAX_CLASSES = 50


def is_header(rows: list[list[str]]) -> bool:
    """Return whether the first of the rows names the columns; the others are a sample of the table.

    It does not if a cell of it is found again below, or if it is a number over numbers, or as long as a text.
    """
    names = [cell.strip() for cell in rows[0]]
    others = [row for row in rows[1:] if row != rows[0]]  # files that were joined repeat their header
    has_number_over_numbers = False
    for index, name in enumerate(names):
        cells = _cells(others, index)
        if name and name in cells and _is_category(cells):
            return False
        if name and cells and _are_numbers([name, *cells]):
            has_number_over_numbers = True
    if has_usual_name(names) or _are_column_numbers(names):
        return True
    if has_number_over_numbers:
        return False
    return len(names) == 1 or max(map(len, names), default=0) <= _MAX_NAME


def _cells(rows: list[list[str]], column: int) -> list[str]:
    """Return the cells of a column; short rows have none."""
    return [row[column].strip() for row in rows if column < len(row)]


def has_usual_name(row: list[str]) -> bool:
    """Return whether a cell of the row is a usual name of a column."""
    return any(cell.strip().casefold() in _USUAL_NAMES for cell in row)


def _is_category(cells: list[str]) -> bool:
    """Return whether few values are repeated in the cells."""
    return len(set(cells)) <= min(MAX_CLASSES, len(cells) / 2)


def _are_numbers(cells: list[str]) -> bool:
    return all(_NUMBER.fullmatch(cell) or not cell for cell in cells)


def _are_column_numbers(names: list[str]) -> bool:
    """Return whether the names count from 0 or 1, as in tables that were written without names."""
    named = list(filter(None, names))
    from_zero = list(map(str, range(len(named))))
    from_one = list(map(str, range(1, len(named) + 1)))
    return named in (from_zero, from_one)


def generated_names(rows: list[list[str]]) -> list[str]:
    """Return `text` and `label` for two columns of which one clearly holds classes, otherwise `column 1`, ….

    The names are certain only for two columns: of three, two may be texts.
    """
    if len(rows[0]) == 2:
        left = [row[0] for row in rows]
        right = [row[1] for row in rows]
        if _are_classes_of(left, right):
            return ["label", "text"]
        if _are_classes_of(right, left):
            return ["text", "label"]
    return [f"column {number}" for number in range(1, len(rows[0]) + 1)]


def _are_classes_of(cells: list[str], texts: list[str]) -> bool:
    """Return whether the cells are shorter than the texts, of no more kinds, and repeat few values."""
    is_shorter = len("".join(cells)) < len("".join(texts))
    return is_shorter and len(set(cells)) <= len(set(texts)) and _is_category(cells)
