"""Train: a file becomes an adapter. The form, or the training that is open, and the list of trainings."""

from typing import Any

import gradio as gr

from adapter_arena import settings
from adapter_arena.errors import ArenaError, RequestError
from adapter_arena.jobs import plan
from adapter_arena.jobs.job import Job
from adapter_arena.jobs.manager import Jobs
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.ui import fragments, train_views, training_views
from adapter_arena.ui.shared import ADAPTER_CHOICE, PRIVATE, adapter_choices, user_error, user_errors
from adapter_arena.ui.train_form import TrainForm
from adapter_arena.ui.training_view import TrainingView

_MAX_REMEMBERED = 20
"""Trainings whose ids a browser remembers."""
_STORAGE_KEY = "adapter-arena-trainings"

Updates = dict[gr.components.Component, Any]


class TrainTab:
    """The tab's components and events; `trained` changes to an adapter's name when its training is done."""

    def __init__(self, demo: gr.Blocks, catalogue: Catalogue):
        self._catalogue = catalogue
        self._jobs = Jobs(when_done=self._add_adapters)
        self._jobs.watch()
        # The ids are secrets, so a visitor sees only the trainings that this browser started. The key of the encryption
        # is no secret; a random one would make the app forget them when it restarts.
        nothing = {"ids": [], "open": None}
        self._mine = gr.BrowserState(nothing, storage_key=_STORAGE_KEY, secret=_STORAGE_KEY, render=False)
        with gr.Column(elem_id="train-form") as self._form_column:
            self._form = TrainForm(catalogue)
        with gr.Column(visible=False, elem_id="training") as self._view_column:
            self._view = TrainingView(catalogue, self._jobs)
        self.trained = self._view.trained
        self._history = gr.HTML(elem_id="trainings", js_on_load=fragments.PICK)
        self._wire_events(demo)

    def _add_adapters(self, job: Job) -> None:
        """List a finished training's adapters in every tab."""
        self._catalogue.add_folders(job.adapters)
        self._catalogue.time_adapters()

    def _wire_events(self, demo: gr.Blocks) -> None:
        opened = [self._mine, self._form_column, self._view_column, self._history, *self._view.outputs]
        self._form.start.click(self._start, [self._mine, *self._form.inputs], opened, **PRIVATE)
        self._history.select(self._open_selected, self._mine, opened, **PRIVATE)
        self._view.new.click(self._close, self._mine, [*opened, self._form.file], **PRIVATE)
        self._view.deleted.click(self._delete, [self._mine, self._view.job_id], opened, **PRIVATE)
        demo.load(self._load, self._mine, opened, **PRIVATE)

    def announce(self, demo: gr.Blocks, tabs: gr.Tabs, shown_adapter: gr.Dropdown) -> None:
        """Offer a new adapter in the other tabs, and open these; call it outside of the tabs, after all are built."""
        self._mine.render()  # in a tab it would not be read before that tab is opened
        for block in list(demo.blocks.values()):
            if isinstance(block, gr.Dropdown) and ADAPTER_CHOICE in (block.elem_classes or []):
                self.trained.change(lambda: gr.Dropdown(adapter_choices(self._catalogue)), None, block, **PRIVATE)
        self._view.card.click(
            lambda name: (gr.Tabs(selected="adapters"), name), self.trained, [tabs, shown_adapter], **PRIVATE
        )

    # ------------------------------------------------------------ events

    def _start(self, mine: dict, *values: object) -> Updates:
        """Start the training, or queue it, and open it."""
        try:
            choices = self._form.choices(*values)
            planned = plan.runs(choices)
            if not choices.is_comparison and choices.name in {entry.name for entry in self._catalogue.entries}:
                raise RequestError(f"There is an adapter named {choices.name}: choose another name.")
            job = self._jobs.submit(values[1], plan.with_runs(choices, planned))
        except ArenaError as error:
            raise user_error(train_views.in_words_of_the_page(str(error))) from error
        mine = {"ids": [job.id, *_ids(mine)][:_MAX_REMEMBERED], "open": job.id}
        return self._open(mine, job)

    def _open_selected(self, mine: dict, event: gr.EventData) -> Updates:
        job = self._jobs.find(event.name)
        if job is None:
            return self._open(mine | {"open": None}, None)
        return self._open({"ids": _ids(mine), "open": job.id}, job)

    def _load(self, mine: dict) -> Updates:
        """Open the training that the browser showed last."""
        opened = mine.get("open") if isinstance(mine, dict) else None
        return self._open({"ids": _ids(mine), "open": opened}, self._jobs.find(opened))

    def _close(self, mine: dict) -> Updates:
        return self._open({"ids": _ids(mine), "open": None}, None) | self._form.clear()

    def _delete(self, mine: dict, job_id: str | None) -> Updates:
        job = self._jobs.find(job_id)
        if job is not None:
            adapters = job.adapters
            with user_errors():
                self._jobs.delete(job)
            self._catalogue.remove_folders(adapters)
        ids = [other for other in _ids(mine) if other != job_id]
        return self._open({"ids": ids, "open": None}, None)

    def _open(self, mine: dict, job: Job | None) -> Updates:
        """Show a training, or the form."""
        return {
            self._mine: mine,
            self._form_column: gr.Column(visible=job is None),
            self._view_column: gr.Column(visible=job is not None),
            self._history: training_views.history(self._others(mine, job)),
        } | self._view.show(job)

    def _others(self, mine: dict, opened: Job | None) -> list[Job]:
        """Return all other trainings; on a Space, where anybody may look, only those that this browser started."""
        found = self._jobs.all()
        if settings.is_space():
            found = [job for job in map(self._jobs.find, _ids(mine)) if job is not None]
        return [job for job in found if opened is None or job.id != opened.id]


def _ids(mine: object) -> list[str]:
    """Return the ids that a browser remembers; it may send anything."""
    ids = mine.get("ids") if isinstance(mine, dict) else None
    return [job_id for job_id in ids if isinstance(job_id, str)][:_MAX_REMEMBERED] if isinstance(ids, list) else []
