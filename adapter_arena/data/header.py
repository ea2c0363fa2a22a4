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
    first = [cell.strip() for cell in rows[0]]
    others = [row for row in rows[1:] if row != rows[0]]  # files that were joined repeat their header
    columns = [[row[column].strip() for row in others if column < len(row)] for column in range(len(first))]
    if any(_is_category(cells) and cell in cells for cell, cells in zip(first, columns) if cell):
        return False
    if has_usual_name(first) or _are_column_numbers(first):
        return True
    if any(_are_numbers([cell, *cells]) for cell, cells in zip(first, columns) if cell and cells):
        return False
    return len(first) == 1 or all(len(cell) <= _MAX_NAME for cell in first)


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
    named = [name for name in names if name]
    return any(named == [str(start + i) for i in range(len(named))] for start in (0, 1))


def generated_names(rows: list[list[str]]) -> list[str]:
    """Return `text` and `label` for two columns of which one clearly holds classes, otherwise `column 1`, ….

    The names are certain only for two columns: of three, two may be texts.
    """
    count = len(rows[0])
    if count == 2:
        distinct = [len({row[column] for row in rows}) for column in range(2)]
        lengths = [sum(len(row[column]) for row in rows) for column in range(2)]
        label = 0 if distinct[0] < distinct[1] else 1
        if distinct[label] <= min(MAX_CLASSES, len(rows) / 2) and lengths[label] < lengths[1 - label]:
            return ["label", "text"] if label == 0 else ["text", "label"]
    return [f"column {number}" for number in range(1, count + 1)]
