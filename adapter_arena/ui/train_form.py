"""The first half of the tab Train: a file, what was read of it, and what to train on it."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from adapter_arena import settings
from adapter_arena.data import sample
from adapter_arena.errors import ArenaError, RequestError
from adapter_arena.jobs import choices as choosing
from adapter_arena.jobs import dataset, plan
from adapter_arena.jobs.dataset import Contents
from adapter_arena.jobs.job import Choices
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.ui import fragments, train_views
from adapter_arena.ui.shared import PRIVATE

DETECTED = "Detect"
NO_COLUMN = "None"
_NOTHING_READ = fragments.placeholder("A table with a text and a label in each row: CSV, TSV, JSONL or Parquet.")
_NOTHING_PLANNED = fragments.placeholder("Time and memory are estimated as soon as a file is read.")
_DEFAULT_METHOD = "lora"
_DEFAULT_EPOCHS = 2
_EXAMPLE_ROWS = 1500
_MAX_COLUMNS_OFFERED = 200

Updates = dict[gr.components.Component, Any]
"""New values of components; the others stay as they are."""


class TrainForm:
    """The components that choose a training, and the events between them; `start` is the button."""

    def __init__(self, catalogue: Catalogue):
        self._catalogue = catalogue
        self._own_base = catalogue.engine.base.id
        self._contents = gr.State(None)
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=5, min_width=320):
                self.file = gr.File(
                    label="File", file_types=list(dataset.SUFFIXES), elem_id="train-file", type="filepath", height=150
                )
                with gr.Row(elem_classes="actions"):
                    self._example = gr.Button("Use an example file", elem_id="train-example", size="sm")
                self._read_panel = gr.HTML(_NOTHING_READ, elem_id="train-read", elem_classes="panel")
            with gr.Column(scale=5, min_width=320):
                self._build_choices()
        self._wire_events()

    def _build_choices(self) -> None:
        with gr.Row():
            self._text = gr.Dropdown([DETECTED], value=DETECTED, label="Text", elem_id="train-text")
            self._pair = gr.Dropdown([NO_COLUMN], value=NO_COLUMN, label="Second text", elem_id="train-pair")
            self._label = gr.Dropdown([DETECTED], value=DETECTED, label="Label", elem_id="train-label")
        self._base = gr.Dropdown(
            choosing.base_models(self._own_base),
            value=self._own_base,
            label="Base model",
            allow_custom_value=not settings.is_space(),
            elem_id="train-base",
        )
        self._methods = gr.Dropdown(
            list(choosing.METHODS.items()),
            value=[_DEFAULT_METHOD],
            multiselect=True,
            label="Methods; several are compared",
            elem_id="train-methods",
        )
        with gr.Row():
            limit = settings.get("ARENA_TRAIN_ROWS")
            self._rows = gr.Textbox(
                label="Rows",
                placeholder=f"at most {limit:,.0f}" if limit else "all",
                elem_id="train-rows",
                min_width=90,
            )
            self._epochs = gr.Number(_DEFAULT_EPOCHS, label="Epochs", precision=0, elem_id="train-epochs", min_width=90)
            self._seeds = gr.Number(
                1, label="Seeds a method", precision=0, elem_id="train-seeds", min_width=90, visible=False
            )
            self._name = gr.Textbox(label="Name", max_lines=1, elem_id="train-name", min_width=140)
        self._plan_panel = gr.HTML(_NOTHING_PLANNED, elem_id="train-plan", elem_classes="panel")
        with gr.Row(elem_classes="actions"):
            self.start = gr.Button("Start training", variant="primary", elem_id="train-start", interactive=False)

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The components whose values `choices` takes."""
        fields = [self._text, self._pair, self._label, self._base, self._methods, self._rows, self._epochs]
        return [self._contents, self.file, *fields, self._seeds, self._name]

    def _wire_events(self) -> None:
        columns = [self._text, self._pair, self._label]
        shown = [self._contents, self._read_panel, self._plan_panel, self.start, self._name, *columns]
        planned = {"fn": self._plan, "inputs": self.inputs, "outputs": [self._plan_panel, self.start], **PRIVATE}
        self._example.click(_write_example, None, self.file, **PRIVATE)
        read = self.file.change(self._read_file, [self.file, self._rows], shown, **PRIVATE)
        read.then(**planned)
        columns_read = gr.on(
            [column.input for column in columns],
            self._read_columns,
            [self.file, *columns, self._rows],
            shown,
            trigger_mode="always_last",
            **PRIVATE,
        )
        columns_read.then(**planned)
        changed = [self._base, self._methods, self._rows, self._epochs, self._seeds]
        gr.on([component.input for component in changed], trigger_mode="always_last", **planned)
        self._methods.change(lambda names: gr.Number(visible=len(names) > 1), self._methods, self._seeds, **PRIVATE)

    def clear(self) -> Updates:
        """Return the form as it is at first."""
        return {self.file: None}

    # ------------------------------------------------------------ events

    def _read_file(self, path: str | None, rows: str) -> Updates:
        """Read a new file, with the columns that are detected."""
        if path is None:
            return self._without_contents(_NOTHING_READ) | {self._name: ""}
        return self._read(path, None, None, None, rows) | {self._name: _name_after(path)}

    def _read_columns(self, path: str | None, text: str, pair: str, label: str, rows: str) -> Updates:
        """Read the file again with the chosen columns."""
        if path is None:
            return self._without_contents(_NOTHING_READ)
        return self._read(path, _chosen(text), _chosen(pair), _chosen(label), rows)

    def _read(self, path: str, text: str | None, pair: str | None, label: str | None, rows: str) -> Updates:
        try:
            found = dataset.read(Path(path), text, pair, label, _bounded(rows))
        except ArenaError as error:
            reason = train_views.in_words_of_the_page(str(error))
            return self._without_contents(fragments.notice(reason, "error"))
        columns = found.columns[:_MAX_COLUMNS_OFFERED]
        second = found.text_columns[1] if len(found.text_columns) > 1 else pair
        first = found.text_columns[0] if found.text_columns else text
        labels = ",".join(found.label_columns) if found.label_columns else label
        return {
            self._contents: found,
            self._read_panel: train_views.contents(Path(path).name, found),
            self.start: gr.Button(interactive=not found.problem),
            self._text: gr.Dropdown(_offered(DETECTED, columns, first), value=first or DETECTED),
            self._pair: gr.Dropdown(_offered(NO_COLUMN, columns, second), value=second or NO_COLUMN),
            self._label: gr.Dropdown(_offered(DETECTED, columns, labels), value=labels or DETECTED),
        }

    def _without_contents(self, message: str) -> Updates:
        return {
            self._contents: None,
            self._read_panel: message,
            self._plan_panel: _NOTHING_PLANNED,
            self.start: gr.Button(interactive=False),
            self._text: gr.Dropdown([DETECTED], value=DETECTED),
            self._pair: gr.Dropdown([NO_COLUMN], value=NO_COLUMN),
            self._label: gr.Dropdown([DETECTED], value=DETECTED),
        }

    def _plan(self, contents: Contents | None, path: str | None, *values: object) -> tuple:
        """Return what the training will take, and whether it can start."""
        if contents is None or contents.problem or path is None:
            return _NOTHING_PLANNED, gr.Button(interactive=False)
        try:
            choices = self.choices(contents, path, *values)
            planned = plan.runs(choices)
        except ArenaError as error:
            reason = train_views.in_words_of_the_page(str(error))
            return fragments.notice(reason, "error"), gr.Button(interactive=False)
        rows = min(contents.splits["train"], choices.rows or contents.splits["train"])
        scored_rows = contents.splits["validation"] + contents.splits["test"]
        seconds = plan.seconds(
            planned, rows, scored_rows, contents.characters, self._answer_ms(), self._base_parameters(planned)
        )
        steps = sum(run.epochs * -(-rows // run.batch_size) for run in planned)
        limit = 60 * settings.get("ARENA_TRAIN_MINUTES")
        return train_views.plan(planned, steps, seconds, limit), gr.Button(interactive=True)

    def _answer_ms(self) -> float | None:
        """Return the milliseconds that the app's base model takes for a short text; None if it was not measured."""
        measured = sorted(self._catalogue.latency.values())
        return measured[len(measured) // 2] if measured else None

    def _base_parameters(self, planned: list[plan.PlannedRun]) -> int:
        """Return the number of parameters of the app's base model, which was timed; the planned one's if unknown."""
        for entry in self._catalogue.entries:
            if entry.results and entry.results.base_model.id == self._catalogue.engine.base.label:
                return entry.results.training.total_params
        return planned[0].total

    def choices(
        self,
        contents: Contents | None,
        path: str | None,
        text: str,
        pair: str,
        label: str,
        base: str,
        methods: list[str],
        rows: str,
        epochs: int | None,
        seeds: int | None,
        name: str,
    ) -> Choices:
        """Return what was chosen, given the values of `inputs`. Raises ArenaError for what cannot be trained."""
        if contents is None or path is None:
            raise RequestError("There is no file to train on. Please drop one.")
        if contents.problem:
            raise RequestError(train_views.in_words_of_the_page(contents.problem))
        choices = Choices(
            file=Path(path).name,
            name=name.strip() or _name_after(path),
            base_model=base or self._own_base,
            methods=tuple(methods),
            text_column=_chosen(text),
            pair_column=_chosen(pair),
            label_column=_chosen(label),
            rows=_bounded(rows),
            epochs=int(epochs or 0),
            seeds=int(seeds or 0) if len(methods) > 1 else 1,
            task=contents.task,
        )
        choosing.check(choices, self._own_base)
        return choices


def _write_example() -> Iterator[str]:
    """Write made-up reviews as a CSV file, which Gradio copies to its folder of uploads."""
    with tempfile.TemporaryDirectory(prefix="arena-") as folder:
        path = Path(folder) / "example-reviews.csv"
        sample.make(_EXAMPLE_ROWS).to_csv(path, index=False)
        yield str(path)


def _name_after(path: str) -> str:
    """Return a name for the adapter after the name of the file."""
    return re.sub(r"[^a-z0-9_-]+", "-", Path(path).stem.lower()).strip("-")[:60] or "trained"


def _chosen(column: str | None) -> str | None:
    return None if column in (None, "", DETECTED, NO_COLUMN) else column


def _offered(first: str, columns: list[str], chosen: str | None) -> list[str]:
    offered = [first, *columns]
    return offered if chosen is None or chosen in offered else [*offered, chosen]


def _bounded(rows: str | None) -> int | None:
    """Return the number of training rows, at most ARENA_TRAIN_ROWS; None for all. Raises RequestError."""
    text = (rows or "").replace(",", "").strip()
    limit = int(settings.get("ARENA_TRAIN_ROWS"))
    if text in ("", "all"):
        return limit or None
    if not text.isdecimal() or int(text) == 0:
        raise RequestError(f"Rows is {text!r:.40}: enter a number from 1 up, or nothing for all.")
    return min(int(text), limit) if limit else int(text)
