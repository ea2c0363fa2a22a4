"""The runs of a training, read from the lines of progress.jsonl."""

import json

import pytest

from adapter_arena import progress
from adapter_arena.jobs import curves
from adapter_arena.jobs.job import Choices, Job


@pytest.fixture
def job(tmp_path):
    data = tmp_path / "rows.csv"
    data.write_text("text,label\n")
    choices = Choices("rows.csv", "mine", "base", ("lora",), runs=(("mine", "lora"),))
    return Job.create(tmp_path / "job", choices, data)


def write(job, *lines: dict) -> None:
    folder = job.folder / "runs" / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / progress.FILE).write_text(content + '{"time": 99, "ste')  # the last line is being written


def line(time: float, step: int, **values) -> dict:
    return {"time": time, "step": step, "steps": 100, "epoch": 0.1} | values


def test_a_run_that_has_not_started_has_no_steps(job):
    run = curves.runs(job)[0]
    assert (run.name, run.method, run.phase, run.share) == ("mine", "lora", "", 0.0)


def test_losses_scores_and_the_time_that_is_left(job):
    write(
        job,
        {"time": 0, "phase": "reading the rows"},
        line(10, 0, phase="training"),
        line(10, 0, validation_loss=0.7, validation_score=0.5),
        line(20, 10, loss=0.6),
        line(30, 20, loss=0.4, validation_loss=0.5, validation_score=0.8),
    )
    run = curves.runs(job)[0]
    assert (run.phase, run.step, run.steps, run.share) == ("training", 20, 100, 0.2)
    assert run.losses == [(10, 0.6), (20, 0.4)]
    assert run.validation == [(0, 0.7, 0.5), (20, 0.5, 0.8)]
    assert run.seconds_left == pytest.approx(80)


def test_a_resumed_run_repeats_steps_and_has_its_own_speed(job):
    write(
        job,
        line(0, 0, phase="training"),
        line(10, 10, loss=0.6),
        line(20, 20, loss=0.5),
        {"time": 1000, "phase": "reading the rows"},
        line(1010, 10, phase="training"),
        line(1020, 20, loss=0.45),
    )
    run = curves.runs(job)[0]
    assert run.losses == [(10, 0.6), (20, 0.45)]
    assert run.seconds_left == pytest.approx(80)
