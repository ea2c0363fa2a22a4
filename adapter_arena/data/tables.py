"""Files of rows for training and scoring, of the formats in `SUFFIXES`. Each fault is reported in one line.

A file is only data: no formula is evaluated, nothing is unpickled, and no name is opened as a URL.
"""

import csv
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas
import pyarrow

from adapter_arena.data.compressed import open_bytes, table_suffix, zip_problem
from adapter_arena.data.encodings import detect_encoding, encoding_notes, starts_with_utf16_mark
from adapter_arena.data.formulas import unescape_formula
from adapter_arena.data.parsers import UNLIMITED, Limits, parser_of
from adapter_arena.errors import DataError, RequestError, one_line

SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt", ".parquet")
"""Formats of files that visitors of the page may send."""
TRAINING_SUFFIXES = (*SUFFIXES, ".json", ".ndjson", ".arrow", ".feather", ".xlsx")
"""Formats of training data, which may also be compressed: a small file may unpack to any size."""
_BINARY_SUFFIXES = (".parquet", ".arrow", ".feather", ".xlsx")
# How files of other formats begin, whatever their suffix; what they are; what to do.
_FOREIGN_FORMATS = {
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "unpack it, or save the sheet as CSV"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "save the sheet as CSV"),
    b"\x1f\x8b": ("a gzip archive", "unpack it"),
    b"%PDF": ("a PDF", "save its text as .txt, one text per line"),
    b"PAR1": ("a Parquet file", "rename it to .parquet"),
    b"ARROW1": ("an Arrow file", "rename it to .arrow"),
    b"version https://git-lfs": ("a Git LFS pointer, not the data", "download the file itself, with git lfs pull"),
}
_BATCH_COLUMNS = {"row", "text", "label", "confidence", "tokens", "truncated", "error"}
"""Columns of the CSV files that Batch writes, with formulas escaped."""


_PARSE_ERRORS = (
    ValueError,
    OSError,
    EOFError,
    RecursionError,
    csv.Error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Table:
    """The rows of a file, and what the reader had to guess, one line each."""

    frame: pandas.DataFrame
    notes: list[str]


def read(path: Path, limits: Limits) -> Table:
    """Read a user's file, which may be UTF-8, UTF-16 or Windows-1252. Raises DataError.

    Column names are distinct strings. Cells of .csv, .tsv and .txt are strings; rows that are shorter than the header
    end in empty cells, and are counted in a note.
    """
    notes: list[str] = []
    check_file(path, limits)
    with _explain_parse_errors(path):
        encoding = "utf-8-sig" if path.suffix.lower() == ".parquet" else detect_encoding(path)
        if encoding is None:
            raise DataError(_unreadable(path, "it is not text; save it as text in UTF-8."))
        frame = pandas.concat(_frames(path, encoding, limits, notes), ignore_index=True)
    if frame.empty:
        raise DataError(f"{path.name} has a header and no rows: add a row for each text.")
    return Table(frame, encoding_notes(path, encoding) + notes)


def iter_frames(path: Path, notes: list[str] | None = None) -> Iterator[pandas.DataFrame]:
    """Yield the rows of a file of training data, some thousands at a time: it may be larger than memory.

    The rows are as from `read`, but the file must be UTF-8 or UTF-16, since a wrongly guessed letter would be learnt,
    and every row must have as many cells as the header. What had to be guessed is appended to `notes`. Raises
    DataError.
    """
    check_file(path)
    with _explain_parse_errors(path):
        encoding = "utf-8-sig"
        if table_suffix(path) not in _BINARY_SUFFIXES and starts_with_utf16_mark(path):
            encoding = "utf-16"
        yield from _frames(path, encoding, UNLIMITED, [] if notes is None else notes)


def from_lines(text: str, limits: Limits) -> pandas.DataFrame:
    """Return a frame with column `text` and a row for each line that is not blank. Raises RequestError."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    problem = None
    if not lines:
        problem = "There is no text: write one text per line."
    elif len(lines) > limits.rows:
        problem = f"These are {len(lines):,} lines, over the limit of {limits.rows:,} (ARENA_MAX_ROWS): split them."
    if problem:
        raise RequestError(problem)
    return pandas.DataFrame({"text": lines})


def check_file(path: Path, limits: Limits = UNLIMITED) -> None:
    """Raise DataError if the file cannot be read, as far as its name, size and first bytes tell."""
    with _explain_parse_errors(path):
        problem = _file_problem(path, limits)
    if problem:
        raise DataError(problem)


def _file_problem(path: Path, limits: Limits) -> str | None:
    suffixes = TRAINING_SUFFIXES if limits is UNLIMITED else SUFFIXES
    if path.is_dir():
        return f"{path.name} is a folder: choose a file in it."
    if not path.is_file():
        return f"There is no file {path.name}: check the path."
    suffix = table_suffix(path) if limits is UNLIMITED else path.suffix.lower()
    if suffix == ".zip" and limits is UNLIMITED and (problem := zip_problem(path)):
        return _unreadable(path, f"{problem}.")
    if suffix not in suffixes:
        return f"{path.name} is not a {', '.join(suffixes)} file: convert it to one of these."
    size = path.stat().st_size
    if size > limits.megabytes * 1e6:
        limit = f"over the limit of {limits.megabytes:,.0f} MB (ARENA_MAX_FILE_MB)"
        return f"{path.name} has {size / 1e6:,.0f} MB, {limit}: split it."
    if size == 0:
        return _empty(path)
    with open_bytes(path) if limits is UNLIMITED else path.open("rb") as file:
        head = file.read(40)
    if suffix in _BINARY_SUFFIXES and head.startswith((b"PAR1", b"ARROW1", b"PK")):
        return None
    for start, (format_name, advice) in _FOREIGN_FORMATS.items():
        if head.startswith(start):
            return _unreadable(path, f"it is {format_name}; {advice}.")
    return None


def _frames(path: Path, encoding: str, limits: Limits, notes: list[str]) -> Iterator[pandas.DataFrame]:
    """Yield the frames of a file, at least one, with distinct column names."""
    parse = parser_of(table_suffix(path))
    is_empty = True
    for frame in parse(path, encoding, limits, notes):
        frame.columns = _distinct_names(frame.columns)
        if path.suffix.lower() == ".csv" and set(frame.columns) >= _BATCH_COLUMNS:
            frame = frame.map(unescape_formula)
        yield frame
        is_empty = False
    if is_empty:
        raise pandas.errors.EmptyDataError  # as pandas does for an empty CSV file


@contextmanager
def _explain_parse_errors(path: Path) -> Iterator[None]:
    """Turn everything that pandas, PyArrow and the parsers raise for a file into a DataError of one line."""
    try:
        yield
    except (*_PARSE_ERRORS, pyarrow.ArrowException) as error:
        raise DataError(_parse_problem(path, error)) from error


def _parse_problem(path: Path, error: Exception) -> str:
    if isinstance(error, pandas.errors.EmptyDataError):
        return _empty(path)
    if isinstance(error, UnicodeDecodeError):
        return f"{path.name} is not UTF-8 ({error.reason}): save it as UTF-8."
    reason = one_line(error).removesuffix(".")
    return _unreadable(path, f"{reason}. Check the file.")


def _empty(path: Path) -> str:
    return f"{path.name} is empty: add a row for each text."


def _unreadable(path: Path, reason: str) -> str:
    return f"{path.name} cannot be read as {table_suffix(path)}: {reason}"


def _distinct_names(columns: Iterable[object]) -> list[str]:
    """Return the columns' names as distinct strings: a missing one is numbered, a second `text` is `text (2)`."""
    names: dict[str, None] = {}
    for number, column in enumerate(columns, 1):
        base_name = str(column).strip() or f"column {number}"
        name = base_name
        repetition = 1
        while name in names:
            repetition += 1
            name = f"{base_name} ({repetition})"
        names[name] = None
    return list(names)
