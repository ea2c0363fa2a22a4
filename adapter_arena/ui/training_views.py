"""What the tab Train shows of a training: its state, a row and a curve for each run, and the report of a comparison."""

import html
import math
import time

from gradio.components.plot import PlotData

from adapter_arena import tasks
from adapter_arena.jobs.choices import TITLES
from adapter_arena.jobs.curves import Run
from adapter_arena.jobs.job import Job, State
from adapter_arena.ui import charts, fragments, palette
from adapter_arena.ui.charts import Axis, CurvePoint
from adapter_arena.ui.fragments import Column
from adapter_arena.ui.train_views import duration

_NO_STEP = "Curves begin with the first step"
_STATES = {
    State.QUEUED: "Waiting",
    State.RUNNING: "Training",
    State.STOPPING: "Stopping: the step is finished and a checkpoint saved",
    State.STOPPED: "Stopped",
    State.FAILED: "Failed",
    State.INTERRUPTED: "Interrupted: its process has disappeared. Resume continues from the last checkpoint",
    State.DONE: "Done",
}


def head(job: Job) -> str:
    """Return the title of a training."""
    choices = job.choices
    methods = ", ".join(TITLES.get(name, name) for name in choices.methods)
    facts = f"{methods} on {choices.file}, {choices.base_model.rpartition('/')[2]}"
    return f"<h3>{html.escape(choices.name)}</h3>" + fragments.notice(facts)


def status(job: Job, state: State, runs: list[Run], ahead: int) -> str:
    """Return the state of a training in one line, with a bar while it runs."""
    text = _STATES[state]
    if state is State.QUEUED and ahead:
        text = f"{ahead} training{'s are' if ahead > 1 else ' is'} ahead of yours"
    if state is State.FAILED:
        return fragments.notice(job.problem, "error")
    if state is State.INTERRUPTED and "disk is full" in job.problem:
        return fragments.notice(job.problem, "error")
    if state is State.STOPPED:
        text += "."
        if job.saved.over_limit:
            text = f"Stopped at the limit of {duration(job.choices.max_seconds)} (ARENA_TRAIN_MINUTES)."
        step = max((run.step for run in runs), default=0)
        text += f" Resume continues from step {step:,}." if step and not job.saved.over_limit else ""
    if state is State.DONE:
        text = f"Done in {duration(job.saved.seconds)}."
    if state is not State.RUNNING:
        return fragments.notice(text)
    return _progress(runs)


def _progress(runs: list[Run]) -> str:
    share = sum(run.share for run in runs) / max(1, len(runs))
    percent = round(100 * share)
    current = next((run for run in runs if run.phase), None)
    text = "Starting" if current is None else current.phase.capitalize()
    if current and current.phase == "training":
        text = f"Step {current.step:,} of {current.steps:,}"
        if current.seconds_left is not None:
            text += f", about {duration(_seconds_left(runs, current))} left"
    bar = f'<div role="progressbar" aria-label="Training" aria-valuenow="{percent}">{fragments.bar(share)}</div>'
    return f'{bar}<p class="notice">{html.escape(text)}</p>'  # no status: it would be read aloud every two seconds


def _seconds_left(runs: list[Run], current: Run) -> float:
    """Return the seconds for this run's steps and for the runs that have not started, taken to be as long."""
    waiting = sum(1 for run in runs if not run.found and not run.phase)
    per_step = current.seconds_left / max(1, current.steps - current.step)
    return current.seconds_left + waiting * per_step * current.steps


def runs_table(runs: list[Run], task: str) -> str:
    """Return a row for each run: its step, losses and scores, live or from its results."""
    metric = tasks.TASKS[task].objective
    columns = [
        Column("Method", _method_cell, lambda run: run.method, number=False, less_first=True),
        Column("Step", _step_cell, lambda run: run.step),
        Column("Loss", lambda run: _last(run.losses, 1, "{:.3f}")),
        Column("Validation loss", lambda run: _last(run.validation, 1, "{:.3f}")),
        Column(f"Validation {_lower(metric.title)}", lambda run: _written(metric, _last_value(run.validation, 2))),
        Column(f"Test {_lower(metric.title)}", lambda run: _written(metric, _test_score(run, metric))),
    ]
    return fragments.table(runs, columns)


def _method_cell(run: Run) -> str:
    seed = run.name.rpartition("-s")[2] if run.name.rpartition("-s")[2].isdecimal() else ""
    suffix = f" <small>seed {seed}</small>" if seed else ""
    return palette.dot(run.method) + html.escape(TITLES.get(run.method, run.method)) + suffix


def _step_cell(run: Run) -> str:
    if run.found:
        return "done"
    return f"{run.step:,} of {run.steps:,}" if run.steps else "–"


def _lower(title: str) -> str:
    return title[0].lower() + title[1:]


def _last_value(points: list[tuple], place: int) -> float | None:
    return points[-1][place] if points else None


def _last(points: list[tuple], place: int, form: str) -> str:
    value = _last_value(points, place)
    return "–" if value is None else form.format(value)


def _written(metric: tasks.Metric, value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else metric.write(value)


def _test_score(run: Run, metric: tasks.Metric) -> float | None:
    if run.found is None:
        return None
    if run.found.evaluation.scores:
        return run.found.evaluation.scores[metric.name].value
    return run.found.evaluation.accuracy


def loss_chart(runs: list[Run]) -> PlotData:
    """Return the loss by step: of one run on training and validation rows, of several on validation rows."""
    points = []
    if len(runs) == 1:
        points += [CurvePoint("Training", None, step, loss) for step, loss in runs[0].losses]
        points += [CurvePoint("Validation", runs[0].method, step, loss) for step, loss, _ in runs[0].validation]
    else:
        for run in runs:
            points += [CurvePoint(_series(run), run.method, step, loss) for step, loss, _ in run.validation]
    title = "Loss" if len(runs) == 1 else "Validation loss"
    return charts.lines(points, Axis("Step", ",d"), Axis(title, ".2f"), _NO_STEP)


def score_chart(runs: list[Run], task: str) -> PlotData:
    """Return the validation score by step of each run."""
    metric = tasks.TASKS[task].objective
    factor = 100 if metric.is_share else 1
    points = []
    for run in runs:
        points += [CurvePoint(_series(run), run.method, step, factor * score) for step, _, score in run.validation]
    title = f"Validation {_lower(metric.title)}" + (", %" if metric.is_share else "")
    return charts.lines(points, Axis("Step", ",d"), Axis(title, ".3~r"), _NO_STEP)


def _series(run: Run) -> str:
    title = TITLES.get(run.method, run.method)
    seed = run.name.rpartition("-s")[2]
    return f"{title}, seed {seed}" if seed.isdecimal() else title


def history(jobs: list[Job]) -> str:
    """Return a table of trainings to choose from; nothing if there are none."""
    if not jobs:
        return ""
    columns = [
        Column("Training", lambda job: html.escape(job.choices.name), number=False),
        Column("Methods", lambda job: _dots(job), number=False),
        Column("File", lambda job: html.escape(job.choices.file), number=False),
        Column("State", lambda job: job.state.value, number=False),
        Column("Started", lambda job: time.strftime("%Y-%m-%d %H:%M", time.localtime(job.choices.created))),
    ]
    return "<h3>Trainings</h3>" + fragments.table(jobs, columns, name=lambda job: job.id)


def _dots(job: Job) -> str:
    names = []
    for method in job.choices.methods:
        names.append(palette.dot(method) + html.escape(TITLES.get(method, method)))
    return " &nbsp; ".join(names)


def report(job: Job) -> str:
    """Return a comparison's report as Markdown, without its pictures, which the page draws itself."""
    if job.report is None:
        return ""
    lines = job.report.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("!["))
