"""Parsers of the supported file formats: each yields a file's rows as frames of some thousand rows.

A parser yields nothing if the file has neither rows nor a header. What pandas, PyArrow and the parsers here raise for
a malformed file is turned into one line by `tables`.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas
import pyarrow
from pyarrow.parquet import ParquetFile

from adapter_arena import settings
from adapter_arena.data import csv_layout, csv_sniffer, json_rows
from adapter_arena.data.compressed import open_bytes, open_text
from adapter_arena.data.header import generated_names
from adapter_arena.errors import DataError

MAX_COLUMNS = 10_000
MAX_CELLS = 10_000_000
"""Cells of a user's file: the limit on rows does not bound a file of 10,000 columns."""
_ROWS_PER_FRAME = 10_000
_PARQUET_BATCH_ROWS = 1024
"""Rows of a user's Parquet file that are unpacked at a time: a small file may unpack to any size."""


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

Parser = Callable[[Path, str, Limits, list[str]], Iterator[pandas.DataFrame]]
"""Takes the path, the encoding, the limits, and a list for notes: what it had to guess, one line each."""


def parser_of(suffix: str) -> Parser:
    """Return the parser of files with that suffix."""
    parsers = {
        ".jsonl": _parse_jsonl,
        ".ndjson": _parse_jsonl,
        ".json": _parse_json,
        ".txt": _parse_txt,
        ".parquet": _parse_parquet,
        ".arrow": _parse_arrow,
        ".feather": _parse_arrow,
        ".xlsx": _parse_xlsx,
    }
    return parsers.get(suffix, _parse_csv)


# ---------------------------------------------------------------- .csv, .tsv and .txt


def _parse_csv(path: Path, encoding: str, limits: Limits, notes: list[str]) -> Iterator[pandas.DataFrame]:
    layout = csv_sniffer.find(path, encoding, may_be_short=limits is not UNLIMITED)
    notes += layout.notes
    if not layout.columns:
        return
    limits.check(path, rows=0, columns=layout.columns)
    with open_text(path, encoding, newline="") as file:
        rows = csv_layout.CheckedRows(layout)
        parsed = rows.read(file)
        names = _column_names(path, layout, parsed, notes)
        parsed = itertools.chain(names.rows, parsed)
        row_count = 0
        is_first = True
        while (cells := list(itertools.islice(parsed, _ROWS_PER_FRAME))) or is_first:
            row_count += len(cells)
            limits.check(path, row_count, layout.columns)
            yield _frame(cells, names.names)
            is_first = False
    if rows.repeated_headers:
        notes.append(f"{path.name}: {rows.repeated_headers:,} rows that repeat the header were left out.")
    if rows.broken_lines:  # two stray quotation marks join rows in the same way, and only the user can tell
        more = f"{path.name}: {rows.broken_lines:,} rows have line breaks within a quoted cell"
        notes.append(f"{more}, the first ends in line {rows.first_broken_line:,}.")
    if rows.padded:
        notes.append(f"{path.name}: {rows.padded:,} rows are shorter than the header; their last cells are empty.")


@dataclass
class _Names:
    names: list[str]
    rows: list[list[str]]
    """Rows that were read to find the names, and are still to be parsed."""


def _column_names(path: Path, layout: csv_layout.Layout, rows: Iterator[list[str]], notes: list[str]) -> _Names:
    """Return the names of the columns, which are generated if the file has no header."""
    if layout.has_header:
        return _Names(next(rows), [])
    first = list(itertools.islice(rows, _ROWS_PER_FRAME))
    names = generated_names(first)
    notes.append(f"{path.name} has no header, its first row is data: its columns were named {', '.join(names)}.")
    return _Names(names, first)


def _frame(cells: list[list[str]], names: list[str]) -> pandas.DataFrame:
    columns = zip(*cells) if cells else [()] * len(names)
    frame = pandas.DataFrame(dict(enumerate(columns)), dtype="str")
    frame.columns = names
    return frame


def _parse_txt(path: Path, encoding: str, limits: Limits, notes: list[str]) -> Iterator[pandas.DataFrame]:
    """Parse a text a line; or a table, if it is for training."""
    if limits is UNLIMITED:
        if not csv_sniffer.looks_like_table(path, encoding):
            raise ValueError(
                "it is no table with a separator in each line; rename it to .json or .jsonl if it is one, or write a .csv file"
            )
        yield from _parse_csv(path, encoding, limits, notes)
        return
    lines = path.read_text(encoding=encoding).split("\n")
    texts = [line.strip() for line in lines if line.strip()]
    limits.check(path, len(texts), columns=1)
    if texts:
        yield pandas.DataFrame({"text": texts})


# ---------------------------------------------------------------- .json and .jsonl


def _parse_jsonl(path: Path, encoding: str, limits: Limits, notes: list[str]) -> Iterator[pandas.DataFrame]:
    with open_text(path, encoding) as lines:
        yield from _json_frames(path, json_rows.of_lines(lines), limits)


def _parse_json(path: Path, encoding: str, limits: Limits, notes: list[str]) -> Iterator[pandas.DataFrame]:
    with open_text(path, encoding) as file:
        has_a_row_a_line = json_rows.has_a_row_a_line(file)
    with open_text(path, encoding) as file:
        rows = json_rows.of_lines(file) if has_a_row_a_line else json_rows.of_document(file.read())
        yield from _json_frames(path, rows, limits)


def _json_frames(path: Path, parsed: Iterator[dict], limits: Limits) -> Iterator[pandas.DataFrame]:
    rows = []
    columns: dict[str, None] = {}
    for row_count, row in enumerate(parsed, 1):
        columns.update(dict.fromkeys(row))
        rows.append(row)
        limits.check(path, row_count, len(columns))
        if len(rows) == _ROWS_PER_FRAME:
            yield _object_frame(rows, columns)
            rows = []
    if rows:
        yield _object_frame(rows, columns)


def _object_frame(rows: list[dict], columns: dict[str, None]) -> pandas.DataFrame:
    """Return a frame of the cells as they were parsed: pandas would turn 1 into 1.0 if another cell is missing."""
    return pandas.DataFrame(rows, columns=list(columns), dtype=object)


# ---------------------------------------------------------------- binary formats; `encoding` is ignored


def _parse_parquet(path: Path, encoding: str, limits: Limits, notes: list[str]) -> Iterator[pandas.DataFrame]:
    with open_bytes(path) as opened, ParquetFile(opened) as file:
        limits.check(path, file.metadata.num_rows, file.metadata.num_columns)
        batch_rows = _ROWS_PER_FRAME if limits is UNLIMITED else _PARQUET_BATCH_ROWS
        size = 0
        for batch in file.iter_batches(batch_size=batch_rows):
            size += batch.nbytes
            limits.check(path, 0, 0, unpacked_bytes=size)
            yield _from_arrow(batch)
        if file.metadata.num_rows == 0:
            yield file.schema_arrow.empty_table().to_pandas()


def _parse_arrow(path: Path, encoding: str, limits: Limits, notes: list[str]) -> Iterator[pandas.DataFrame]:
    """Parse the Arrow file format (Feather) or the stream format, which `datasets` writes."""
    with open_bytes(path) as file:
        reader = open_arrow(file)
        is_empty = True
        for batch in reader:
            for start in range(0, len(batch), _ROWS_PER_FRAME):
                yield _from_arrow(batch.slice(start, _ROWS_PER_FRAME))
                is_empty = False
        if is_empty:
            yield reader.schema.empty_table().to_pandas()


def open_arrow(file) -> pyarrow.RecordBatchReader:
    """Return a reader of an open Arrow file in either format. Raises pyarrow.ArrowInvalid."""
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    if not is_file:
        return pyarrow.ipc.open_stream(file)
    reader = pyarrow.ipc.open_file(file)
    batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    return pyarrow.RecordBatchReader.from_batches(reader.schema, batches)


def _from_arrow(batch: pyarrow.RecordBatch) -> pandas.DataFrame:
    """Return the batch with whole numbers as such, also if some are missing."""
    return batch.to_pandas(integer_object_nulls=True).reset_index(drop=True)


def _parse_xlsx(path: Path, encoding: str, limits: Limits, notes: list[str]) -> Iterator[pandas.DataFrame]:
    """Parse the first sheet of a workbook, if a reader is installed."""
    try:
        sheets = pandas.read_excel(path, sheet_name=None, dtype=object, keep_default_na=False)
    except ImportError as error:
        raise ValueError(
            "no reader of workbooks is installed; save the sheet as CSV, or pip install openpyxl"
        ) from error
    names = list(sheets)
    if len(names) > 1:
        notes.append(f"{path.name}: sheet {names[0]} is read; not used: {', '.join(names[1:])}.")
    frame = sheets[names[0]]
    limits.check(path, len(frame), len(frame.columns))
    yield frame
