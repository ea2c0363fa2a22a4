"""Batch: score every row of a file or of pasted lines, with progress, a stop button and results to download."""

import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pandas

from adapter_arena.data import tables
from adapter_arena.errors import ArenaError, DataError
from adapter_arena.serve import batch, batch_outcome, zero
from adapter_arena.serve.batch_outcome import Outcome
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.ui import batch_example, batch_input, batch_report, batch_rows, fragments
from adapter_arena.ui.shared import PRIVATE, adapter_choices, adapter_dropdown, takes_pairs, user_error, user_errors
from adapter_arena.ui.uploads import TableCache

NO_LABELS = "–"
_ZERO_GPU_CHUNK = 4096
"""Rows per call on ZeroGPU, where each call has to wait for the GPU."""
_SECONDS_BETWEEN_UPDATES = 0.3

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
                self._build_sources()
            with gr.Column(scale=5, min_width=320):
                self._build_controls()
        with gr.Column(elem_id="batch-empty", elem_classes="boxed") as self._empty:
            self._example = gr.HTML("", elem_id="batch-example", js_on_load=fragments.SORT)
            self._try_example = gr.Button("Score the example", elem_id="try-example", scale=0, min_width=160)
        with gr.Column(visible=False, elem_id="batch-results") as self._results:
            self._build_results()
        self._wire_events(demo)

    def _build_sources(self) -> None:
        self._file = gr.File(label="File", file_types=batch_input.FORMATS, elem_id="file", type="filepath", height=140)
        self._pasted = gr.Textbox(label="Or one text per line", lines=3, max_lines=10, elem_id="lines")
        gr.HTML(fragments.placeholder(batch_input.formats_note()), elem_id="formats")

    def _build_controls(self) -> None:
        self._adapter = adapter_dropdown(self._catalogue, "batch-adapter")
        with gr.Row():
            self._text_column = gr.Dropdown([], label="Text column", elem_id="text-column", allow_custom_value=True)
            self._pair_column = gr.Dropdown(
                [], label="Second text", elem_id="pair-column", allow_custom_value=True, visible=False
            )
            self._label_column = gr.Dropdown([NO_LABELS], value=NO_LABELS, label="Label column", elem_id="label-column")
        with gr.Row(elem_classes="actions"):
            self._run = gr.Button("Score", variant="primary", elem_id="score")
            self._stop = gr.Button("Stop", elem_id="stop", interactive=False)
        self._status = gr.HTML("", elem_id="batch-said")

    def _build_results(self) -> None:
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=6, min_width=320):
                self._comparison = gr.HTML(elem_id="labelled", js_on_load=fragments.SORT)
            with gr.Column(scale=5, min_width=320):
                self._counts = gr.HTML(elem_id="counts")
                self._histogram = gr.Plot(show_label=False, container=False, elem_id="histogram", elem_classes="chart")
        with gr.Row(elem_classes="filters", elem_id="batch-view"):
            self._min_confidence = gr.Slider(
                0, 1, value=0, step=0.01, label="Withhold answers below this confidence", elem_id="min-confidence"
            )
            self._order = gr.Dropdown(
                [batch_rows.UNCERTAIN], value=batch_rows.UNCERTAIN, label="Order", elem_id="batch-order"
            )
            self._only_mistakes = gr.Checkbox(False, label="Mistakes only", elem_id="only-mistakes", min_width=140)
        with gr.Row(elem_classes="actions", elem_id="batch-actions"):
            self._coverage = gr.HTML(elem_id="coverage")
            self._csv = gr.DownloadButton("Download CSV", elem_id="as-csv", scale=0)
            self._parquet = gr.DownloadButton("Download Parquet", elem_id="as-parquet", scale=0)
        self._rows = gr.HTML(elem_id="batch-rows", js_on_load=fragments.SORT)

    def _wire_events(self, demo: gr.Blocks) -> None:
        sources = [self._file, self._pasted, self._adapter]
        columns = [self._table_key, self._text_column, self._label_column, self._pair_column]
        controls = [self._stop_event, self._run, self._stop, self._status]
        report = [self._counts, self._comparison, self._coverage, self._rows]
        files = [self._csv, self._parquet]
        results = [self._empty, self._results, self._histogram, self._order, self._only_mistakes, *report, *files]
        read = [*columns, self._status, self._empty, self._example, self._results]
        gr.on([source.change for source in sources], self._read, [*sources, self._table_key], read, **PRIVATE)
        view = [self._table_key, self._min_confidence, self._order, self._only_mistakes]
        scoring = {"inputs": [*columns, self._adapter, self._min_confidence], "outputs": controls + results}
        self._run.click(self._score, **scoring, concurrency_limit=4, **PRIVATE)
        example = self._try_example.click(self._read_example, [self._adapter, self._table_key], read, **PRIVATE)
        example.success(self._score, **scoring, concurrency_limit=4, **PRIVATE)
        self._stop.click(_stop_scoring, self._stop_event, None, **PRIVATE)
        moved = self._min_confidence.change(self._show_view, view, report, trigger_mode="always_last", **PRIVATE)
        moved.then(self._save, view[:2], files, **PRIVATE)
        gr.on([self._order.input, self._only_mistakes.input], self._show_rows, view, self._rows, **PRIVATE)
        demo.load(self._start, None, [self._adapter, self._example, self._empty], **PRIVATE)

    def _start(self) -> tuple:
        """List the current adapters; show the example of the first one."""
        choices = adapter_choices(self._catalogue)
        name = choices[0][1] if choices else None
        return gr.Dropdown(choices), *self._example_of(name)

    def _example_of(self, name: str | None) -> tuple[str, gr.Column]:
        """Return the example for an adapter, and whether there is one: its labels are known."""
        try:
            adapter = self._catalogue.find(name).adapter
        except ArenaError:  # it was just removed; the next event says so
            adapter = None
        if adapter is None:
            return "", gr.Column(visible=False)
        return batch_example.render(batch_example.make(adapter)), gr.Column(visible=True)

    def _read(self, path: str | None, lines: str, name: str, old_key: str | None) -> Updates:
        """Read the file or the lines, and guess which columns are which."""
        self._tables.drop(old_key)
        try:
            table = batch_input.read_table(path, lines)
            if table is None:
                return self._without_table(name, "")
            return self._with_table(table, name)
        except ArenaError as error:
            return self._without_table(name, fragments.notice(str(error), "error"))

    def _read_example(self, name: str, old_key: str | None) -> Updates:
        """Read the example file of an adapter as if it had been uploaded."""
        self._tables.drop(old_key)
        try:
            entry = self._catalogue.find(name)
            self._catalogue.engine_for(entry)  # downloads it if necessary: its labels are needed
            example = batch_example.make(self._catalogue.find(name).adapter)
            return self._with_table(tables.Table(example, []), name)
        except ArenaError as error:
            raise user_error(error) from error

    def _with_table(self, table: tables.Table, name: str) -> Updates:
        columns = batch_input.guess_columns(table, self._catalogue.find(name))
        size = f"{len(table.frame):,} rows, {len(table.frame.columns):,} columns"
        return {
            self._table_key: self._tables.put(table.frame),
            self._text_column: gr.Dropdown(columns.offered, value=columns.text),
            self._pair_column: gr.Dropdown(
                columns.offered, value=columns.pair, visible=takes_pairs(self._catalogue, name)
            ),
            self._label_column: gr.Dropdown([NO_LABELS, *columns.offered], value=columns.label or NO_LABELS),
            self._status: fragments.notice("; ".join([size, *table.notes])),
            self._empty: gr.Column(visible=False),
            self._results: gr.Column(visible=False),
        }

    def _without_table(self, name: str, status: str) -> Updates:
        example, empty = self._example_of(name)
        return {
            self._table_key: None,
            self._text_column: gr.Dropdown([], value=None),
            self._pair_column: gr.Dropdown([], value=None, visible=takes_pairs(self._catalogue, name)),
            self._label_column: gr.Dropdown([NO_LABELS], value=NO_LABELS),
            self._status: status,
            self._example: example,
            self._empty: empty,
            self._results: gr.Column(visible=False),
        }

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
            scoring = self._scoring(frame, name, text_column, label_column, pair_column)
            last_update = 0.0
            for progress in scoring.run(lambda texts: self._catalogue.predict(texts, name), stop):
                if time.monotonic() - last_update > _SECONDS_BETWEEN_UPDATES:
                    last_update = time.monotonic()
                    yield busy | {self._status: batch_report.progress(progress)}
            outcome = scoring.outcome()
            self._tables.put_outcome(key, frame, outcome)
            with tempfile.TemporaryDirectory(prefix="arena-") as folder:  # Gradio copies the files
                yield idle | self._show_outcome(outcome, min_confidence, Path(folder))
        except ArenaError as error:
            yield idle | {self._status: fragments.notice(str(error), "error")}

    def _scoring(
        self, frame: pandas.DataFrame, name: str, text_column: str, label_column: str, pair_column: str | None
    ) -> batch.Scoring:
        """Return the scoring of a table with an adapter, which is loaded first: its labels are needed."""
        self._catalogue.engine_for(self._catalogue.find(name))
        entry = self._catalogue.find(name)
        if not entry.takes_pairs:
            pair_column = None
        elif not pair_column:
            raise DataError(f"Adapter {entry.name} classifies pairs: choose the column of the second text too.")
        chunk = _ZERO_GPU_CHUNK if zero.is_zero_gpu() else batch.CHUNK
        truth = None if label_column == NO_LABELS else label_column
        return batch.Scoring(frame, text_column, entry.adapter.labels, truth, chunk, pair_column, entry.task)

    def _show_outcome(self, outcome: Outcome, min_confidence: float, folder: Path) -> Updates:
        """Save the rows that are done in `folder` and show them. Raises ArenaError."""
        if outcome.frame.empty:
            return {self._status: fragments.notice("Stopped before the first row was scored.")}
        orders = batch_rows.orders(outcome)
        shown = batch_outcome.abstain(outcome, min_confidence)
        csv, parquet = _write_files(shown, folder)
        return self._view(shown, orders[0], only_mistakes=False) | {
            self._status: fragments.notice(batch_report.summary(outcome)),
            self._empty: gr.Column(visible=False),
            self._results: gr.Column(visible=True),
            self._histogram: batch_report.chart(outcome),
            self._order: gr.Dropdown(orders, value=orders[0]),
            self._only_mistakes: gr.Checkbox(False, visible=batch_rows.has_mistakes(outcome)),
            self._csv: csv,
            self._parquet: parquet,
        }

    def _view(self, outcome: Outcome, order: str, only_mistakes: bool) -> Updates:
        """Return what the slider changes."""
        return {
            self._counts: batch_report.counts(outcome),
            self._comparison: batch_report.comparison(outcome),
            self._coverage: batch_report.coverage(outcome),
            self._rows: batch_rows.render(outcome, order, only_mistakes),
        }

    def _show_view(self, key: str | None, min_confidence: float, order: str, only_mistakes: bool) -> Updates:
        """Withhold the answers below a confidence, without scoring again."""
        outcome = self._tables.outcome(key)
        if outcome is None:
            return {self._coverage: _evicted(key)}
        return self._view(batch_outcome.abstain(outcome, min_confidence), order, only_mistakes)

    def _show_rows(self, key: str | None, min_confidence: float, order: str, only_mistakes: bool) -> str:
        outcome = self._tables.outcome(key)
        if outcome is None:
            return _evicted(key)
        return batch_rows.render(batch_outcome.abstain(outcome, min_confidence), order, only_mistakes)

    def _save(self, key: str | None, min_confidence: float) -> Iterator[tuple]:
        """Write the files again, which have a column for what is withheld."""
        outcome = self._tables.outcome(key)
        if outcome is None:
            return
        with tempfile.TemporaryDirectory(prefix="arena-") as folder, user_errors():
            yield _write_files(batch_outcome.abstain(outcome, min_confidence), Path(folder))


def _write_files(outcome: Outcome, folder: Path) -> tuple[str, str]:
    """Write the results as CSV and as Parquet, and return both paths. Raises DataError."""
    csv = folder / "results.csv"
    parquet = folder / "results.parquet"
    batch_outcome.save(outcome, csv)
    batch_outcome.save(outcome, parquet)
    return str(csv), str(parquet)


def _stop_scoring(stop: threading.Event | None) -> None:
    if stop is not None:
        stop.set()


def _evicted(key: str | None) -> str:
    """Return what is shown in place of results that are not in memory; nothing if there were none."""
    if key is None:
        return ""
    return fragments.notice("These results are no longer in memory: score the file again.", "error")
