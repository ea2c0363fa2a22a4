"""How a .csv, .tsv or .txt table is written, and its rows, read in that way."""

import csv
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

csv.field_size_limit(sys.maxsize)  # the default refuses texts of over 131,072 characters


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
    may_be_short: bool = False
    """Whether a row may have fewer cells than the header."""
    notes: list[str] = field(default_factory=list)
    """What had to be guessed, one line each."""

    def rows(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield each row that is not blank with the number of the line it ends in. Raises csv.Error."""
        lines = itertools.islice(lines, self.skipped_lines, None)
        quoting = csv.QUOTE_MINIMAL if self.is_quoted else csv.QUOTE_NONE
        reader = csv.reader(lines, delimiter=self.separator, quoting=quoting, strict=True)
        for row in reader:
            if not _is_blank(row):
                yield reader.line_num + self.skipped_lines, row

    def length_problem(self, line: int, row: list[str]) -> str | None:
        """Return what is wrong with a row that has more or fewer cells than the header, None if nothing is."""
        cells = f"line {line} has {len(row)} cells for {self.columns} columns"
        if len(row) > self.columns:
            return f"{cells}; quote cells that contain the separator"
        if len(row) < self.columns and not self.may_be_short:
            return f"{cells}; quote cells that contain a line break, and write empty cells with their separator"
        return None


def _is_blank(row: list[str]) -> bool:
    """Return whether a row is a line of spaces; a cell with a line break in it was quoted, and so is `""`."""
    return not row or (len(row) == 1 and row[0].isspace() and not {"\r", "\n"} & set(row[0]))


def until_error(rows: Iterator) -> Iterator:
    """Yield rows up to the first one that cannot be parsed: a sample may end within a cell."""
    try:
        yield from rows
    except csv.Error:
        return


class CheckedRows:
    """Reads the rows of a table, each with as many cells as the header."""

    def __init__(self, layout: Layout):
        self._layout = layout
        self.padded = 0
        self.repeated_headers = 0
        self.broken_lines = 0
        """Rows with a line break in a cell."""
        self.first_broken_line = 0

    def read(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """Yield the first row and all others, without repetitions of the header. Raises ValueError."""
        header = None
        for line, row in self._layout.rows(lines):
            if problem := self._layout.length_problem(line, row):
                raise ValueError(problem)
            missing = self._layout.columns - len(row)
            if missing:
                row = row + [""] * missing
                self.padded += 1
            if any("\n" in cell or "\r" in cell for cell in row):
                self.broken_lines += 1
                self.first_broken_line = self.first_broken_line or line
            if header is None:
                header = row
            elif self._layout.has_header and len(row) > 1 and row == header:
                self.repeated_headers += 1
                continue
            yield row
