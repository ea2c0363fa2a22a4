"""The rows that Batch is to score: a file, pasted lines or the example, and which of their columns are which."""

from dataclasses import dataclass
from pathlib import Path

from adapter_arena import settings
from adapter_arena.data import labels, pairs, tables
from adapter_arena.serve import batch_truth
from adapter_arena.serve.entries import Entry

FORMATS = [".csv", ".tsv", ".jsonl", ".txt", ".parquet"]
_MAX_COLUMNS_OFFERED = 200


@dataclass(frozen=True)
class Columns:
    """The columns of a table that a visitor can choose from, and those that were guessed; None if none fits."""

    offered: list[str]
    text: str
    pair: str | None
    label: str | None


def formats_note() -> str:
    """Return which files are read, up to which size."""
    megabytes = settings.get("ARENA_MAX_FILE_MB")
    rows = settings.get("ARENA_MAX_ROWS")
    return f"CSV, TSV, JSON lines, text or Parquet, up to {megabytes:,.0f} MB and {rows:,.0f} rows."


def read_table(path: str | None, lines: str) -> tables.Table | None:
    """Return the table of the file or of the lines, None if there is neither. Raises ArenaError."""
    limits = tables.Limits()
    if path:
        return tables.read(Path(path), limits)
    if lines.strip():
        return tables.Table(tables.from_lines(lines, limits), [])
    return None


def guess_columns(table: tables.Table, entry: Entry) -> Columns:
    """Return the columns for an adapter; a label column only if the adapter's labels are known."""
    frame = table.frame
    text = labels.guess_text_column(frame)
    pair = None
    if entry.takes_pairs:
        trained_on = entry.results.dataset.text_columns
        usual = tuple(trained_on) if set(trained_on) <= set(frame.columns) else pairs.guess(frame.columns)
        text, pair = usual or (text, None)
    label = None
    if entry.adapter:
        label = batch_truth.guess_column(frame, entry.adapter.labels, entry.task, [text, pair])
    return Columns(_offered(list(frame.columns), [text, pair, label]), text, pair, label)


def _offered(columns: list[str], guessed: list[str | None]) -> list[str]:
    """Return the first columns and the guessed ones: thousands of choices would freeze a browser."""
    offered = columns[:_MAX_COLUMNS_OFFERED]
    for column in guessed:
        if column and column not in offered:
            offered.append(column)
    return offered
