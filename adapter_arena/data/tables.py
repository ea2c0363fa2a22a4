"""Files of rows, read for training and for scoring: .csv .tsv .jsonl .txt .parquet, each fault one line.

A file is data and nothing else: no formula is evaluated, nothing is unpickled, no name is a URL.
"""

import codecs
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas
import pyarrow
from pyarrow.parquet import ParquetFile

from adapter_arena import settings
from adapter_arena.errors import DataError, RequestError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt", ".parquet")
MAX_COLUMNS = 10_000
MAX_CELLS = 10_000_000
"""Of a visitor's file; the rows' limit says nothing about a file of 10,000 columns."""
_MAX_HEADER = 1_000_000
_BLOCK = 1 << 20
_PART = 10_000  # rows read at once
# What other files begin with, whatever they are called: what it is, what to do.
_FOREIGN = {
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "unpack it, or save the sheet as CSV"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "save the sheet as CSV"),
    b"\x1f\x8b": ("a gzip archive", "unpack it"),
    b"%PDF": ("a PDF", "save its text as .txt, one text a line"),
    b"PAR1": ("a Parquet file", "rename it to .parquet"),
}
_CONTROLS = bytes({*range(32), 127} - {*b"\t\n\v\f\r\x1b"})
_NOT_IN_CP1252 = b"\x81\x8d\x8f\x90\x9d"


@dataclass(frozen=True)
class Limits:
    """What a visitor's file may measure: ARENA_MAX_FILE_MB (10^6 bytes each) and ARENA_MAX_ROWS."""

    megabytes: float = field(default_factory=lambda: settings.number("ARENA_MAX_FILE_MB"))
    rows: int = field(default_factory=lambda: int(settings.number("ARENA_MAX_ROWS")))


@dataclass(frozen=True)
class Table:
    """The rows, and what the reader of the file had to guess, one line each."""

    frame: pandas.DataFrame
    notes: list[str]


def read(path: Path, limits: Limits) -> Table:
    """The rows of a visitor's file under its columns' names, all of them different strings. Raises DataError.

    Cells of .csv, .tsv and .txt are strings; a row shorter than the header ends in empty ones. The
    file may be UTF-8, UTF-16 or Windows-1252.
    """
    with _in_one_line(path):
        _check_file(path, limits)
        encoding, notes = _encoding(path) if _kind(path) != ".parquet" else ("", [])
        frame = pandas.concat(_parser(path)(path, encoding, limits), ignore_index=True)
    if frame.empty:
        raise DataError(f"{path.name} has a header and no rows: add a row for each text.")
    frame.columns = _names(frame.columns)
    return Table(frame, notes)


def parts(path: Path) -> Iterator[pandas.DataFrame]:
    """The rows of a file of training data, some thousands at a time, so that it may be larger than memory.

    As `read` gives them, but it has to be UTF-8: letters that were guessed wrong would be learnt. Raises DataError.
    """
    with _in_one_line(path):
        _check_file(path, None)
        for frame in _parser(path)(path, "utf-8-sig", None):
            frame.columns = _names(frame.columns)
            yield frame


@contextmanager
def _in_one_line(path: Path) -> Iterator[None]:
    """Whatever is wrong with the file becomes a DataError."""
    try:
        yield
    except pandas.errors.EmptyDataError as error:
        raise DataError(f"{path.name} is empty: add a row for each text.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 (byte {error.start}: {error.reason}): save it as UTF-8.") from error
    except (ValueError, OSError, RecursionError, pyarrow.ArrowException) as error:  # what pandas and pyarrow raise
        raise DataError(f"{path.name} cannot be read as {_kind(path)}: {_reason(error)}") from error


def _parser(path: Path) -> Callable[[Path, str, Limits | None], Iterator[pandas.DataFrame]]:
    """What yields a file's rows in frames, at least one."""
    return {".jsonl": _read_jsonl, ".txt": _read_txt, ".parquet": _read_parquet}.get(_kind(path), _read_csv)


def from_lines(text: str, limits: Limits) -> pandas.DataFrame:
    """A frame with column `text`, a row for each line that is not blank. Raises RequestError."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    if not lines:
        raise RequestError("There is no text: write one text a line.")
    if len(lines) > limits.rows:
        raise RequestError(
            f"These are {len(lines):,} lines, over the limit of {limits.rows:,} (ARENA_MAX_ROWS): split them."
        )
    return pandas.DataFrame({"text": lines})


def _kind(path: Path) -> str:
    return path.suffix.lower()


def _check_file(path: Path, limits: Limits | None) -> None:
    """Everything that can be said without reading more than the first bytes."""
    if path.is_dir():
        raise DataError(f"{path.name} is a folder: choose a file in it.")
    if not path.is_file():
        raise DataError(f"There is no file {path.name}: check the path.")
    if _kind(path) not in SUFFIXES:
        raise DataError(f"{path.name} is no {', '.join(SUFFIXES)} file: convert it to one of these.")
    size = path.stat().st_size
    if limits and size > limits.megabytes * 1e6:
        raise DataError(
            f"{path.name} has {size / 1e6:,.0f} MB, over the limit of {limits.megabytes:,.0f} MB (ARENA_MAX_FILE_MB): split it."
        )
    if size == 0:
        raise pandas.errors.EmptyDataError
    with path.open("rb") as file:
        head = file.read(4)
    for magic, (what, advice) in _FOREIGN.items():
        if head.startswith(magic) and (magic, _kind(path)) != (b"PAR1", ".parquet"):
            raise DataError(f"{path.name} cannot be read as {_kind(path)}: it is {what}; {advice}.")


def _encoding(path: Path) -> tuple[str, list[str]]:
    """The encoding, and a note when it is a guess, from one pass over the bytes. Raises DataError for no text."""
    decoder, is_utf8, in_cp1252, has_zeros, controls = codecs.getincrementaldecoder("utf-8")(), True, True, False, 0
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):  # Excel's "Unicode text"
            return "utf-16", []
        file.seek(0)
        while block := file.read(_BLOCK):
            has_zeros = has_zeros or b"\0" in block
            controls += len(block) - len(block.translate(None, _CONTROLS))
            in_cp1252 = in_cp1252 and len(block) == len(block.translate(None, _NOT_IN_CP1252))
            is_utf8 = is_utf8 and _decodes(decoder, block)
    if has_zeros or controls > path.stat().st_size / 100:
        raise DataError(
            f"{path.name} cannot be read as {_kind(path)}: its bytes are no text; save it as text in UTF-8."
        )
    if is_utf8 and _decodes(decoder, b"", final=True):
        return "utf-8-sig", []
    encoding, name = ("cp1252", "Windows-1252") if in_cp1252 else ("latin-1", "Latin-1")
    return encoding, [f"{path.name} is not UTF-8: it was read as {name}. If letters look wrong, save it as UTF-8."]


def _decodes(decoder: codecs.IncrementalDecoder, block: bytes, final: bool = False) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


def _reason(error: Exception) -> str:
    """What is wrong inside the file, and what to do."""
    if ragged := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error)):
        expected, line, saw = ragged.groups()
        return f"line {line} has {saw} cells for {expected} columns; put quotes round a cell that holds the separator."
    return f"{' '.join(str(error).split())[:200]}. Check the file."


def _rows_allowed(name: str, columns: int, limits: Limits | None) -> int:
    """How many rows of so many columns may be read. Raises DataError when it is too many columns."""
    if columns > MAX_COLUMNS:
        raise DataError(f"{name} has over {MAX_COLUMNS:,} columns, the limit: leave out those that are not needed.")
    return min(limits.rows, MAX_CELLS // max(columns, 1)) if limits else sys.maxsize


def _check_rows(name: str, rows: int, columns: int, limits: Limits | None) -> None:
    allowed = _rows_allowed(name, columns, limits)
    if rows <= allowed:
        return
    if allowed == limits.rows:
        raise DataError(f"{name} has over {allowed:,} rows, the limit (ARENA_MAX_ROWS): split it.")
    raise DataError(
        f"{name} has {columns:,} columns and over {allowed:,} rows, more than {MAX_CELLS:,} cells, the limit: "
        "leave out columns that are not needed."
    )


def _names(columns: Iterable[object]) -> list[str]:
    """The columns' names as different strings: a missing one is numbered, a second `text` is `text (2)`."""
    names: dict[str, None] = {}
    for number, column in enumerate(columns, 1):
        name = first = str(column).strip() or f"column {number}"
        again = 1
        while name in names:
            again += 1
            name = f"{first} ({again})"
        names[name] = None
    return list(names)


def _read_csv(path: Path, encoding: str, limits: Limits | None) -> Iterator[pandas.DataFrame]:
    separator, columns = _header(path, encoding)
    _rows_allowed(path.name, columns, limits)
    # header=None: with a header pandas takes the first column as row names where every row is one cell too long.
    reader = pandas.read_csv(
        path, sep=separator, header=None, dtype=str, keep_default_na=False, encoding=encoding, chunksize=_PART
    )
    names, rows = None, 0
    with reader:
        for frame in reader:
            if names is None:
                names, frame = frame.iloc[0].tolist(), frame.iloc[1:]
            rows += len(frame)
            _check_rows(path.name, rows, len(names), limits)
            frame.columns = names
            yield frame.reset_index(drop=True)


def _header(path: Path, encoding: str) -> tuple[str, int]:
    """The separator, of comma, semicolon and tab the one with most columns, and how many these are."""
    with path.open(encoding=encoding) as file:
        line = next((line for line in iter(lambda: file.readline(_MAX_HEADER), "") if line.strip()), "")
    if len(line) == _MAX_HEADER:
        raise DataError(
            f"{path.name} begins with over {_MAX_HEADER:,} characters: its first line must name the columns."
        )
    unquoted = re.sub(r'"[^"]*"?', "", line)
    separator = "\t" if _kind(path) == ".tsv" else max(",;\t", key=unquoted.count)  # the comma where none is found
    return separator, unquoted.count(separator) + 1


def _read_jsonl(path: Path, encoding: str, limits: Limits | None) -> Iterator[pandas.DataFrame]:
    rows, columns, before = [], {}, 0
    with path.open(encoding=encoding) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            row = _object(line, number)
            columns |= dict.fromkeys(row)
            rows.append(row)
            _check_rows(path.name, before + len(rows), len(columns), limits)
            if len(rows) == _PART:
                yield pandas.DataFrame(rows, columns=list(columns))
                before, rows = before + len(rows), []
    if not before and not rows:
        raise pandas.errors.EmptyDataError
    if rows:
        yield pandas.DataFrame(rows, columns=list(columns))


def _object(line: str, number: int) -> dict:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} is not JSON ({error.msg}); each line must be one JSON object") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is no JSON object; each line must be one")
    if "\\ud" in line.lower():  # half of a surrogate pair is no character, and Arrow refuses it
        row = {_whole(key): _whole(value) for key, value in row.items()}
    return row


def _whole(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _read_txt(path: Path, encoding: str, limits: Limits | None) -> Iterator[pandas.DataFrame]:
    lines = [line.strip() for line in path.read_text(encoding=encoding).split("\n") if line.strip()]
    if not lines:
        raise pandas.errors.EmptyDataError
    _check_rows(path.name, len(lines), 1, limits)
    yield pandas.DataFrame({"text": lines})


def _read_parquet(path: Path, encoding: str, limits: Limits | None) -> Iterator[pandas.DataFrame]:
    """`encoding` is Parquet's own business."""
    with ParquetFile(path) as file:
        columns = file.metadata.num_columns
        _check_rows(path.name, file.metadata.num_rows, columns, limits)
        size, is_empty = 0, True
        for part in file.iter_batches(batch_size=_PART if limits is None else 1024):
            size, is_empty = size + part.nbytes, False
            if limits and size > 10 * limits.megabytes * 1e6:  # a small file may unfold to any size
                raise DataError(
                    f"{path.name} unfolds to over {10 * limits.megabytes:,.0f} MB, ten times ARENA_MAX_FILE_MB: split it."
                )
            yield part.to_pandas().reset_index(drop=True)
        if is_empty:
            yield file.schema_arrow.empty_table().to_pandas()
