"""Whether quotation marks in a table enclose cells, or are a part of the texts.

A file has no field that tells, so this is found from the rows. What remains uncertain is refused with the line: a
wrong guess joins rows, and nobody sees that they are missing.
"""

import collections
import csv
import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adapter_arena.data.compressed import open_text
from adapter_arena.data.csv_layout import Layout
from adapter_arena.data.header import MAX_CLASSES

_MAX_LABEL = 60
"""Characters of a cell that may be a label."""
_MAX_VALUES = 10_000
_MAX_SUSPICIONS = 1000


@dataclass
class _Reading:
    """What came of reading the file in one of the two ways."""

    problem: str | None = None
    """The first line that cannot be read so."""
    is_certain: bool = True
    """Whether that is sure: there may be doubts whether a line break is within a cell or ends a row."""
    has_needed_quotes: bool = False
    """Whether a cell is quoted that had to be: with a quotation mark, a separator or a line break in it."""
    has_quoted_column: bool = False
    """Whether a column is quoted in every row, the header included."""


def find_quoting(path: Path, encoding: str, layout: Layout) -> Layout:
    """Return the layout with or without quoting. Raises ValueError if neither surely reads every row.

    Tab-separated files of GLUE and of the Hub are not quoted: there a quotation mark is a part of the text.
    """
    with open_text(path, encoding, newline="") as file:
        if not any('"' in line for line in file):
            return layout
    quoted = _read_quoted(path, encoding, layout)
    is_tabbed = layout.separator == "\t"
    if quoted.problem is None and (not is_tabbed or quoted.has_needed_quotes or quoted.has_quoted_column):
        return layout
    if is_tabbed and (quoted.is_certain or quoted.problem is None):
        plain_layout = dataclasses.replace(layout, is_quoted=False)
        plain = _read_plain(path, encoding, plain_layout)
        if plain.problem is None and not plain.has_needed_quotes:
            note = f"{path.name}: quotation marks are read as parts of the texts, not as marks around cells."
            return dataclasses.replace(plain_layout, notes=[note])
    if quoted.problem:
        raise ValueError(quoted.problem)
    return layout


def _read_plain(path: Path, encoding: str, layout: Layout) -> _Reading:
    found = _Reading()
    with open_text(path, encoding, newline="") as file:
        for number, row in layout.rows(file):
            if problem := layout.length_problem(number, row):
                return _Reading(problem)
            if any(_doubles_quotes(cell) for cell in row):
                found.has_needed_quotes = True
    return found


def _doubles_quotes(cell: str) -> bool:
    """Return whether an unparsed cell is enclosed in quotation marks and doubles those within."""
    inner = cell[1:-1]
    return len(cell) > 3 and cell[0] == cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")


def _read_quoted(path: Path, encoding: str, layout: Layout) -> _Reading:
    evidence = _Evidence(layout)
    number = layout.skipped_lines
    with open_text(path, encoding, newline="") as file:
        lines = _RememberedLines(file, layout.skipped_lines)
        try:
            for number, row in layout.rows(lines):
                if problem := layout.length_problem(number, row):
                    return _Reading(problem)
                evidence.add(number, row, lines.take())
        except csv.Error as error:
            if "unexpected end" in str(error):
                return _Reading(f"line {number + 1} opens a quotation mark that is never closed")
            reason = "has a quotation mark within a quoted cell; double it, or remove it"
            return _Reading(f"the row from line {number + 1} on {reason}")
    return evidence.reading()


class _RememberedLines:
    """Lines of a file, of which those of the row being parsed are kept."""

    def __init__(self, lines: Iterable[str], skipped: int):
        self._lines = lines
        self._skipped = skipped
        self._kept: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(self._lines):
            if number >= self._skipped:
                self._kept.append(line)
            yield line

    def take(self) -> list[str]:
        """Return the lines since the last call."""
        kept = self._kept
        self._kept = []
        return kept


class _Evidence:
    """Collects from rows that were parsed with quotation marks whether that is right."""

    def __init__(self, layout: Layout):
        self._separator = layout.separator
        self._swallowed = _SwallowedRows(layout)
        self._quoted_columns = set(range(layout.columns))
        self._has_needed_quotes = False

    def add(self, number: int, row: list[str], lines: list[str]) -> None:
        """Add a row, which ends in line `number`, and its lines as they are in the file."""
        alone = [line.rstrip("\r\n").split(self._separator) for line in lines if line.strip()]
        self._swallowed.add(number, row, alone)
        has_quotes = any(cell.startswith('"') for cells in alone for cell in cells)
        if has_quotes and any(mark in cell for cell in row for mark in (self._separator, '"', "\n", "\r")):
            self._has_needed_quotes = True
        self._quoted_columns = {column for column in self._quoted_columns if _is_quoted(alone, column)}

    def reading(self) -> _Reading:
        """Return what came of reading the rows."""
        problem, is_certain = self._swallowed.problem()
        return _Reading(problem, is_certain, self._has_needed_quotes, bool(self._quoted_columns))


def _is_quoted(alone: list[list[str]], column: int) -> bool:
    """Return whether a row of a single line has quotation marks around a cell."""
    if len(alone) != 1 or column >= len(alone[0]):
        return False
    cell = alone[0][column]
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


class _SwallowedRows:
    """Decides whether rows of several lines are rather several rows, joined by two stray quotation marks.

    They may be if each line alone has the right number of cells. Whether they are is seen in the columns of classes:
    a line of a text hardly ever has a class in the right place, and hardly ever has a tab.
    """

    def __init__(self, layout: Layout):
        self._columns = layout.columns
        self._may_be_text = layout.separator != "\t"
        self._values = [collections.Counter() for _ in range(layout.columns)]
        self._suspicions: list[tuple[int, list[list[str]]]] = []
        self._inner_lines: list[tuple[int, list[str]]] = []

    def add(self, line: int, row: list[str], alone: list[list[str]]) -> None:
        """Add a parsed row and the cells of its lines, parsed without quotation marks."""
        for values, cell in zip(self._values, row):
            if len(cell) <= _MAX_LABEL and len(values) < _MAX_VALUES:
                values[cell] += 1
        if len(alone) == 1 or self._columns == 1 or len(self._suspicions) > _MAX_SUSPICIONS:
            return
        first_line = line - len(alone) + 1
        if all(len(cells) == self._columns for cells in alone):
            self._suspicions.append((first_line, alone))
        for cells in alone[1:-1]:
            if len(cells) == self._columns and len(self._inner_lines) < _MAX_SUSPICIONS:
                self._inner_lines.append((first_line, cells))

    def problem(self) -> tuple[str | None, bool]:
        """Return what is wrong with the first such row, None if nothing is; and whether that is certain."""
        classes = []
        for column, values in enumerate(self._values):
            if len(values) <= min(MAX_CLASSES, values.total() / 2) and values:
                classes.append((column, set(values)))
        reason = "opens a quotation mark that joins it with the lines after it"
        for line, alone in self._suspicions:
            is_text = any(_unlike(cells[column], known) for column, known in classes for cells in alone)
            if is_text and self._may_be_text:
                continue
            is_certain = any(all(cells[column] in known for cells in alone) for column, known in classes)
            return f"line {line} {reason}", is_certain and not is_text
        for line, cells in self._inner_lines:
            if any(cells[column] in known for column, known in classes):
                return f"line {line} {reason}", False
        return None, False


def _unlike(cell: str, classes: set[str]) -> bool:
    """Return whether a cell can hardly be the name of a further class."""
    if cell in classes:
        return False
    is_too_long = len(cell) > 2 * max(map(len, classes))
    has_odd_space = " " in cell and not any(" " in name for name in classes)
    is_odd_number = cell.isdecimal() != any(name.isdecimal() for name in classes)
    return not cell or cell != cell.strip() or is_too_long or has_odd_space or is_odd_number
