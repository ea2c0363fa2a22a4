"""Parsers of the supported file formats: each yields a file's rows as frames of some thousand rows.

A parser yields nothing if the file has neither rows nor a header. What pandas, PyArrow and the parsers here raise for
a malformed file is turned into one line by `tables`.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas
from pyarrow.parquet import ParquetFile

from adapter_arena import settings
from adapter_arena.errors import DataError

MAX_COLUMNS = 10_000
MAX_CELLS = 10_000_000
"""Cells of a user's file: the limit on rows does not bound a file of 10,000 columns."""
_ROWS_PER_FRAME = 10_000
_PARQUET_BATCH_ROWS = 1024
"""Rows of a user's Parquet file that are unpacked at a time: a small file may unpack to any size."""
_MAX_HEADER = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Maximum size of a user's file: ARENA_MAX_FILE_MB (10^6 bytes each) and ARENA_MAX_ROWS."""

    megabytes: float = field(default_factory=lambda: settings.get("ARENA_MAX_FILE_MB"))
    rows: int = field(default_factory=lambda: int(settings.get("ARENA_MAX_ROWS")))
    cells: int = MAX_CELLS

    def check(self, path: Path, rows: int, columns: int, unpacked_bytes: int = 0) -> None:
        """Raise DataError if so many rows and columns, or bytes in memory, are over a limit."""
        unpacked_mb = 10 * self.megabytes
        if columns > MAX_COLUMNS:
            problem = f"has over {MAX_COLUMNS:,} columns, the limit: leave out those that are not needed."
        elif rows > self.rows:
            problem = f"has over {self.rows:,} rows, the limit (ARENA_MAX_ROWS): split it."
        elif rows * columns > self.cells:
            problem = f"has {columns:,} columns and more than {self.cells:,} cells, the limit: leave out columns that are not needed."
        elif unpacked_bytes > unpacked_mb * 1e6:
            problem = f"unpacks to over {unpacked_mb:,.0f} MB, ten times ARENA_MAX_FILE_MB: split it."
        else:
            return
        raise DataError(f"{path.name} {problem}")


UNLIMITED = Limits(megabytes=float("inf"), rows=sys.maxsize, cells=sys.maxsize)
"""For training data, which may be larger than memory."""

Parser = Callable[[Path, str, Limits], Iterator[pandas.DataFrame]]
"""Takes the path, the encoding and the limits."""


def parser_of(suffix: str) -> Parser:
    """Return the parser of files with that suffix."""
    return {".jsonl": _parse_jsonl, ".txt": _parse_txt, ".parquet": _parse_parquet}.get(suffix, _parse_csv)


# ---------------------------------------------------------------- .csv and .tsv


def _parse_csv(path: Path, encoding: str, limits: Limits) -> Iterator[pandas.DataFrame]:
    header = _read_header(path, encoding)
    separator = _separator(path, header)
    limits.check(path, rows=0, columns=header.count(separator) + 1)
    # header=None: with a header, pandas uses the first column as row names if every row has one cell too many.
    reader = pandas.read_csv(
        path,
        sep=separator,
        header=None,
        dtype=str,
        keep_default_na=False,
        encoding=encoding,
        chunksize=_ROWS_PER_FRAME,
    )
    names = None
    rows = 0
    with reader:
        for frame in reader:
            if names is None:
                names = frame.iloc[0].tolist()
                frame = frame.iloc[1:]
            rows += len(frame)
            limits.check(path, rows, len(names))
            frame.columns = names
            yield frame.reset_index(drop=True)


def _read_header(path: Path, encoding: str) -> str:
    """Return the first line that is not blank, without its quoted parts."""
    line = "\n"
    with path.open(encoding=encoding) as file:
        while line and not line.strip():
            line = file.readline(_MAX_HEADER)
    if len(line) == _MAX_HEADER:
        raise ValueError(f"it begins with over {_MAX_HEADER:,} characters, but its first line must name the columns")
    return re.sub(r'"[^"]*"?', "", line)


def _separator(path: Path, header: str) -> str:
    """Return the one of comma, semicolon and tab that makes most columns; the comma if there is only one column."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(",;\t", key=header.count)


# ---------------------------------------------------------------- .jsonl


def _parse_jsonl(path: Path, encoding: str, limits: Limits) -> Iterator[pandas.DataFrame]:
    rows = []
    row_count = 0
    columns: dict[str, None] = {}
    with path.open(encoding=encoding) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            row = _parse_object(line, number)
            columns.update(dict.fromkeys(row))
            rows.append(row)
            row_count += 1
            limits.check(path, row_count, len(columns))
            if len(rows) == _ROWS_PER_FRAME:
                yield pandas.DataFrame(rows, columns=list(columns))
                rows = []
    if rows:
        yield pandas.DataFrame(rows, columns=list(columns))


def _parse_object(line: str, number: int) -> dict:
    """Return the JSON object of a line. Raises ValueError."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} is not JSON ({error.msg}); each line must be one JSON object") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is not a JSON object; each line must be one")
    if "\\ud" in line.lower():  # half of a surrogate pair is not a character, and Arrow refuses it
        row = {_without_surrogates(key): _without_surrogates(value) for key, value in row.items()}
    return row


def _without_surrogates(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


# ---------------------------------------------------------------- .txt and .parquet


def _parse_txt(path: Path, encoding: str, limits: Limits) -> Iterator[pandas.DataFrame]:
    lines = path.read_text(encoding=encoding).split("\n")
    texts = [line.strip() for line in lines if line.strip()]
    limits.check(path, len(texts), columns=1)
    if texts:
        yield pandas.DataFrame({"text": texts})


def _parse_parquet(path: Path, encoding: str, limits: Limits) -> Iterator[pandas.DataFrame]:
    """Parse a Parquet file; its encoding is part of the format, so `encoding` is ignored."""
    with ParquetFile(path) as file:
        limits.check(path, file.metadata.num_rows, file.metadata.num_columns)
        batch_rows = _ROWS_PER_FRAME if limits is UNLIMITED else _PARQUET_BATCH_ROWS
        size = 0
        for batch in file.iter_batches(batch_size=batch_rows):
            size += batch.nbytes
            limits.check(path, 0, 0, unpacked_bytes=size)
            yield batch.to_pandas().reset_index(drop=True)
        if file.metadata.num_rows == 0:
            yield file.schema_arrow.empty_table().to_pandas()
