"""The leaderboard's table: its columns, its rows as HTML, and the same as a CSV file."""

import csv
import functools
import hashlib
import html
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapter_arena import files
from adapter_arena.data.formulas import escape_formula
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import baseline_rows, fragments, measures, palette
from adapter_arena.ui.fragments import Column
from adapter_arena.ui.measures import MEASURES, Measure, Row

SCRIPT = Path(__file__).with_name("board.js").read_text(encoding="utf-8")
DEFAULT_COLUMNS = [
    "ece",
    "f1_micro",
    "subset_accuracy",
    "pearsonr",
    "mae",
    "rmse",
    "parameters",
    "size",
    "minutes",
    "memory",
    "latency",
    "merges",
    "four_bits",
    "to_lora",
]
"""Columns that are shown at first: as many as fit 1,280 px for each task."""
_NOTHING = "No measured adapter."


def _text(title: str, read: Callable[[Row], str | None]) -> Column:
    return Column(title, lambda row: html.escape(read(row) or "–"), read, number=False, less_first=True)


def _number(measure: Measure) -> Column:
    return Column(measure.title, measure.cell, measure.value, less_first=not measure.axis.more_is_better)


def _ability(title: str, read: Callable[[Entry], bool | None]) -> Column:
    """Return a column of yes and no, which are sorted as 1 and 0."""

    def value(row: Row) -> int | None:
        is_able = read(row.entry) if row.entry else None
        return None if is_able is None else int(is_able)

    words = {None: "–", 0: "no", 1: "yes"}
    return Column(title, lambda row: words[value(row)], value, number=False)


def _of_entry(read: Callable[[Entry], str | None]) -> Callable[[Row], str | None]:
    return lambda row: read(row.entry) if row.entry else None


_TEXTS = {
    "name": _text("Name", _of_entry(lambda entry: entry.name)),
    "dataset": _text("Data set", lambda row: row.dataset),
    "base": _text("Base model", lambda row: row.base_model),
    "task": _text("Task", lambda row: row.task),
    "source": _text("Source", lambda row: row.entry.source if row.entry else "baseline"),
}
_ABILITIES = {
    "merges": _ability("Merges into base", lambda entry: entry.merges),
    "four_bits": _ability("Trains on 4 bits", lambda entry: entry.trains_on_4_bits),
    "to_lora": _ability("Converts to LoRA", lambda entry: entry.converts_to_lora),
}


def rows(entries: list[Entry]) -> list[Row]:
    """Return the adapters and the baselines on their data, the best first in each task."""
    return measures.best_first(measures.of_adapters(entries) + baseline_rows.rows(entries))


def measures_of(entries: list[Entry]) -> dict[str, Measure]:
    """Return every measure by its key that any of the adapters has.

    The latency is always among them: it is measured soon after the app's start, and must not move the others then.
    """
    adapters = measures.of_adapters(entries)
    known = MEASURES | measures.out_of_domain(entries)
    found = {}
    for key, measure in known.items():
        if key == "latency" or any(measure.value(row) is not None for row in adapters):
            found[key] = measure
    return found


def columns(entries: list[Entry]) -> dict[str, Column]:
    """Return every column by its key that has a value for any of the adapters, in the order in which they are shown."""
    adapters = measures.of_adapters(entries)
    found = {}
    for key, column in _TEXTS.items():
        if any(column.value(row) is not None for row in adapters):
            found[key] = column
    for key, measure in measures_of(entries).items():
        found[key] = _number(measure)
    for key, column in _ABILITIES.items():
        if any(column.value(row) is not None for row in adapters):
            found[key] = column
    return found


def choices(entries: list[Entry]) -> list[tuple[str, str]]:
    """Return title and key of the columns to choose from: the one that ranks adapters of a single task is always shown."""
    ranking = _ranking(entries)
    always = ranking if len(ranking) == 1 else set()
    return [(column.title, key) for key, column in columns(entries).items() if key not in always]


def _ranking(entries: list[Entry]) -> set[str]:
    return {measures.objective(entry.task).key for entry in entries}


def _shown(entries: list[Entry], picked: list[str]) -> dict[str, Column]:
    keys = _ranking(entries) | set(picked)
    return {key: column for key, column in columns(entries).items() if key in keys}


def render(entries: list[Entry], picked: list[str]) -> str:
    """Return the table with the columns of these keys; SCRIPT sorts and searches it."""
    if not entries:
        return fragments.notice(_NOTHING)
    shown = {"adapter": _ADAPTER} | _shown(entries, picked)
    ranking = _ranking(entries)
    sorted_by = ranking.pop() if len(ranking) == 1 else None
    head = "".join(_header(key, column, key == sorted_by) for key, column in shown.items())
    body = "".join(_row(row, list(shown.values())) for row in rows(entries))
    table = f'<table class="data"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div><p class="notice count" role="status"></p>'


def _title(row: Row) -> str:
    title = palette.dot(row.method) + html.escape(row.title)
    return title if row.entry else f"{title} <small>baseline</small>"


_ADAPTER = Column("Adapter", _title, lambda row: row.title, number=False, less_first=True)


def _header(key: str, column: Column, is_sorted: bool) -> str:
    attributes = f' data-key="{html.escape(key)}"'
    if column.number:
        attributes += ' class="number"'
    if column.less_first:
        attributes += " data-ascending"
    if is_sorted:
        attributes += ' aria-sort="descending"'
    return f'<th scope="col"{attributes}><button>{html.escape(column.title)}</button></th>'


def _row(row: Row, shown: list[Column]) -> str:
    entry = row.entry
    searched = [row.title, row.dataset, row.base_model, row.task]
    if entry:
        searched += [entry.name, entry.method, entry.source]
        attributes = f'data-name="{html.escape(entry.name)}" tabindex="0"'
    else:
        searched.append("baseline")
        attributes = 'class="baseline"'
    text = html.escape(" ".join(filter(None, searched)).lower())
    cells = "".join(_cell(column, row) for column in shown)
    return f'<tr {attributes} data-search="{text}">{cells}</tr>'


def _cell(column: Column, row: Row) -> str:
    value = column.value(row)
    attributes = "" if value is None else f' data-value="{html.escape(str(value))}"'
    if column.number:
        attributes += ' class="number"'
    return f"<td{attributes}>{column.cell(row)}</td>"


def write_csv(entries: list[Entry], picked: list[str]) -> str:
    """Write the table with the columns of these keys as a CSV file, if there is none with this content; return its path."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    shown = {key: column for key, column in _shown(entries, picked).items() if key not in _TEXTS}
    titles = [column.title for column in shown.values()]
    writer.writerow(["adapter", "method", "base_model", "dataset", "source", "trained_on", *titles])
    for row in rows(entries):
        writer.writerow(_csv_row(row, list(shown.values())))
    content = file.getvalue()
    folder = _csv_folder() / hashlib.sha256(content.encode()).hexdigest()[:16]
    folder.mkdir(exist_ok=True)
    path = folder / "leaderboard.csv"
    if not path.is_file():
        files.write_atomic(path, content)
    return str(path)


@functools.cache
def _csv_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="arena-"))


def _csv_row(row: Row, shown: list[Column]) -> list[Any]:
    entry = row.entry
    texts = [row.title, "", row.base_model, row.dataset, "baseline", ""]
    if entry:
        device = entry.results and entry.results.training.device
        texts = [entry.name, entry.method, row.base_model, row.dataset, entry.source, device]
    return [escape_formula(text or "") for text in texts] + [column.value(row) for column in shown]
