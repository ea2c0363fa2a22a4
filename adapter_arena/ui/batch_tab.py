"""Batch: score every row of a file or of pasted lines, with progress, a stop button and results to download."""

import html
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pandas
from gradio.components.plot import PlotData

from adapter_arena import tasks
from adapter_arena.data import labels, pairs, tables
from adapter_arena.errors import ArenaError, DataError
from adapter_arena.serve import batch, batch_outcome, zero
from adapter_arena.serve.batch_outcome import LabelComparison, Outcome
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.ui import charts, fragments
from adapter_arena.ui.fragments import Column
from adapter_arena.ui.shared import PRIVATE, adapter_choices, adapter_dropdown, takes_pairs, user_error
from adapter_arena.ui.uploads import TableCache

MAX_ROWS_SHOWN = 200
"""Number of result rows that the page shows; the files contain all."""
NO_LABELS = "–"
_FORMATS = [".csv", ".tsv", ".jsonl", ".txt", ".parquet"]
_MAX_COLUMNS_OFFERED = 200
_ZERO_GPU_CHUNK = 4096
"""Rows per call on ZeroGPU, where each call has to wait for the GPU."""
_SECONDS_BETWEEN_UPDATES = 0.3
_MAX_CHARACTERS_SHOWN = 120
_NO_ROWS = fragments.placeholder("Upload a file or paste lines, then press Score.")

Updates = dict[gr.components.Component, Any]
"""New values of components; the others stay as they are."""


class BatchTab:
    """The tab's components and events."""

    def __init__(self, demo: gr.Blocks, catalogue: Catalogue):
        self._catalogue = catalogue
        self._tables = TableCache()
        self._table_key = gr.State(None)
        self._stop_event = gr.State(None)
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=5, min_width=320):
                self._file = gr.File(label="File", file_types=_FORMATS, elem_id="file", type="filepath")
                self._pasted = gr.Textbox(label="Or one text per line", lines=4, max_lines=10, elem_id="lines")
            with gr.Column(scale=5, min_width=320):
                self._build_controls()
        self._status = gr.HTML(_NO_ROWS, elem_id="batch-said")
        self._build_results()
        self._wire_events(demo)

    def _build_controls(self) -> None:
        self._adapter = adapter_dropdown(self._catalogue, "batch-adapter")
        with gr.Row():
            self._text_column = gr.Dropdown([], label="Text column", elem_id="text-column", allow_custom_value=True)
            self._pair_column = gr.Dropdown(
                [], label="Second text", elem_id="pair-column", allow_custom_value=True, visible=False
            )
            self._label_column = gr.Dropdown([NO_LABELS], value=NO_LABELS, label="Label column", elem_id="label-column")
        self._min_confidence = gr.Slider(
            0,
            1,
            value=0,
            step=0.01,
            label="Minimum confidence",
            info="Answers below it count as abstained, not as wrong.",
            elem_id="min-confidence",
        )
        with gr.Row(elem_classes="actions"):
            self._run = gr.Button("Score", variant="primary", elem_id="score")
            self._stop = gr.Button("Stop", elem_id="stop", interactive=False)

    def _build_results(self) -> None:
        with gr.Row(elem_classes="split"):
            self._counts = gr.HTML(elem_id="counts")
            self._histogram = gr.Plot(
                show_label=False, container=False, visible=False, elem_id="histogram", elem_classes="chart"
            )
        self._comparison = gr.HTML(elem_id="labelled")
        with gr.Row(elem_classes="actions"):
            self._csv = gr.DownloadButton("Download CSV", elem_id="as-csv", visible=False)
            self._parquet = gr.DownloadButton("Download Parquet", elem_id="as-parquet", visible=False)
        self._rows = gr.HTML(elem_id="batch-rows", js_on_load=fragments.SORT)

    def _wire_events(self, demo: gr.Blocks) -> None:
        sources = [self._file, self._pasted, self._adapter]
        columns = [self._table_key, self._text_column, self._label_column, self._pair_column]
        controls = [self._stop_event, self._run, self._stop, self._status]
        results = [self._counts, self._histogram, self._comparison, self._csv, self._parquet, self._rows]
        changes = [source.change for source in sources]
        gr.on(changes, self._read, [*sources, self._table_key], [*columns, self._status], **PRIVATE)
        inputs = [*columns, self._adapter, self._min_confidence]
        self._run.click(self._score, inputs, controls + results, concurrency_limit=4, **PRIVATE)
        self._stop.click(_stop_scoring, self._stop_event, None, **PRIVATE)
        demo.load(lambda: gr.Dropdown(adapter_choices(self._catalogue)), None, self._adapter, **PRIVATE)

    def _read(self, path: str | None, lines: str, name: str, old_key: str | None) -> Updates:
        """Read the file or the lines, and guess the text column and the label column."""
        self._tables.drop(old_key)
        try:
            table = _read_table(path, lines)
            if table is None:
                return self._without_table(_NO_ROWS)
            text_column = labels.guess_text_column(table.frame)
            pair_column = None
            if takes_pairs(self._catalogue, name):
                text_column, pair_column = self._pair_columns(table.frame, name, text_column)
            label_column = None
            if self._catalogue.find(name).task == tasks.SINGLE_LABEL:
                label_column = labels.guess_label_column(table.frame, _labels(self._catalogue, name), text_column)
        except ArenaError as error:
            return self._without_table(fragments.notice(str(error), "error"))
        columns = _offered_columns(list(table.frame.columns), [text_column, label_column, pair_column])
        size = f"{len(table.frame):,} rows, {len(table.frame.columns):,} columns"
        return {
            self._table_key: self._tables.put(table.frame),
            self._text_column: gr.Dropdown(columns, value=text_column),
            self._pair_column: gr.Dropdown(columns, value=pair_column, visible=takes_pairs(self._catalogue, name)),
            self._label_column: gr.Dropdown([NO_LABELS, *columns], value=label_column or NO_LABELS),
            self._status: fragments.notice("; ".join([size, *table.notes])),
        }

    def _pair_columns(self, frame: pandas.DataFrame, name: str, text_column: str) -> tuple[str, str | None]:
        """Return the columns that the adapter was trained on, or those with the usual names of a pair."""
        trained_on = self._catalogue.find(name).results.dataset.text_columns
        if set(trained_on) <= set(frame.columns):
            return tuple(trained_on)
        return pairs.guess(frame.columns) or (text_column, None)

    def _score(
        self,
        key: str | None,
        text_column: str,
        label_column: str,
        pair_column: str | None,
        name: str,
        min_confidence: float = 0.0,
    ) -> Iterator[Updates]:
        """Score the rows and show the progress; a stop or the end shows the results so far."""
        if key is None:
            raise user_error("There is nothing to score. Please upload a file or paste lines.")
        frame = self._tables.get(key)
        if frame is None:
            raise user_error("Your rows were evicted from memory. Please upload them again.")
        stop = threading.Event()
        idle = {
            self._stop_event: None,
            self._run: gr.Button(interactive=True),
            self._stop: gr.Button(interactive=False),
        }
        busy = {
            self._stop_event: stop,
            self._run: gr.Button(interactive=False),
            self._stop: gr.Button(interactive=True),
        }
        try:
            entry = self._catalogue.find(name)
            self._catalogue.engine_for(entry)  # downloads it if necessary: its labels are needed
            true_labels = None if label_column == NO_LABELS else label_column
            chunk = _ZERO_GPU_CHUNK if zero.is_zero_gpu() else batch.CHUNK
            if not takes_pairs(self._catalogue, name):
                pair_column = None
            elif not pair_column:
                raise DataError(f"Adapter {entry.name} classifies pairs: choose the column of the second text too.")
            names = _labels(self._catalogue, name)
            task = self._catalogue.find(name).task
            scoring = batch.Scoring(frame, text_column, names, true_labels, chunk, pair_column, task)
            last_update = 0.0
            for progress in scoring.run(lambda texts: self._catalogue.predict(texts, entry.name), stop):
                if time.monotonic() - last_update > _SECONDS_BETWEEN_UPDATES:
                    last_update = time.monotonic()
                    yield busy | {self._status: _render_progress(progress)}
            outcome = scoring.outcome(min_confidence)
            with tempfile.TemporaryDirectory(prefix="arena-") as folder:  # Gradio copies the files
                yield idle | self._show_outcome(outcome, Path(folder))
        except ArenaError as error:
            yield idle | {self._status: fragments.notice(str(error), "error")}

    def _without_table(self, status: str) -> Updates:
        return {
            self._table_key: None,
            self._text_column: gr.Dropdown([], value=None),
            self._pair_column: gr.Dropdown([], value=None),
            self._label_column: gr.Dropdown([NO_LABELS], value=NO_LABELS),
            self._status: status,
        }

    def _show_outcome(self, outcome: Outcome, folder: Path) -> Updates:
        """Save the rows that are done in `folder` and show them. Raises ArenaError."""
        if outcome.frame.empty:
            return {self._status: fragments.notice("Stopped before the first row was scored.")}
        csv = folder / "results.csv"
        parquet = folder / "results.parquet"
        batch_outcome.save(outcome, csv)
        batch_outcome.save(outcome, parquet)
        return {
            self._status: fragments.notice(_summary(outcome)),
            self._counts: _render_counts(outcome),
            self._histogram: gr.Plot(_confidence_histogram(outcome), visible=True),
            self._comparison: _render_comparison(outcome),
            self._csv: gr.DownloadButton(value=str(csv), visible=True),
            self._parquet: gr.DownloadButton(value=str(parquet), visible=True),
            self._rows: _render_rows(outcome),
        }


def _stop_scoring(stop: threading.Event | None) -> None:
    if stop is not None:
        stop.set()


def _labels(catalogue: Catalogue, name: str | None) -> list[str]:
    entry = catalogue.find(name)
    return entry.adapter.labels if entry.adapter else []


def _read_table(path: str | None, lines: str) -> tables.Table | None:
    """Return the table of the file or of the lines, None if there is neither. Raises ArenaError."""
    limits = tables.Limits()
    if path:
        return tables.read(Path(path), limits)
    if lines.strip():
        return tables.Table(tables.from_lines(lines, limits), [])
    return None


def _offered_columns(columns: list[str], guessed: list[str | None]) -> list[str]:
    """Return the first columns and the guessed ones: thousands of choices would freeze a browser."""
    offered = columns[:_MAX_COLUMNS_OFFERED]
    for column in guessed:
        if column and column not in offered:
            offered.append(column)
    return offered


def _render_progress(progress: batch.Progress) -> str:
    share = progress.done / progress.total if progress.total else 1.0
    bar = fragments.bar(share, f"{progress.done:,} of {progress.total:,}")
    if progress.seconds_left is None:
        return bar
    return bar + fragments.notice(f"{progress.seconds_left:,.0f} s left")


def _summary(outcome: Outcome) -> str:
    done = len(outcome.frame)
    if done == outcome.total:
        summary = f"{done:,} rows scored"
    else:
        summary = f"Stopped: {done:,} of {outcome.total:,} rows scored"
    if outcome.errors:
        summary += f", {outcome.errors:,} without an answer"
    if outcome.abstained:
        summary += f", {outcome.abstained:,} abstained"
    return summary


def _render_counts(outcome: Outcome) -> str:
    if not outcome.counts:
        return ""
    answered = max(1, len(outcome.frame) - outcome.errors)
    content = "<h3>Answers</h3>"
    for label, count in outcome.counts.items():
        content += fragments.bar(count / answered, f"{label} ({count:,})")
    if outcome.abstained:
        content += fragments.bar(outcome.abstained / answered, f"abstained ({outcome.abstained:,})", quiet=True)
    return content


def _confidence_histogram(outcome: Outcome) -> PlotData:
    """Return the histogram from the first bin that can contain the confidence of a most likely label.

    Of a regression it is that of the numbers, and of several labels no bin is impossible.
    """
    if outcome.task == tasks.REGRESSION:
        return charts.histogram(outcome.histogram, outcome.edges, outcome.labels[0])
    if outcome.task == tasks.MULTI_LABEL:
        return charts.histogram(outcome.histogram, outcome.edges, "Highest probability")
    lowest = 1 / max(2, len(outcome.labels))
    first = 0
    while outcome.edges[first + 1] <= lowest + 1e-9:
        first += 1
    return charts.histogram(outcome.histogram[first:], outcome.edges[first:], "Confidence")


def _render_comparison(outcome: Outcome) -> str:
    comparison = outcome.comparison
    if comparison is None or comparison.accuracy is None:
        return ""
    low, high = comparison.accuracy_ci95
    accuracy = f"<b>{fragments.percent(comparison.accuracy)}</b> ({fragments.interval(100 * low, 100 * high)})"
    content = f"<h3>Comparison with the labels</h3><p>Accuracy {accuracy} on {comparison.n:,} rows</p>"
    if outcome.abstained:
        content += fragments.notice(f"Abstained answers ({outcome.abstained:,}) are neither right nor wrong.")
    if comparison.unlabelled:
        content += fragments.notice(f"{comparison.unlabelled:,} rows have no label that the adapter knows.")
    content += _render_confusion_matrix(outcome.labels, comparison)
    if len(comparison.mistakes):
        columns = [_ROW, _TEXT, _LABEL, _TRUTH, _CONFIDENCE]
        content += "<h3>Most confident mistakes</h3>"
        content += fragments.table(comparison.mistakes.to_dict("records"), columns)
    return content


def _render_confusion_matrix(names: list[str], comparison: LabelComparison) -> str:
    header = "".join(f'<th class="number">{html.escape(name)}</th>' for name in names)
    rows = ""
    for name, counts in zip(names, comparison.confusion_matrix, strict=True):
        cells = "".join(f'<td class="number">{count:,}</td>' for count in counts)
        rows += f"<tr><th>{html.escape(name)}</th>{cells}</tr>"
    head = f"<thead><tr><th>Label ↓ Answer →</th>{header}</tr></thead>"
    return f'<div class="scroll"><table class="data">{head}<tbody>{rows}</tbody></table></div>'


def _render_rows(outcome: Outcome) -> str:
    rows = outcome.frame.head(MAX_ROWS_SHOWN).to_dict("records")
    columns = [_ROW, _TEXT, _LABEL, _CONFIDENCE]
    if outcome.task == tasks.REGRESSION:
        columns = [_ROW, _TEXT, _number_column(outcome)]
    table = fragments.table(rows, columns)
    if len(outcome.frame) <= MAX_ROWS_SHOWN:
        return table
    total = len(outcome.frame)
    return fragments.notice(f"The first {MAX_ROWS_SHOWN} of {total:,} rows; the files contain all.") + table


def _text_cell(row: dict) -> str:
    text = _shortened(row["text"])
    if "text_pair" in row:
        text += f"<br>{_shortened(row['text_pair'])}"
    return text


def _shortened(cell: object) -> str:
    text = " ".join(str(cell).split())
    if len(text) > _MAX_CHARACTERS_SHOWN:
        text = text[: _MAX_CHARACTERS_SHOWN - 1] + "…"
    return html.escape(text)


def _label_cell(row: dict) -> str:
    if pandas.isna(row["label"]):
        return fragments.notice(row["error"], "error")
    label = html.escape(row["label"].replace(tasks.SEPARATOR, ", ")) or "no label"
    return f"{label} <small>abstained</small>" if row.get("abstained") is True else label


def _number_column(outcome: Outcome) -> Column:
    name = next(column for column in (outcome.labels[0], "value") if column in outcome.frame)

    def cell(row: dict) -> str:
        return fragments.notice(row["error"], "error") if pandas.isna(row[name]) else f"{row[name]:.4g}"

    return Column(outcome.labels[0], cell, lambda row: _none_if_missing(row[name]))


def _confidence_cell(row: dict) -> str:
    return "–" if pandas.isna(row["confidence"]) else f"{100 * row['confidence']:.1f} %"


def _none_if_missing(value: object) -> object:
    return None if pandas.isna(value) else value


_ROW = Column("Row", lambda r: f"{r['row']:,}", lambda r: r["row"], number=False, less_first=True)
_TEXT = Column("Text", _text_cell, lambda r: str(r["text"])[:40], number=False, less_first=True)
_LABEL = Column("Answer", _label_cell, lambda r: _none_if_missing(r["label"]), number=False, less_first=True)
_TRUTH = Column("Label", lambda r: html.escape(str(r["truth"])), lambda r: r["truth"], number=False, less_first=True)
_CONFIDENCE = Column("Confidence", _confidence_cell, lambda r: _none_if_missing(r["confidence"]))
