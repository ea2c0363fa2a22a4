"""Which column holds the texts and which the labels, and which of an adapter's labels a value means."""

import re
from collections.abc import Iterable

import numpy
import pandas

TEXT_COLUMNS = ("text", "review", "content", "sentence", "body", "comment")
LABEL_COLUMNS = ("label", "labels", "sentiment", "stars", "rating", "class", "target")
_INSPECTED_ROWS = 200
_SHORT_NAMES = {"neg": "negative", "pos": "positive"}
_SIDES_OF_STARS = {1: "negative", 2: "negative", 3: None, 4: "positive", 5: "positive"}


# ---------------------------------------------------------------- columns


def usual_columns(columns: Iterable[str], usual: tuple[str, ...]) -> list[str]:
    """Return the columns that have one of the `usual` names, in any case, in the order of `usual`."""
    columns = list(columns)
    return [column for name in usual for column in columns if column.lower() == name]


def guess_text_column(frame: pandas.DataFrame) -> str:
    """Return the column with a usual name, or else the one whose first rows have the longest texts on average."""
    usual = usual_columns(frame.columns, TEXT_COLUMNS)
    if usual:
        return usual[0]
    return max(frame.columns, key=lambda column: _mean_length(frame[column].head(_INSPECTED_ROWS)))


def _mean_length(cells: pandas.Series) -> float:
    characters = sum(len(cell) for cell in cells if isinstance(cell, str))
    return characters / max(len(cells), 1)


def guess_label_column(frame: pandas.DataFrame, labels: list[str], text_column: str) -> str | None:
    """Return a column whose every value means one of the adapter's labels (see `match_labels`), or None.

    Columns with a usual name come first. In other columns only names are matched: 0 and 1 may mean anything there.
    """
    usual = [column for column in usual_columns(frame.columns, LABEL_COLUMNS) if column != text_column]
    for column in usual:
        values = _distinct_labels(frame[column])
        if values and match_labels(values, labels).keys() == values:
            return column
    for column in frame.columns.difference([text_column, *usual], sort=False):
        # The first rows rule out most columns, so that few are read to the end.
        if _has_only_names(frame[column].head(_INSPECTED_ROWS), labels) and _has_only_names(frame[column], labels):
            return column
    return None


def _has_only_names(cells: pandas.Series, labels: list[str]) -> bool:
    values = _distinct_labels(cells)
    return bool(values) and _match_names(values, labels).keys() == values


def _distinct_labels(cells: pandas.Series) -> set[str]:
    return set(plain_labels(cells)) - {""}


# ---------------------------------------------------------------- label names


def label_name(value: object) -> str:
    """Return a label as people write it: 5.0 -> '5', True -> 'True', None and NaN -> ''."""
    if value is None or (isinstance(value, float) and numpy.isnan(value)):
        return ""
    if isinstance(value, float | numpy.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def plain_labels(cells: Iterable[object]) -> list[str]:
    """Return `label_name` of each cell, with '1.0' as '1'."""
    return [re.sub(r"^([0-9]+)\.0+$", r"\1", label_name(cell)) for cell in cells]


def match_labels(values: Iterable[str], labels: list[str]) -> dict[str, str | None]:
    """Return which of `labels` each value of a label column means; values without a clear meaning are left out.

    A value is matched, in this order, as:

    - the name of a label, in any case, also as neg or pos;
    - the index of a label, if 0 is among the values (1 alone may be an index, a rank or a star);
    - one to five stars, if 4 or 5 is among the values and the labels are negative and positive. Three stars are
      neither: None.
    """
    values = set(values)
    matched: dict[str, str | None] = dict(_match_names(values, labels))
    numbers = {value: int(value) for value in values - matched.keys() if re.fullmatch(r"[0-9]{1,4}", value)}
    found = set(numbers.values())
    sides = {_normalised(label): label for label in labels}
    are_stars = found <= _SIDES_OF_STARS.keys() and bool(found & {4, 5})
    if 0 in found and max(found) < len(labels):
        for value, number in numbers.items():
            matched[value] = labels[number]
    elif are_stars and sides.keys() == {"negative", "positive"}:
        for value, number in numbers.items():
            matched[value] = sides.get(_SIDES_OF_STARS[number])
    return matched


def _match_names(values: Iterable[str], labels: list[str]) -> dict[str, str]:
    """Return the label that each value names; a name that two labels share when case is ignored has to be exact."""
    normalised = [_normalised(label) for label in labels]
    by_name = {}
    for name, label in zip(normalised, labels):
        if normalised.count(name) == 1:
            by_name[name] = label
    for label in labels:
        by_name[label] = label
    matched = {}
    for value in values:
        label = by_name.get(value) or by_name.get(_normalised(value))
        if label:
            matched[value] = label
    return matched


def _normalised(label: str) -> str:
    name = label.strip().casefold()
    return _SHORT_NAMES.get(name, name)
