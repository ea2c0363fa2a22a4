"""How far the runs of a training are, and their curves: live from `progress.jsonl`, later from results.json."""

from dataclasses import dataclass, field
from pathlib import Path

from adapter_arena import progress, results
from adapter_arena.errors import ArenaError
from adapter_arena.jobs.job import Job

_FIRST_SECONDS = 3.0
"""Seconds of training before the time that is left is estimated."""


@dataclass
class Run:
    """One run of a training: a method, with one seed."""

    name: str
    method: str
    phase: str = ""
    """What it does now; empty before it starts and when it is done."""
    step: int = 0
    steps: int = 0
    epoch: float = 0.0
    seconds_left: float | None = None
    """Of the steps, from their speed so far; None if it is not known yet."""
    losses: list[tuple[float, float]] = field(default_factory=list)
    """Step and training loss."""
    validation: list[tuple[float, float, float]] = field(default_factory=list)
    """Step, validation loss and validation score."""
    found: results.Results | None = None
    """Its results, as soon as it is done."""

    @property
    def share(self) -> float:
        """Share of the steps that are done."""
        if self.found:
            return 1.0
        return self.step / self.steps if self.steps else 0.0


def runs(job: Job) -> list[Run]:
    """Return the runs of a training in their order."""
    finished = {path.name: path for path in job.adapters}
    found = []
    for name, method in job.choices.runs:
        run = Run(name, method)
        if name in finished:
            _read_results(run, finished[name])
        else:
            _read_progress(run, progress.read(job.folder / "runs" / name))
        found.append(run)
    return found


def _read_results(run: Run, folder: Path) -> None:
    try:
        run.found = results.read(folder)
    except ArenaError:  # it was deleted or damaged since
        return
    training = run.found.training
    run.losses = [(step, loss) for step, loss in training.losses]
    run.validation = [tuple(point) for point in training.validation_curve]


def _read_progress(run: Run, lines: list[dict]) -> None:
    first = None
    losses = {}
    validation = {}
    for line in lines:
        run.phase = line.get("phase", run.phase)
        run.step = line.get("step", run.step)
        run.steps = line.get("steps", run.steps)
        run.epoch = line.get("epoch", run.epoch)
        if line.get("phase") == "training":  # this start of the run, which may be a later one
            first = line
        if "loss" in line:
            losses[run.step] = line["loss"]  # a step that was repeated after a resume replaces the earlier one
        if "validation_loss" in line:
            validation[run.step] = (line["validation_loss"], line["validation_score"])
    run.losses = sorted(losses.items())
    run.validation = sorted((step, loss, score) for step, (loss, score) in validation.items())
    if first and run.step > first["step"]:
        seconds = lines[-1]["time"] - first["time"]
        if seconds > _FIRST_SECONDS:
            run.seconds_left = seconds / (run.step - first["step"]) * (run.steps - run.step)
