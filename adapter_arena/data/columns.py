"""Choose the columns with the text and the label, and refuse the ones that cannot be used, with the field to choose."""

import json
from collections.abc import Iterable

import numpy
import pandas

from adapter_arena.data.labels import LABEL_COLUMNS, TEXT_COLUMNS, choose_column, label_name, label_text, usual_columns
from adapter_arena.errors import DataError, shortened_list

_ZERO_OR_ONE = {"0": False, "1": True, "false": False, "true": True}


def choose(frame: pandas.DataFrame, text: str | None, label: str | None) -> tuple[str, list[str]]:
    """Return the name of the column with the text and those with the labels, given the first rows. Raises DataError.

    There are several columns with labels if each is of 0 and 1 for one label. A field of an object is named with a dot:
    `review.body`.
    """
    columns = [str(column) for column in frame.columns]
    fields = fields_of(frame)
    text_column = choose_column("text", [*columns, *fields] if text else columns, text, TEXT_COLUMNS)
    if label is None and not usual_columns(columns, LABEL_COLUMNS):
        label_columns = [column for column in _columns_of_zero_or_one(frame) if column != text_column]
        if len(label_columns) > 1:
            return text_column, label_columns
    if label is not None and label not in columns and "," in label:
        wanted = [name.strip() for name in label.split(",") if name.strip()]
        return text_column, [choose_column("label", columns, name, ()) for name in wanted]
    return text_column, [choose_column("label", [*columns, *fields] if label else columns, label, LABEL_COLUMNS)]


def labels_of(frame: pandas.DataFrame, columns: list[str]) -> pandas.Series | None:
    """Return the cells of the label column, or lists made of several columns; None if the frame lacks one of them."""
    if len(columns) == 1:
        return cells_of(frame, columns[0])
    if not set(columns) <= set(frame.columns):
        return None
    return _lists_of_columns(frame, columns)


def _lists_of_columns(frame: pandas.DataFrame, columns: list[str]) -> pandas.Series:
    """Return, for each row, the list of the columns that hold 1, as JSON. Raises DataError for values but 0 and 1."""
    is_set = numpy.zeros((len(frame), len(columns)), dtype=bool)
    for index, column in enumerate(columns):
        values = frame[column].map(lambda cell: _ZERO_OR_ONE.get(label_name(cell).lower()))
        if values.isna().any():
            row = int(values.isna().to_numpy().argmax())
            raise DataError(
                f"Column {column} holds {frame[column].iloc[row]!r:.40}, but a column per label holds only 0 and 1: "
                "correct it, or name one column with --label-column."
            )
        is_set[:, index] = values.astype(bool)
    lists = []
    for row in is_set:
        lists.append(json.dumps([column for column, wanted in zip(columns, row) if wanted], ensure_ascii=False))
    return pandas.Series(lists, dtype=object)


def label_cell(cell: object) -> str:
    """Return a cell of a label column as text; a list as JSON."""
    if isinstance(cell, list | tuple | set | numpy.ndarray):
        return json.dumps([label_text(entry) for entry in cell], ensure_ascii=False)
    return label_text(cell)


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
    """Raise DataError if a cell is an object, or a text is a list; `what` is `text`, `text-pair` or `label`."""
    if cells.dtype != object:
        return
    for cell in cells:
        if isinstance(cell, dict):
            fields = shortened_list([f"{column}.{key}" for key in _paths(cell)])
            raise DataError(
                f"Column {column} holds objects, not a {what}: choose a field with --{what}-column: {fields}."
            )
        if what != "label" and isinstance(cell, list | tuple | set | numpy.ndarray):
            raise DataError(
                f"Column {column} holds lists, not a text: join each list to one text, or name another with --{what}-column."
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


def _columns_of_zero_or_one(frame: pandas.DataFrame) -> list[str]:
    """Return the columns that hold only 0 and 1, or true and false: in a table without a label column, the labels."""
    return [str(column) for column in frame.columns if _is_zero_or_one(frame[column])]


def _is_zero_or_one(cells: pandas.Series) -> bool:
    try:
        values = {label_name(cell).lower() for cell in cells.dropna()}
    except (TypeError, ValueError):
        return False
    return bool(values) and values <= _ZERO_OR_ONE.keys()
