"""Trainings on the page: queue, stop, resume, restart and faults, with a trainer that does what files tell it."""

import dataclasses
import json
import os
import shutil
import threading
from contextlib import suppress

import psutil
import pytest
from conftest import HANG_SECONDS, disk, wait_until

from adapter_arena.errors import BusyError, RequestError, StorageError
from adapter_arena.jobs import queue
from adapter_arena.jobs.job import Choices, State
from adapter_arena.jobs.manager import Jobs, is_enabled

CHOICES = Choices("reviews.csv", "mine", "some/base", ("lora",), runs=(("mine", "lora"),))
# It ends well as soon as there is a file `finish`, badly if there is a file `fail` or `crash`, and on SIGTERM as the
# real one does: with status 143, and with something to resume from.
TRAINER = """
import signal, sys, time
from pathlib import Path

name = next(word.partition("=")[2] for word in sys.argv if word.startswith("--name="))
run = Path("runs") / name
run.mkdir(parents=True, exist_ok=True)
(run / "recipe.json").write_text("{}")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("arguments", *sys.argv[1:], flush=True)
(run / "started").touch()
while not Path("finish").exists():
    if Path("fail").exists():
        sys.exit("error: The loss is nan at step 3: start again with a lower --lr.")
    if Path("crash").exists():
        raise MemoryError("no memory")
    time.sleep(0.02)
(Path("adapters") / name).mkdir(parents=True)
"""


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\nfine,good\n")
    return path


@pytest.fixture
def jobs(tmp_path):
    trainer = tmp_path / "trainer.py"
    trainer.write_text(TRAINER)
    found = Jobs(tmp_path / "trainings", trainer)
    yield found
    for job in found.all():
        if job.state.is_active:
            kill(psutil.Process(job.saved.pid))


def kill(worker: psutil.Process) -> None:
    """Kill a worker and its trainer, in any order of their start."""
    with suppress(psutil.NoSuchProcess):
        worker.suspend()
        for process in [*worker.children(), worker]:
            process.kill()


def started(job) -> None:
    """Wait until the trainer has started."""
    wait_until((job.folder / "runs" / job.choices.name / "started").exists)


def ended(job) -> State:
    """Wait until the training has ended, and return its state."""
    wait_until(lambda: not job.state.is_active)
    return job.state


def test_a_training_ends_with_its_adapter_and_without_the_uploaded_file(jobs, data):
    is_reported = threading.Event()
    jobs._when_done = lambda job: is_reported.set()
    job = jobs.submit(data, CHOICES)
    started(job)
    assert (job.state, job.data.is_file()) == (State.RUNNING, True)
    (job.folder / "finish").touch()
    assert ended(job) is State.DONE
    assert [path.name for path in job.adapters] == ["mine"]
    assert is_reported.wait(HANG_SECONDS)
    wait_until(lambda: not job.data.exists())
    with pytest.raises(RequestError, match="is done"):
        jobs.resume(job)


def test_one_training_runs_at_a_time(jobs, data):
    first = jobs.submit(data, CHOICES)
    started(first)
    second = jobs.submit(data, CHOICES)
    third = jobs.submit(data, CHOICES)
    assert [job.state for job in (first, second, third)] == [State.RUNNING, State.QUEUED, State.QUEUED]
    assert [queue.ahead(job) for job in (second, third)] == [1, 2]
    jobs.stop(second)
    assert ended(second) is State.STOPPED
    assert not (second.folder / "runs").exists()
    assert queue.ahead(third) == 1
    (first.folder / "finish").touch()
    started(third)


def test_a_stopped_training_is_resumed(jobs, data):
    job = jobs.submit(data, CHOICES)
    started(job)
    jobs.stop(job)
    assert ended(job) is State.STOPPED
    assert "--resume" not in job.tail()[-1]
    jobs.resume(job)
    wait_until(lambda: "--resume" in job.tail()[-1])
    (job.folder / "finish").touch()
    assert ended(job) is State.DONE


def test_a_training_outlives_the_app(jobs, data):
    job = jobs.submit(data, CHOICES)
    started(job)
    assert os.getsid(job.saved.pid) != os.getsid(0)
    restarted = Jobs(jobs.root, jobs._trainer)
    found = restarted.find(job.id)
    assert (found.state, found.choices) == (State.RUNNING, dataclasses.replace(CHOICES, created=job.choices.created))
    restarted.stop(found)
    assert ended(found) is State.STOPPED


def test_a_training_whose_process_disappeared_is_interrupted(jobs, data):
    job = jobs.submit(data, CHOICES)
    started(job)
    kill(psutil.Process(job.saved.pid))
    assert ended(job) is State.INTERRUPTED
    # Another process has its number now.
    job.save(dataclasses.replace(job.saved, pid=os.getpid()))
    assert job.state is State.INTERRUPTED
    jobs.resume(job)
    assert job.state.is_active


def test_the_trainer_of_a_killed_worker_ends_before_the_next_starts(jobs, data):
    job = jobs.submit(data, CHOICES)
    started(job)
    worker = psutil.Process(job.saved.pid)
    (orphan,) = worker.children()
    worker.kill()
    assert ended(job) is State.INTERRUPTED
    assert orphan.is_running()
    jobs.resume(job)
    assert not orphan.is_running()
    jobs.stop(job)
    assert ended(job) is State.STOPPED


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("fail", "The loss is nan at step 3: start again with a lower --lr."),
        ("crash", "The training ended with exit status 1: MemoryError: no memory"),
    ],
)
def test_the_reason_of_a_failed_training_is_its_last_line(jobs, data, file, problem):
    job = jobs.submit(data, CHOICES)
    (job.folder / file).touch()
    assert ended(job) is State.FAILED
    assert job.problem == problem


def test_a_training_is_stopped_at_the_limit(jobs, data, monkeypatch):
    monkeypatch.setenv("ARENA_TRAIN_MINUTES", "0.001")
    job = jobs.submit(data, CHOICES)
    assert ended(job) is State.STOPPED
    assert job.saved.over_limit
    with pytest.raises(RequestError, match="has taken its"):
        jobs.resume(job)


def test_a_training_needs_room_on_the_disk(jobs, data, tmp_path):
    data.write_bytes(bytes(2_000_000))
    with disk(tmp_path / "small", "size=1m") as place:
        full = Jobs(place, jobs._trainer)
        with pytest.raises(StorageError, match="The disk is full"):
            full.submit(data, CHOICES)
        assert full.all() == list(place.iterdir()) == []


def test_a_training_that_cannot_start_says_where_to_look(jobs, data, monkeypatch):
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    with pytest.raises(StorageError, match="could not be started: see"):
        jobs.submit(data, CHOICES)


def test_trainings_are_limited(jobs, data, monkeypatch):
    monkeypatch.setenv("ARENA_TRAIN_WAITING", "1")
    job = jobs.submit(data, CHOICES)
    with pytest.raises(BusyError, match="1 trainings wait"):
        jobs.submit(data, CHOICES)
    with pytest.raises(RequestError, match="stop it first"):
        jobs.delete(job)
    jobs.stop(job)
    ended(job)
    jobs.delete(job)
    assert jobs.all() == []


@pytest.mark.parametrize("job_id", [None, "", "..", "../trainings", {"a": 1}, "f" * 31, "f" * 32])
def test_what_is_no_id_finds_nothing(jobs, data, job_id):
    job = jobs.submit(data, CHOICES)
    assert jobs.find(job.id).id == job.id
    assert jobs.find(job_id) is None


def test_a_comparison_keeps_its_choices(jobs, data):
    choices = dataclasses.replace(CHOICES, methods=("lora", "ia3"), runs=(("a-s42", "lora"), ("b-s42", "ia3")))
    job = jobs.submit(data, choices)
    started(job)
    assert json.loads((job.folder / "job.json").read_text())["methods"] == ["lora", "ia3"]
    assert jobs.find(job.id).choices.runs == choices.runs
    assert "--compare lora,ia3 --seeds 1 --name=mine" in job.tail()[-1]


def test_training_is_off_on_a_space_unless_it_is_switched_on(monkeypatch):
    assert is_enabled()
    monkeypatch.setenv("SPACE_ID", "someone/space")
    assert not is_enabled()
    monkeypatch.setenv("ARENA_TRAIN", "on")
    assert is_enabled()
    monkeypatch.delenv("SPACE_ID")
    monkeypatch.setenv("ARENA_TRAIN", "off")
    assert not is_enabled()
