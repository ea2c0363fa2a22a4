"""Choose the columns with the text and the label, and refuse the ones that cannot be used, with the field to choose."""

import collections
import re
from collections.abc import Iterable

import numpy
import pandas

from adapter_arena.data.labels import LABEL_COLUMNS, TEXT_COLUMNS, choose_column, usual_columns
from adapter_arena.errors import DataError, shortened_list

_MAX_CLASSES = 1000
_DECIMAL = re.compile(r"-?\d+,\d+")


def choose(frame: pandas.DataFrame, text: str | None, label: str | None) -> tuple[str, str]:
    """Return the names of the columns with the text and the label, given the first rows. Raises DataError.

    A field of an object is named with a dot: `review.body`.
    """
    columns = [str(column) for column in frame.columns]
    fields = fields_of(frame)
    if label is None and not usual_columns(columns, LABEL_COLUMNS):
        _refuse_one_column_per_class(frame)
    return (
        choose_column("text", [*columns, *fields] if text else columns, text, TEXT_COLUMNS),
        choose_column("label", [*columns, *fields] if label else columns, label, LABEL_COLUMNS),
    )


def cells_of(frame: pandas.DataFrame, column: str) -> pandas.Series | None:
    """Return the cells of a column, or of a field of its objects; None if the frame has no such column.

    The name is compared without case if no column has exactly that name and only one differs in case.
    """
    if column in frame:
        return frame[column]
    same = [name for name in frame.columns if str(name).strip().casefold() == column.strip().casefold()]
    if len(same) == 1:
        return frame[same[0]]
    outer, _, path = column.partition(".")
    if not path or outer not in frame:
        return None
    return frame[outer].map(lambda cell: _field(cell, path))


def _field(cell: object, path: str) -> object:
    """Return what is at the path of keys in an object, for example `body.en`; None if it is missing."""
    for key in path.split("."):
        if not isinstance(cell, dict):
            return None
        cell = cell.get(key)
    return cell


def check_cells(cells: pandas.Series, column: str, what: str) -> None:
    """Raise DataError if a cell is an object or a list; `what` is `text`, `text-pair` or `label`."""
    if cells.dtype != object:
        return
    for cell in cells:
        if isinstance(cell, dict):
            fields = shortened_list([f"{column}.{key}" for key in _paths(cell)])
            raise DataError(
                f"Column {column} holds objects, not a {what}: choose a field with --{what}-column: {fields}."
            )
        if isinstance(cell, list | tuple | set | numpy.ndarray):
            raise DataError(_list_problem(f"Column {column}", what))


def _list_problem(column: str, what: str) -> str:
    if what != "label":
        return f"{column} holds lists, not a text: join each list to one text, or name another with --{what}-column."
    return (
        f"{column} holds lists: several labels per text (multi-label) are not supported. Write one label per "
        "text, or name another column with --label-column."
    )


def fields_of(frame: pandas.DataFrame) -> list[str]:
    """Return the dotted names of the fields in columns of objects."""
    names: dict[str, None] = {}
    for column in frame.columns:
        if frame[column].dtype == object:
            for cell in frame[column].head(200):
                if isinstance(cell, dict):
                    names.update(dict.fromkeys(f"{column}.{path}" for path in _paths(cell)))
    return list(names)


def _paths(content: dict) -> Iterable[str]:
    """Yield the dotted path of every value that is not an object."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from (f"{key}.{path}" for path in _paths(value))
        else:
            yield str(key)


# ---------------------------------------------------------------- tasks that are not supported


def _refuse_one_column_per_class(frame: pandas.DataFrame) -> None:
    """Raise DataError if there is no label column, but two or more columns that hold only 0 and 1."""
    classes = [str(column) for column in frame.columns if _is_zero_or_one(frame[column])]
    if len(classes) > 1:
        raise DataError(
            f"Columns {shortened_list(classes)} hold only 0 and 1: a column per class (multi-label) is not supported. "
            f"Write one column with one label per text, or learn one of them with --label-column {classes[0]}."
        )


def _is_zero_or_one(cells: pandas.Series) -> bool:
    try:
        values = set(cells.dropna().astype(str).str.strip().str.lower())
    except (TypeError, ValueError):
        return False
    return bool(values) and values <= {"0", "1", "0.0", "1.0", "true", "false"}


def refuse_joined_labels(labels: Iterable[str], column: str | None) -> None:
    """Raise DataError if labels are lists written as text, `[1, 3]`, or several names in a cell, `rude|spam`."""
    column = f"Column {column}" if column else "The label column"
    names = [label for label in labels if label]
    if names and all(re.fullmatch(r"[\[({].*[\])}]", name, re.DOTALL) for name in names):
        raise DataError(_list_problem(column, "label"))
    if len(names) > _MAX_CLASSES:
        return  # refused because of their number
    for separator in ("|", ";", ","):
        joined = _joined(names, separator)
        if joined:
            raise DataError(
                f"{column} joins several labels in a cell ({joined!r:.80}): several labels per text "
                "(multi-label) are not supported. Write one label per text, or name another with --label-column."
            )


def _joined(names: list[str], separator: str) -> str | None:
    """Return a label that joins others: each part of it is also found in another label."""
    parts = {name: {part.strip() for part in name.split(separator)} for name in names}
    counts = collections.Counter(part for found in parts.values() for part in found)
    for name, found in parts.items():
        if len(found) > 1 and all(part and counts[part] > 1 for part in found) and not _DECIMAL.fullmatch(name):
            return name
    return None
