"""The second half of the tab Train: a training that waits, runs or has ended."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from adapter_arena import settings
from adapter_arena.errors import ArenaError
from adapter_arena.jobs import curves, push, queue
from adapter_arena.jobs.curves import Run
from adapter_arena.jobs.job import Job, State
from adapter_arena.jobs.manager import Jobs
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import fragments, scopes, training_views
from adapter_arena.ui.shared import PRIVATE, user_error, user_errors

_TICK_SECONDS = 2.0

Updates = dict[gr.components.Component, Any]


class TrainingView:
    """The components of the open training; `new`, `deleted` and `card` are buttons that others listen to."""

    def __init__(self, catalogue: Catalogue, jobs: Jobs):
        self._catalogue = catalogue
        self._jobs = jobs
        self.job_id = gr.State(None)
        self.trained = gr.State(None)
        self._drawn = gr.State(None)
        self._timer = gr.Timer(_TICK_SECONDS, active=False)
        self._head = gr.HTML(elem_id="training-head")
        self._status = gr.HTML(elem_id="training-status")
        with gr.Row(elem_classes="actions"):
            self._stop = gr.Button("Stop", elem_id="training-stop", visible=False)
            self._resume = gr.Button("Resume", variant="primary", elem_id="training-resume", visible=False)
            self._compare = gr.Button("Compare it", variant="primary", elem_id="training-compare", visible=False)
            self.card = gr.Button("Show its card", elem_id="training-card", visible=False)
            self.new = gr.Button("New training", elem_id="training-new")
            self.deleted = gr.Button("Delete", elem_id="training-delete", visible=False)
        self._table = gr.HTML(elem_id="training-runs", elem_classes="pinned")
        with gr.Row(elem_classes="split"):
            self._loss = gr.Plot(
                show_label=False, container=False, elem_id="training-loss", elem_classes="chart", min_width=320
            )
            self._score = gr.Plot(
                show_label=False, container=False, elem_id="training-score", elem_classes="chart", min_width=320
            )
        self._build_push()
        self._report = gr.Markdown(elem_id="training-report", visible=False)
        self._wire_events()

    def _build_push(self) -> None:
        with gr.Row(visible=False, elem_classes="hub") as self._push_row:
            self._adapter = gr.Dropdown([], label="Adapter", elem_id="push-adapter", visible=False)
            self._repo = gr.Textbox(
                label="Hub repo",
                placeholder="user/name",
                max_lines=1,
                elem_id="push-repo",
            )
            self._private = gr.Checkbox(True, label="Private", elem_id="push-private", min_width=90, scale=0)
            if _has_login():
                gr.LoginButton(elem_id="push-login", scale=0, size="md", min_width=150)
            self._push = gr.Button("Push", elem_id="push", scale=0, min_width=110)
        self._pushed = gr.HTML(elem_id="pushed")

    @property
    def outputs(self) -> list[gr.components.Component]:
        """The components that `show` sets."""
        buttons = [self._stop, self._resume, self._compare, self.card, self.deleted]
        shown = [self._head, self._status, self._table, self._loss, self._score, self._report]
        pushing = [self._push_row, self._adapter, self._pushed]
        return [self.job_id, self.trained, self._drawn, self._timer, *buttons, *shown, *pushing]

    def _wire_events(self) -> None:
        self._timer.tick(
            self._refresh, [self.job_id, self._drawn], self.outputs, **PRIVATE | {"show_progress": "hidden"}
        )
        refreshed = {"fn": self._refresh, "inputs": [self.job_id, self._drawn], "outputs": self.outputs, **PRIVATE}
        self._stop.click(self._stop_job, self.job_id, None, **PRIVATE).then(**refreshed)
        self._resume.click(self._resume_job, self.job_id, None, **PRIVATE).then(**refreshed)
        inputs = [self.job_id, self._adapter, self._repo, self._private]
        self._push.click(self._push_adapter, inputs, self._pushed, concurrency_limit=2, **PRIVATE)

    # ------------------------------------------------------------ events

    def show(self, job: Job | None) -> Updates:
        """Return a training as it is now, also what did not change."""
        return self._render(job, None)

    def _refresh(self, job_id: str | None, drawn: list | None) -> Updates:
        return self._render(self._jobs.find(job_id), drawn)

    def _stop_job(self, job_id: str | None) -> None:
        self._act(job_id, self._jobs.stop)

    def _resume_job(self, job_id: str | None) -> None:
        self._act(job_id, self._jobs.resume)

    def _act(self, job_id: str | None, action: Any) -> None:
        job = self._jobs.find(job_id)
        if job is None:
            raise user_error("This training was deleted. Please start another one.")
        with user_errors():
            action(job)

    def _push_adapter(
        self, job_id: str | None, name: str | None, repo: str, private: bool, token: gr.OAuthToken | None
    ) -> str:
        """Push the adapter with the visitor's token, or with this machine's."""
        job = self._jobs.find(job_id)
        folders = {folder.name: folder for folder in job.adapters} if job else {}
        if name not in folders:
            return fragments.notice("This adapter was deleted. Please train it again.", "error")
        try:
            line = push.push(folders[name], repo.strip(), private, token.token if token else None)
        except ArenaError as error:
            return fragments.notice(str(error), "error")
        return fragments.notice(line)

    # ------------------------------------------------------------ what is shown

    def _render(self, job: Job | None, drawn: list | None) -> Updates:
        """Return the new values; charts are left as they are if their points are those that were `drawn`."""
        if job is None:
            return self._nothing()
        state = job.state
        runs = curves.runs(job)
        is_done = state is State.DONE
        points = [[run.name, len(run.losses), len(run.validation)] for run in runs]
        updates = {
            self.job_id: job.id,
            self._drawn: points,
            self._timer: gr.Timer(active=state.is_active),
            self._head: training_views.head(job),
            self._status: training_views.status(job, state, runs, queue.ahead(job)),
            self._table: training_views.runs_table(runs, job.choices.task),
            self._stop: gr.Button(visible=state.is_active, interactive=state is not State.STOPPING),
            self._resume: gr.Button(visible=state.can_resume),
            self.card: gr.Button(visible=is_done),
            self.deleted: gr.Button(visible=not state.is_active),
        }
        if points != drawn:
            updates[self._loss] = training_views.loss_chart(runs)
            updates[self._score] = training_views.score_chart(runs, job.choices.task)
        return updates | self._results(job, runs, is_done)

    def _results(self, job: Job, runs: list[Run], is_done: bool) -> Updates:
        """Return what is shown as soon as a training is done: its report, and where to push its adapters."""
        names = [path.name for path in job.adapters] if is_done else []
        if is_done:
            self._catalogue.add_folders(job.adapters)  # if its end was not noticed yet
        listed = self._listed(job.adapters) if is_done else []
        report = training_views.report(job) if is_done else ""
        return {
            self.trained: listed[0].name if listed else None,
            self._compare: gr.Button(visible=bool(listed), link=_compare_link(listed)),
            self._report: gr.Markdown(report, visible=bool(report)),
            self._push_row: gr.Row(visible=bool(names)),
            self._adapter: gr.Dropdown(names, value=names[0] if names else None, visible=len(names) > 1),
        }

    def _listed(self, folders: list[Path]) -> list[Entry]:
        """Return the entries of the adapters in folders; one that cannot be served has none."""
        return [entry for entry in self._catalogue.entries if entry.adapter and entry.adapter.folder in folders]

    def _nothing(self) -> Updates:
        """Return the updates that end the view of a training."""
        return {self.job_id: None, self._drawn: None, self._timer: gr.Timer(active=False), self._pushed: ""}


def _compare_link(entries: list[Entry]) -> str | None:
    """Return the link that opens adapters in Compare; several of them have one data set."""
    if not entries:
        return None
    scope = entries[0].name if len(entries) == 1 else scopes.of_dataset(entries[0].dataset)
    return f"?{urlencode({'adapter': scope})}"


def _has_login() -> bool:
    """Return whether visitors can sign in: on a Space with `hf_oauth: true`."""
    return settings.is_space() and bool(os.environ.get("OAUTH_CLIENT_ID"))
