"""Which column of a file holds the texts, which the labels, and what these labels mean to an adapter."""

import re
from collections.abc import Iterable

import numpy
import pandas

_LOOKED_AT = 200
_SHORT = {"neg": "negative", "pos": "positive"}


def guess_text_column(frame: pandas.DataFrame) -> str:
    """The column with a usual name, else the one with the longest texts on average in its first rows."""
    if usual := usual_columns(frame.columns, TEXT_COLUMNS):
        return usual[0]
    return max(frame.columns, key=lambda column: _mean_length(frame[column].head(_LOOKED_AT)))


def _mean_length(cells: pandas.Series) -> float:
    return sum(len(cell) for cell in cells if isinstance(cell, str)) / max(len(cells), 1)


def guess_label_column(frame: pandas.DataFrame, labels: list[str], text_column: str) -> str | None:
    """A column whose every value stands for one of the adapter's labels (see match_labels), or None.

    Columns with a usual name come first. In others only names count: 0 and 1 may mean anything there.
    """
    usual = [column for column in usual_columns(frame.columns, LABEL_COLUMNS) if column != text_column]
    for column in usual:
        values = _values(frame[column])
        if values and match_labels(values, labels).keys() == values:
            return column
    for column in frame.columns.difference([text_column, *usual], sort=False):
        first = _values(frame[column].head(_LOOKED_AT))  # most columns are out without reading them whole
        if first and _by_name(first, labels).keys() == first:
            values = _values(frame[column])
            if _by_name(values, labels).keys() == values:
                return column
    return None


def match_labels(values: Iterable[str], labels: list[str]) -> dict[str, str | None]:
    """What each value of a label column stands for among `labels`; values that stand for none are left out.

    In this order: the label's name, in any case and as neg or pos; its index, if 0 is among the
    values (1 alone may be an index, a place or a star); one to five stars, if 4 or 5 is among them
    and the labels are negative and positive. Three stars are neither: None.
    """
    values = set(values)
    by_name = _by_name(values, labels)
    numbers = {value: int(value) for value in values - by_name.keys() if re.fullmatch(r"[0-9]{1,4}", value)}
    found = set(numbers.values())
    if 0 in found and max(found) < len(labels):
        return by_name | {value: labels[number] for value, number in numbers.items()}
    sides = {_folded(label): label for label in labels}
    if sides.keys() == {"negative", "positive"} and found & {4, 5} and found <= {1, 2, 3, 4, 5}:
        side = {1: "negative", 2: "negative", 4: "positive", 5: "positive"}
        return by_name | {value: sides.get(side.get(number)) for value, number in numbers.items()}
    return by_name


def _by_name(values: Iterable[str], labels: list[str]) -> dict[str, str]:
    folded = [_folded(label) for label in labels]
    names = {name: label for name, label in zip(folded, labels) if folded.count(name) == 1}
    names |= dict(zip(labels, labels))
    found = {value: names.get(value) or names.get(_folded(value)) for value in values}
    return {value: label for value, label in found.items() if label}


def _folded(label: str) -> str:
    name = label.strip().casefold()
    return _SHORT.get(name, name)


def _values(cells: pandas.Series) -> set[str]:
    return set(plain_labels(cells)) - {""}


def plain_labels(cells: Iterable[object]) -> list[str]:
    """Labels as people write them, '' for none; '1.0' is '1'."""
    return [re.sub(r"^([0-9]+)\.0+$", r"\1", label_name(cell)) for cell in cells]


TEXT_COLUMNS = ("text", "review", "content", "sentence", "body", "comment")


LABEL_COLUMNS = ("label", "labels", "sentiment", "stars", "rating", "class", "target")


def usual_columns(columns: Iterable[str], usual: tuple[str, ...]) -> list[str]:
    """Those of `columns` with one of the `usual` names, in whatever case, in the order of `usual`."""
    columns = list(columns)
    return [column for name in usual for column in columns if column.lower() == name]


def label_name(value: object) -> str:
    """A label as people write it: 5.0 -> '5', True -> 'True', None and NaN -> ''."""
    if value is None or (isinstance(value, float) and numpy.isnan(value)):
        return ""
    if isinstance(value, float | numpy.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()
