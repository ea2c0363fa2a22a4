"""Find out how a table is written: its separator, its quotation marks and whether it has a header."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from adapter_arena.data.compressed import open_text, table_suffix
from adapter_arena.data.csv_layout import Layout, until_error
from adapter_arena.data.csv_quotes import find_quoting
from adapter_arena.data.header import has_usual_name, is_header

SEPARATORS = "\t;|,"
_SAMPLE_LINES = 200
_MAX_HEADER = 1_000_000


def find(path: Path, encoding: str, may_be_short: bool) -> Layout:
    """Return the layout of a file that has at least one row. Raises ValueError, with the line, if it is uncertain."""
    with open_text(path, encoding, newline="") as file:
        sample = _read_sample(file)
    skipped, separator = _separator_line(sample)
    if separator is None:
        separator = _find_separator(sample, table_suffix(path))
    layout = Layout(separator, skipped, may_be_short=may_be_short)
    first_row = next((row for _, row in until_error(layout.rows(sample))), [])
    layout = dataclasses.replace(layout, columns=len(first_row))
    layout = find_quoting(path, encoding, layout)
    rows = [row for _, row in until_error(layout.rows(sample))]
    if rows and not is_header(rows):
        return dataclasses.replace(layout, has_header=False)
    return layout


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

    If there are several, one with a usual name in the first row is preferred, then the tab. If there is none, return
    the one that makes most columns in the first row; the comma if there is only one column. Raises ValueError.
    """
    first_line = next((line for line in sample if line.strip()), "")
    header = re.sub(r'"[^"]*"?', "", first_line)
    if suffix == ".tsv" and "\t" in header:
        return "\t"
    even = []
    for separator in SEPARATORS:
        rows = _even_rows(sample, separator) if separator in header else []
        if rows and has_usual_name(rows[0]):
            return separator
        if rows:
            even.append(separator)
    if len(even) > 1 and even[0] != "\t":
        raise ValueError(f"its rows can be split at {' or '.join(even)}; write a first line with the column names")
    if even:
        return even[0]
    return "\t" if suffix == ".tsv" else max(",;\t", key=header.count)


def _even_rows(sample: list[str], separator: str) -> list[list[str]]:
    """Return the rows of the sample if there are several, with the same number of cells, more than one; else none."""
    for is_quoted in (True, False):
        rows = [row for _, row in until_error(Layout(separator, is_quoted=is_quoted).rows(sample))]
        if len(sample) == _SAMPLE_LINES:
            rows = rows[:-1]  # the sample may end within a row
        counts = {len(row) for row in rows}
        if len(rows) > 1 and len(counts) == 1 and counts != {1}:
            return rows
    return []


def looks_like_table(path: Path, encoding: str) -> bool:
    """Return whether a .txt file clearly has a separator: all its first rows have the same number of cells, over one.

    Every line of a text may have one comma, so a comma counts only if the first row has a usual name.
    """
    with open_text(path, encoding, newline="") as file:
        sample = _read_sample(file)
    for separator in SEPARATORS:
        rows = _even_rows(sample, separator)
        if rows and (separator != "," or has_usual_name(rows[0])):
            return True
    return False
