"""Which column holds the texts and which the labels, the one name of a label, and which of an adapter's labels it means."""

import decimal
import functools
import re
import unicodedata
from collections.abc import Callable, Iterable

import pandas

from adapter_arena.data.formulas import unescape_formula
from adapter_arena.errors import DataError, shortened_list, unknown

TEXT_COLUMNS = ("text", "review", "content", "sentence", "body", "comment")
LABEL_COLUMNS = ("truth", "label", "labels", "sentiment", "stars", "rating", "class", "target")
"""`truth` comes first: in files that Batch writes, `label` is the answer."""
_INSPECTED_ROWS = 200
_SHORT_NAMES = {"neg": "negative", "pos": "positive"}
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")
_MAX_DIGITS = 20
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b"))
"""Byte-order mark and zero-width space."""
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_SIDES_OF_STARS = {1: "negative", 2: "negative", 3: None, 4: "positive", 5: "positive"}


# ---------------------------------------------------------------- columns


def usual_columns(columns: Iterable[str], usual: tuple[str, ...]) -> list[str]:
    """Return the columns that have one of the `usual` names, in any case, in the order of `usual`."""
    columns = list(columns)
    return [column for name in usual for column in columns if column.lower() == name]


def choose_column(what: str, columns: Iterable[str], wanted: str | None, usual: tuple[str, ...]) -> str:
    """Return the column that the user named or, for None, the first with a usual name. Raises DataError.

    `what` is `text`, `text-pair` or `label`.
    """
    columns = list(columns)
    found = usual_columns(columns, usual)
    problem = None
    if wanted is not None and wanted not in columns:
        problem = unknown("column", wanted, columns)
    elif wanted is None and not found:
        problem = f"No {what} column among {shortened_list(columns)}: name it with --{what}-column."
    if problem:
        raise DataError(problem)
    return wanted or found[0]


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
    return {label_name(cell) for cell in cells} - {""}


# ---------------------------------------------------------------- label names


def label_text(value: object) -> str:
    """Return a cell of a label column as it is spelled: 5 -> '5', 1.0 -> '1.0', True -> 'True', any missing value -> ''."""
    if isinstance(value, str):
        return value
    if pandas.api.types.is_scalar(value) and pandas.isna(value):
        return ""
    return str(value)


def label_name(value: object) -> str:
    """Return the one name of a label, whatever the type of its cell and however it is spelled.

    - 1, 1.0, '1.00', '1e0' and Decimal('1') are '1'; '01' is a code and stays as it is.
    - True, 'true' and 'TRUE' are 'True'.
    - Spaces of any kind around a name are removed, those within it become one; letters are in Unicode's form NFC.
    - The apostrophe that `escape_formula` writes before '=' or '-' is removed.
    - A missing value is ''.

    Case is kept: `label_key` ignores it.
    """
    return _normalised(label_text(value))


@functools.lru_cache(maxsize=10_000)
def _normalised(text: str) -> str:
    visible = unicodedata.normalize("NFC", text).translate(_INVISIBLE)
    name = unescape_formula(" ".join(visible.split()))
    if name.casefold() in ("true", "false"):
        return name.capitalize()
    if _NUMBER.fullmatch(name):
        return _plain_number(name)
    return name


def _plain_number(text: str) -> str:
    """Return a number without exponent and final zeros: '1e0' and '1.00' are '1', '-0.50' is '-0.5'."""
    number = decimal.Decimal(text)
    if abs(number.adjusted()) > _MAX_DIGITS:
        return text
    plain = f"{number:f}"
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return "0" if plain in ("-0", "+0") else plain


def label_key(name: str) -> str:
    """Return what two names of the same class have in common, if case does not matter."""
    return label_name(name).casefold()


class LabelIndex:
    """Finds which of some labels a value names."""

    def __init__(self, labels: Iterable[str]):
        labels = list(labels)
        self._by_name = {label_name(label): label for label in reversed(labels)}
        self._by_key = _without_ambiguous(labels, _long_key)
        self._by_truth = _without_ambiguous(labels, _truth)

    def find(self, value: str) -> str | None:
        """Return the label with this name, or else the only one that fits it, or None.

        A label fits in another case and as neg or pos; `yes` and `on` also fit True, as which YAML reads them.
        """
        name = label_name(value)
        return self._by_name.get(name) or self._by_key.get(_long_key(name)) or self._by_truth.get(_truth(name))


def _without_ambiguous(labels: list[str], key_of: Callable[[str], object]) -> dict:
    """Return the labels by their keys, without the keys that two labels share and without None."""
    keys = [key_of(label) for label in labels]
    return {key: label for key, label in zip(keys, labels) if key is not None and keys.count(key) == 1}


def _long_key(name: str) -> str:
    key = label_key(name)
    return _SHORT_NAMES.get(key, key)


def _truth(name: str) -> bool | None:
    return _TRUTH.get(label_key(name))


# ---------------------------------------------------------------- labels of an adapter


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
    sides = {_long_key(label): label for label in labels}
    are_stars = found <= _SIDES_OF_STARS.keys() and bool(found & {4, 5})
    if 0 in found and max(found) < len(labels):
        for value, number in numbers.items():
            matched[value] = labels[number]
    elif are_stars and sides.keys() == {"negative", "positive"}:
        for value, number in numbers.items():
            matched[value] = sides.get(_SIDES_OF_STARS[number])
    return matched


def _match_names(values: Iterable[str], labels: list[str]) -> dict[str, str]:
    """Return the label that each value names; values that name none are left out."""
    index = LabelIndex(labels)
    matched = {}
    for value in values:
        label = index.find(value)
        if label is not None:
            matched[value] = label
    return matched
