"""How a .csv, .tsv or .txt table is written: its separator, its quotation marks and whether it has a header.

A file has no field that tells, so this is found from the rows. What remains uncertain is refused with the line: a
wrong guess joins rows, and nobody sees that they are missing.
"""

import collections
import csv
import itertools
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adapter_arena.data.compressed import open_text, table_suffix
from adapter_arena.data.header import is_header

csv.field_size_limit(sys.maxsize)  # the default refuses texts of over 131,072 characters

SEPARATORS = ",;\t|"
_SAMPLE_LINES = 200
_MAX_HEADER = 1_000_000
_MAX_LABEL = 60
"""Characters of a cell that may be a label."""
_MAX_SUSPICIONS = 1000


@dataclass(frozen=True)
class Layout:
    """How to read a file."""

    separator: str
    skipped_lines: int = 0
    """Lines before the header: 1 for a `sep=;` line."""
    is_quoted: bool = True
    """Whether quotation marks enclose cells; otherwise they are characters of the text."""
    has_header: bool = True
    columns: int = 0
    """Number of cells in the first row."""
    notes: list[str] = field(default_factory=list)
    """What had to be guessed, one line each."""

    def rows(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield each row that is not blank with the number of the line it ends in. Raises csv.Error."""
        lines = itertools.islice(lines, self.skipped_lines, None)
        quoting = csv.QUOTE_MINIMAL if self.is_quoted else csv.QUOTE_NONE
        reader = csv.reader(lines, delimiter=self.separator, quoting=quoting, strict=True)
        for row in reader:
            if row and (len(row) > 1 or not row[0] or row[0].strip()):
                yield reader.line_num + self.skipped_lines, row


def find(path: Path, encoding: str) -> Layout:
    """Return the layout of a file that has at least one row. Raises ValueError, with the line, if it is uncertain."""
    with open_text(path, encoding, newline="") as file:
        sample = _read_sample(file)
    skipped, separator = _separator_line(sample)
    if separator is None:
        separator = _find_separator(sample, table_suffix(path))
    layout = Layout(separator, skipped)
    first_row = next((row for _, row in _safely(layout.rows(sample))), [])
    layout = _with(layout, columns=len(first_row))
    layout = _find_quoting(path, encoding, layout)
    rows = [row for _, row in _safely(layout.rows(sample))]
    if rows and not is_header(rows):
        return _with(layout, has_header=False)
    return layout


def _with(layout: Layout, **changes) -> Layout:
    return Layout(**(vars(layout) | changes))


def _read_sample(file: Iterable[str]) -> list[str]:
    """Return the first lines. Raises ValueError if the first one is too long to be a header."""
    sample = []
    while len(sample) < _SAMPLE_LINES and (line := file.readline(_MAX_HEADER if not sample else -1)):
        if not sample and len(line) == _MAX_HEADER:
            raise ValueError(
                f"it begins with over {_MAX_HEADER:,} characters, but its first line must name the columns"
            )
        if sample or line.strip():
            sample.append(line)
        else:
            sample.append("\n")
    return sample


def _safely(rows: Iterator) -> Iterator:
    """Yield rows up to the first one that cannot be parsed: a sample may end within a cell."""
    try:
        yield from rows
    except csv.Error:
        return


# ---------------------------------------------------------------- the separator


def _separator_line(sample: list[str]) -> tuple[int, str | None]:
    """Return the number of lines up to a `sep=;` line, as spreadsheets write it, and the separator that it names."""
    for number, line in enumerate(sample, 1):
        if found := re.fullmatch(r'"?sep=(.)"?[,;\t]*', line.rstrip("\r\n"), re.IGNORECASE):
            return number, found[1]
        if line.strip():
            break
    return 0, None


def _find_separator(sample: list[str], suffix: str) -> str:
    """Return the separator that gives all rows of the sample the same number of cells, more than one.

    If there is none, return the one that makes most columns in the first row; the comma if there is only one column.
    """
    first_line = next((line for line in sample if line.strip()), "")
    header = re.sub(r'"[^"]*"?', "", first_line)
    if suffix == ".tsv" and "\t" in header:
        return "\t"
    best = max(SEPARATORS[:3], key=header.count)
    if suffix == ".tsv":
        best = "\t"
    candidates = {}
    for separator in SEPARATORS:
        columns = _even_columns(sample, separator) if separator in header else 0
        if columns > 1:
            candidates[separator] = columns
    if best not in candidates and candidates:
        return max(candidates, key=candidates.get)
    return best


def _even_columns(sample: list[str], separator: str) -> int:
    """Return the number of cells that all rows of the sample have, or 0 if it is uneven or there is only one row."""
    for is_quoted in (True, False):
        rows = list(_safely(Layout(separator, is_quoted=is_quoted).rows(sample)))
        if len(sample) == _SAMPLE_LINES:
            rows = rows[:-1]  # the sample may end within a row
        counts = {len(row) for _, row in rows}
        if len(rows) > 1 and len(counts) == 1:
            return counts.pop()
    return 0


def looks_like_table(path: Path, encoding: str) -> bool:
    """Return whether a .txt file clearly has a separator: all its first rows have the same number of cells, over one."""
    with open_text(path, encoding, newline="") as file:
        sample = _read_sample(file)
    return any(_even_columns(sample, separator) > 1 for separator in SEPARATORS)


# ---------------------------------------------------------------- quotation marks


@dataclass
class _Reading:
    """What came of reading the file in one of the two ways."""

    problem: str | None = None
    """The first line that cannot be read so."""
    has_needed_quotes: bool = False
    """Whether a cell is quoted that had to be: with a quotation mark, a separator or a line break in it."""
    has_quoted_column: bool = False
    """Whether a column is quoted in every row, the header included."""


def _find_quoting(path: Path, encoding: str, layout: Layout) -> Layout:
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
    if is_tabbed:
        plain_layout = _with(layout, is_quoted=False)
        plain = _read_plain(path, encoding, plain_layout)
        if plain.problem is None and not plain.has_needed_quotes:
            note = f"{path.name}: quotation marks are read as parts of the texts, not as marks around cells."
            return _with(plain_layout, notes=[note])
    if quoted.problem:
        raise ValueError(quoted.problem)
    return layout


def _read_plain(path: Path, encoding: str, layout: Layout) -> _Reading:
    found = _Reading()
    with open_text(path, encoding, newline="") as file:
        for number, row in layout.rows(file):
            if len(row) != layout.columns:
                found.problem = cell_count_problem(number, row, layout.columns)
                return found
            if any(_needs_quotes(cell) for cell in row):
                found.has_needed_quotes = True
    return found


def _needs_quotes(cell: str) -> bool:
    """Return whether an unparsed cell is enclosed in quotation marks and doubles those within."""
    inner = cell[1:-1]
    return len(cell) > 3 and cell[0] == cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")


def _read_quoted(path: Path, encoding: str, layout: Layout) -> _Reading:
    found = _Reading()
    swallowed = _SwallowedRows(layout.columns)
    quoted_columns = set(range(layout.columns))
    with open_text(path, encoding, newline="") as file:
        lines = _RememberedLines(file)
        number = layout.skipped_lines
        try:
            for number, row in layout.rows(lines):
                record = lines.take()
                if len(row) != layout.columns:
                    found.problem = cell_count_problem(number, row, layout.columns)
                    return found
                alone = _split_lines(record, layout.separator)
                swallowed.add(number, row, alone)
                if '"' in record[-1] or len(alone) > 1:
                    special = (layout.separator, '"', "\n", "\r")
                    needed = any(mark in cell for cell in row for mark in special)
                    found.has_needed_quotes = found.has_needed_quotes or (needed and _is_quoted_anywhere(alone))
                if quoted_columns:
                    quoted_columns = {c for c in quoted_columns if len(alone) == 1 and _is_quoted(alone[0], c)}
        except csv.Error as error:
            found.problem = _quote_problem(lines, number, error)
            return found
    found.has_quoted_column = bool(quoted_columns)
    line = swallowed.first_line()
    if line:
        found.problem = f"line {line} opens a quotation mark that joins it with the rows after it"
    return found


def _is_quoted(cells: list[str], column: int) -> bool:
    return column < len(cells) and len(cells[column]) > 1 and cells[column][0] == cells[column][-1] == '"'


def _is_quoted_anywhere(alone: list[list[str]]) -> bool:
    """Return whether a cell of a record begins with a quotation mark."""
    return any(cell.startswith('"') for cells in alone for cell in cells)


def _split_lines(record: list[str], separator: str) -> list[list[str]]:
    """Return the cells of each line of a record as if there were no quotation marks."""
    return [line.rstrip("\r\n").split(separator) for line in record if line.strip()]


def _quote_problem(lines: "_RememberedLines", last_line: int, error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return f"line {last_line + 1} opens a quotation mark that is never closed"
    return f"the row from line {last_line + 1} on has a quotation mark within a quoted cell; double it, or remove it"


def cell_count_problem(line: int, row: list[str], columns: int) -> str:
    """Return what is wrong with a row that has more or fewer cells than the header."""
    cells = f"line {line} has {len(row)} cells for {columns} columns"
    if len(row) > columns:
        return f"{cells}; quote cells that contain the separator."
    return f"{cells}; quote cells that contain a line break, and write empty cells with their separator."


class _RememberedLines:
    """Lines of a file, of which those of the row being parsed are kept."""

    def __init__(self, lines: Iterable[str]):
        self._lines = lines
        self._kept: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self._kept.append(line)
            yield line

    def take(self) -> list[str]:
        """Return the lines since the last call."""
        kept = self._kept
        self._kept = []
        return kept


class _SwallowedRows:
    """Finds rows of several lines that are rather several rows, joined by two stray quotation marks.

    They are if each line alone has the right number of cells and, in one column, a value that is often found there: a
    label. A real line break within a text is hardly ever followed by all that.
    """

    def __init__(self, columns: int):
        self._columns = columns
        self._values = [collections.Counter() for _ in range(columns)]
        self._suspicions: list[tuple[int, list[list[str]]]] = []

    def add(self, line: int, row: list[str], alone: list[list[str]]) -> None:
        """Add a parsed row and the cells of its lines, parsed without quotation marks."""
        if len(alone) == 1:
            self._count(row)
            return
        can_be_rows = all(len(cells) == self._columns for cells in alone)
        if can_be_rows and self._columns > 1 and len(self._suspicions) < _MAX_SUSPICIONS:
            self._suspicions.append((line - len(alone) + 1, alone))
            for cells in alone:
                self._count(cells)
        else:
            self._count(row)

    def _count(self, cells: list[str]) -> None:
        for values, cell in zip(self._values, cells):
            # People write a space after a comma; in a table there is none.
            if len(cell) <= _MAX_LABEL and cell == cell.strip() and cell and len(values) < 10_000:
                values[cell] += 1

    def first_line(self) -> int | None:
        """Return the first line of the first such row."""
        for line, alone in self._suspicions:
            for column, values in enumerate(self._values):
                if all(values[cells[column]] > 1 for cells in alone):
                    return line
        return None
