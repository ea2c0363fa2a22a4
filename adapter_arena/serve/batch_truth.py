"""The label column of a file in Batch, read by the task of the adapter that answers."""

import json
from collections.abc import Iterable, Mapping

import numpy
import pandas

from adapter_arena import tasks
from adapter_arena.data import label_cells
from adapter_arena.data.labels import (
    LABEL_COLUMNS,
    guess_label_column,
    label_name,
    label_text,
    match_labels,
    usual_columns,
)
from adapter_arena.errors import DataError, shortened_list

_INSPECTED_ROWS = 200
_INSPECTED_COLUMNS = 200


def read(cells: pandas.Series, labels: list[str], task: str) -> pandas.Series:
    """Return the true answer of each row, missing if it is unclear. Raises DataError if all are unclear.

    It is one of `labels`, the names of several joined with `|` in their order ('' for an empty list), or a number.
    """
    truth = _read(cells, labels, task)
    if truth.notna().any():
        return truth
    values = shortened_list(sorted({label_name(cell) for cell in cells} - {""})) or "nothing"
    wanted = "a number" if task == tasks.REGRESSION else f"clearly one of the labels {shortened_list(labels)}"
    raise DataError(
        f"Column {str(cells.name)[:100]!r} holds {values}, none of which is {wanted}: choose another column, or no column."
    )


def guess_column(frame: pandas.DataFrame, labels: list[str], task: str, text_columns: list[str | None]) -> str | None:
    """Return the column with the true answers, or None.

    Of a regression it has a usual name or that of the adapter's number. All its cells must be clear or empty.
    """
    if task == tasks.SINGLE_LABEL:
        return guess_label_column(frame, labels, text_columns[0])
    names = (*LABEL_COLUMNS, labels[0].lower()) if task == tasks.REGRESSION else LABEL_COLUMNS
    candidates = usual_columns(frame.columns, names)
    if task == tasks.MULTI_LABEL:
        candidates += [column for column in frame.columns[:_INSPECTED_COLUMNS] if column not in candidates]
    for column in candidates:
        # The first rows rule out most columns, so that few are read to the end.
        if column not in text_columns and all(
            _is_clear(cells, labels, task) for cells in (frame[column].head(_INSPECTED_ROWS), frame[column])
        ):
            return column
    return None


def _is_clear(cells: pandas.Series, labels: list[str], task: str) -> bool:
    truth = _read(cells, labels, task)
    is_filled = numpy.array([label_name(_as_text(cell)) != "" for cell in cells])
    return bool(is_filled.any()) and not truth[is_filled].isna().any()


def _read(cells: pandas.Series, labels: list[str], task: str) -> pandas.Series:
    if task == tasks.REGRESSION:
        numbers = [label_cells.number(label_name(cell)) for cell in cells]
        return pandas.Series(numbers, dtype=float, index=cells.index)
    names = [label_name(_as_text(cell)) for cell in cells]
    meanings = match_labels(set(names) - {""}, labels) if task == tasks.SINGLE_LABEL else _lists(set(names), labels)
    return pandas.Series([meanings.get(name) for name in names], dtype="str", index=cells.index)


def _as_text(cell: object) -> str:
    """Return a cell as text; a list, as Parquet files and JSON have them, in JSON."""
    if isinstance(cell, list | tuple | numpy.ndarray):
        return json.dumps([label_text(entry) for entry in cell], ensure_ascii=False)
    return label_text(cell)


def _lists(cells: set[str], labels: list[str]) -> Mapping[str, str | None]:
    """Return the labels in each cell, joined; cells with an unknown label are left out.

    They may be joined with any of the usual marks; it is the mark with which most cells are clear.
    """
    best: dict[str, str] = {}
    for separator in (*label_cells.SEPARATORS, None):
        found = _lists_joined_with(separator, cells - {""}, labels)
        if len(found) > len(best):
            best = found
    return best


def _lists_joined_with(separator: str | None, cells: set[str], labels: list[str]) -> dict[str, str]:
    entries: dict[str, list[str]] = {}
    for cell in cells:
        try:
            entries[cell] = [label_name(entry) for entry in label_cells.entries(cell, separator, "the column")]
        except DataError:  # not a list, so that its row is unlabelled
            continue
    matched = match_labels({entry for found in entries.values() for entry in found}, labels)
    joined = {}
    for cell, found in entries.items():
        names = [matched.get(entry) for entry in found]
        if None not in names:
            joined[cell] = join(names, labels)
    return joined


def join(names: Iterable[str], labels: list[str]) -> str:
    """Return the names joined with `|` in the order of `labels`."""
    names = set(names)
    return tasks.SEPARATOR.join(label for label in labels if label in names)
