"""Batch: a file or pasted lines, a column, an adapter; results that can be stopped, looked at and taken away."""

import html
import tempfile
import threading
import time
from pathlib import Path

import gradio as gr
import pandas

from adapter_arena.data import labels, tables
from adapter_arena.errors import ArenaError
from adapter_arena.serve import batch, batch_outcome, zero
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.ui import charts, fragments
from adapter_arena.ui.fragments import Column
from adapter_arena.ui.shared import PRIVATE, adapter_choices, adapter_dropdown, refused
from adapter_arena.ui.uploads import Held

SHOWN = 200
"""Rows of the result that the page shows; the files hold all."""
NO_LABELS = "–"
_OFFERED = 200
_ON_ZERO_GPU = 4096
"""Rows asked for at once there, since each call has to wait for the GPU."""
_EVERY_SECONDS = 0.3
_EMPTY = '<p class="nothing">Upload a file or paste lines, then score them</p>'


def build(demo: gr.Blocks, catalogue: Catalogue) -> None:
    """The tab's content and what it does."""
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=5, min_width=320):
            file = gr.File(
                label="File", file_types=[".csv", ".tsv", ".jsonl", ".txt", ".parquet"], elem_id="file", type="filepath"
            )
            pasted = gr.Textbox(label="Or one text a line", lines=4, max_lines=10, elem_id="lines")
        with gr.Column(scale=5, min_width=320):
            adapter = adapter_dropdown(catalogue, "batch-adapter")
            with gr.Row():
                text_column = gr.Dropdown([], label="Text column", elem_id="text-column", allow_custom_value=True)
                label_column = gr.Dropdown([NO_LABELS], value=NO_LABELS, label="Label column", elem_id="label-column")
            with gr.Row(elem_classes="actions"):
                run = gr.Button("Score", variant="primary", elem_id="score")
                stop = gr.Button("Stop", elem_id="stop", interactive=False)
    said = gr.HTML(_EMPTY, elem_id="batch-said")
    with gr.Row(elem_classes="split"):
        counts = gr.HTML(elem_id="counts")
        histogram = gr.HTML(elem_id="histogram")
    labelled = gr.HTML(elem_id="labelled")
    with gr.Row(elem_classes="actions"):
        as_csv = gr.DownloadButton("CSV", elem_id="as-csv", visible=False)
        as_parquet = gr.DownloadButton("Parquet", elem_id="as-parquet", visible=False)
    table = gr.HTML(elem_id="batch-rows", js_on_load=fragments.SORT)
    frame, stopping, tables_held = gr.State(None), gr.State(None), Held()

    def take(path: str | None, lines: str, name: str, before: str | None):
        """Read what was given and guess its columns."""
        tables_held.drop(before)
        nothing = gr.Dropdown([], value=None), gr.Dropdown([NO_LABELS], value=NO_LABELS)
        limits = tables.Limits()
        try:
            if path:
                table = tables.read(Path(path), limits)
            elif lines.strip():
                table = tables.Table(tables.from_lines(lines, limits), [])
            else:
                return None, *nothing, _EMPTY
            text = labels.guess_text_column(table.frame)
            label = labels.guess_label_column(table.frame, _labels(catalogue, name), text)
        except ArenaError as error:
            return None, *nothing, fragments.notice(str(error), "error")
        names = list(table.frame.columns)
        # Thousands of choices would freeze a browser; the guessed ones are always among those offered.
        offered = names[:_OFFERED] + [column for column in (text, label) if column and column not in names[:_OFFERED]]
        found = "; ".join([f"{len(table.frame):,} rows, {len(names):,} columns", *table.notes])
        label_choice = gr.Dropdown([NO_LABELS, *offered], value=label or NO_LABELS)
        key = tables_held.put(table.frame)
        return key, gr.Dropdown(offered, value=text), label_choice, fragments.notice(found)

    def score(key: str | None, text: str, label: str, name: str):
        """Score row by row of the file, showing how far it is; ends early when stopped."""
        if key is None:
            raise refused("There is nothing to score: upload a file or paste lines.")
        read = tables_held.get(key)
        if read is None:
            raise refused("Your rows are held no longer, since others needed the memory: give them again.")
        halt = threading.Event()
        running, idle = (
            (gr.Button(interactive=False), gr.Button(interactive=True)),
            (gr.Button(interactive=True), gr.Button(interactive=False)),
        )
        try:
            entry = catalogue.find(name)
            catalogue.engine_for(entry)  # fetched first, if it is not here yet: its labels are needed
            chunk = _ON_ZERO_GPU if zero.is_zero_gpu() else batch.CHUNK
            scoring = batch.Scoring(read, text, _labels(catalogue, name), None if label == NO_LABELS else label, chunk)
            shown = 0.0
            for progress in scoring.run(lambda texts: catalogue.predict(texts, entry.name), halt):
                if time.monotonic() - shown > _EVERY_SECONDS:  # a browser has no use for every chunk
                    shown = time.monotonic()
                    yield halt, *running, _progress(progress), *[gr.skip()] * 6
        except ArenaError as error:
            yield None, *idle, fragments.notice(str(error), "error"), *[gr.skip()] * 6
            return
        with tempfile.TemporaryDirectory(
            prefix="arena-"
        ) as place:  # Gradio takes a copy, which it deletes after an hour
            yield None, *idle, *_shown(scoring.outcome(), Path(place))

    inputs = [file, pasted, adapter, frame]
    gr.on(
        [file.change, pasted.change, adapter.change], take, inputs, [frame, text_column, label_column, said], **PRIVATE
    )
    results = [counts, histogram, labelled, as_csv, as_parquet, table]
    run.click(
        score,
        [frame, text_column, label_column, adapter],
        [stopping, run, stop, said, *results],
        concurrency_limit=4,
        **PRIVATE,
    )
    stop.click(lambda halt: halt and halt.set(), stopping, None, **PRIVATE)
    demo.load(lambda: gr.Dropdown(adapter_choices(catalogue)), None, adapter, **PRIVATE)


def _labels(catalogue: Catalogue, name: str | None) -> list[str]:
    entry = catalogue.find(name)
    return entry.adapter.labels if entry.adapter else []


def _progress(progress: batch.Progress) -> str:
    share = progress.done / progress.total if progress.total else 1.0
    left = f"{progress.seconds_left:,.0f} s left" if progress.seconds_left is not None else ""
    return fragments.bar(share, f"{progress.done:,} of {progress.total:,}") + fragments.notice(left)


def _shown(outcome: batch_outcome.Outcome, place: Path) -> list:
    """What is known of the rows that are done, with their files in `place`."""
    done = len(outcome.frame)
    if not done:
        return [fragments.notice("Stopped before the first row"), *[gr.skip()] * 6]
    said = f"{done:,} rows scored" if done == outcome.total else f"Stopped: {done:,} of {outcome.total:,} rows scored"
    said += f", {outcome.errors:,} without an answer" if outcome.errors else ""
    answered = max(1, done - outcome.errors)
    counted = "".join(fragments.bar(n / answered, f"{label} ({n:,})") for label, n in outcome.counts.items())
    for suffix in (".csv", ".parquet"):
        batch_outcome.save(outcome, place / f"results{suffix}")
    return [
        fragments.notice(said),
        f"<h3>Answers</h3>{counted}",
        f"<h3>Confidence</h3>{charts.histogram(_bins(outcome), 'Confidence')}",
        _against_labels(outcome),
        gr.DownloadButton(value=str(place / "results.csv"), visible=True),
        gr.DownloadButton(value=str(place / "results.parquet"), visible=True),
        _rows(outcome),
    ]


def _bins(outcome: batch_outcome.Outcome) -> list[tuple[str, int]]:
    """The histogram from the first bin that a top label can fall into, lower edges as labels."""
    least = 1 / max(2, len(outcome.labels))
    bins = zip(outcome.edges, outcome.edges[1:], outcome.histogram)
    return [(f"{100 * low:.0f}", count) for low, high, count in bins if high > least + 1e-9]


def _against_labels(outcome: batch_outcome.Outcome) -> str:
    marks = outcome.comparison
    if marks is None or marks.accuracy is None:
        return ""
    low, high = marks.accuracy_ci95
    heads = "".join(f"<th class=number>{html.escape(name)}</th>" for name in outcome.labels)
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th>{''.join(f'<td class=number>{n:,}</td>' for n in row)}</tr>"
        for name, row in zip(outcome.labels, marks.confusion_matrix)
    )
    missing = fragments.notice(f"{marks.unlabelled:,} rows have no label that is known") if marks.unlabelled else ""
    worst = fragments.table(marks.mistakes.to_dict("records"), [_ROW, _TEXT, _LABEL, _TRUTH, _CONFIDENCE])
    return (
        f"<h3>Against the labels</h3><p>Accuracy <b>{fragments.percent(marks.accuracy)}</b> "
        f"({100 * low:.1f}–{100 * high:.1f}) on {marks.n:,} rows</p>{missing}"
        f'<div class="scroll"><table class="data"><thead><tr><th>true, predicted</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        + (f"<h3>Most confident mistakes</h3>{worst}" if len(marks.mistakes) else "")
    )


def _rows(outcome: batch_outcome.Outcome) -> str:
    rows = outcome.frame.head(SHOWN).to_dict("records")
    many = len(outcome.frame) > SHOWN
    more = fragments.notice(f"The first {SHOWN} of {len(outcome.frame):,}; the files hold all") if many else ""
    return more + fragments.table(rows, [_ROW, _TEXT, _LABEL, _CONFIDENCE])


def _short(text: object) -> str:
    text = " ".join(str(text).split())
    return html.escape(text if len(text) <= 120 else text[:119] + "…")


def _said(row: dict) -> str:
    return html.escape(row["label"]) if isinstance(row["label"], str) else fragments.notice(row["error"], "error")


def _known(value: object) -> object:
    """None for what pandas has as missing."""
    return None if pandas.isna(value) else value


_ROW = Column("Row", lambda r: f"{r['row']:,}", lambda r: r["row"], less_first=True)
_TEXT = Column("Text", lambda r: _short(r["text"]), lambda r: str(r["text"])[:40], number=False, less_first=True)
_LABEL = Column("Answer", _said, lambda r: _known(r["label"]), number=False, less_first=True)
_TRUTH = Column("Label", lambda r: html.escape(str(r["truth"])), lambda r: r["truth"], number=False, less_first=True)
_CONFIDENCE = Column(
    "Confidence",
    lambda r: "–" if pandas.isna(r["confidence"]) else f"{100 * r['confidence']:.1f} %",
    lambda r: _known(r["confidence"]),
)
