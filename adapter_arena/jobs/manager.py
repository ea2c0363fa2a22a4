"""Start, find, stop, resume and delete trainings, and report those that are done."""

import dataclasses
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from adapter_arena import files, settings
from adapter_arena.errors import BusyError, RequestError, StorageError
from adapter_arena.jobs import queue, worker
from adapter_arena.jobs.job import Choices, Job, State

_ROOT = Path(__file__).parent.parent.parent
TRAINER = _ROOT / "train_space.py"
_ID = re.compile(r"[0-9a-f]{32}")
_WATCH_SECONDS = 1.0
_ORPHAN_SECONDS = 60
"""Enough to finish a step and to save a checkpoint."""


def is_enabled() -> bool:
    """Return whether trainings may be started on the page, see ARENA_TRAIN."""
    switch = settings.get("ARENA_TRAIN")
    return switch == "on" or (switch == "auto" and not settings.is_space())


class Jobs:
    """The trainings in one folder. Several apps may share it; every method may be called from any thread."""

    def __init__(
        self,
        root: Path | None = None,
        trainer: Path | None = None,
        when_done: Callable[[Job], None] = lambda job: None,
    ):
        """`when_done` is called, in a thread, with each training that ends while this process runs."""
        self.root = (root or Path(settings.get("ARENA_TRAIN_FOLDER"))).absolute()
        self._trainer = trainer or TRAINER
        self._when_done = when_done
        self._submitting = threading.Lock()

    def all(self) -> list[Job]:
        """Return all trainings, the newest first."""
        return queue.jobs_in(self.root)

    def find(self, job_id: object) -> Job | None:
        """Return the training with this secret id; None if there is none."""
        if not isinstance(job_id, str) or not _ID.fullmatch(job_id):
            return None
        try:
            return Job(self.root / job_id)
        except FileNotFoundError:
            return None

    def watch(self) -> None:
        """Report the trainings of an earlier app when they end."""
        for job in self.all():
            if job.state.is_active:
                self._watch(job)

    def submit(self, data: Path, choices: Choices) -> Job:
        """Start a training, or queue it behind others. Raises BusyError, StorageError."""
        choices = dataclasses.replace(
            choices, created=time.time(), max_seconds=60 * settings.get("ARENA_TRAIN_MINUTES")
        )
        with self._submitting:
            self._check_room()
            with files.explain_disk_errors("start the training again"):
                job = Job.create(self.root / secrets.token_hex(16), choices, data)
            self._start_worker(job)
        return job

    def resume(self, job: Job) -> None:
        """Continue a training that has stopped. Raises BusyError, RequestError, StorageError."""
        with self._submitting:
            if job.state.is_active:
                return
            if not job.state.can_resume:
                raise RequestError("This training is done: start another one.")
            limit = job.choices.max_seconds
            if limit and job.saved.seconds >= limit:
                raise RequestError(
                    f"This training has taken its {limit / 60:g} minutes (ARENA_TRAIN_MINUTES): choose fewer rows or epochs."
                )
            self._check_room()
            _end_orphan(job)
            with files.explain_disk_errors("press Resume again"):
                job.forget_stop()
            self._start_worker(job)

    def stop(self, job: Job) -> None:
        """Ask a training to stop: it finishes its step and saves a checkpoint. Raises StorageError."""
        if job.state.is_active:
            with files.explain_disk_errors("press Stop again"):
                job.request_stop()

    def delete(self, job: Job) -> None:
        """Delete a training with its adapters and checkpoints. Raises RequestError if it runs."""
        if job.state.is_active:
            raise RequestError("This training runs: stop it first.")
        _end_orphan(job)
        shutil.rmtree(job.folder, ignore_errors=True)

    def _check_room(self) -> None:
        limit = settings.get("ARENA_TRAIN_WAITING")
        if sum(job.state.is_active for job in self.all()) >= limit:
            raise BusyError(
                f"{limit:,.0f} trainings wait, which is the limit (ARENA_TRAIN_WAITING). Please try again later."
            )

    def _start_worker(self, job: Job) -> None:
        """Start the job's process and wait until it has written its state. Raises StorageError if it cannot."""
        with (job.folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", worker.__name__, str(job.folder), str(self._trainer)],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        with process.stdout as output:
            is_ready = output.readline().strip() == worker.READY
        if not is_ready:
            process.wait()
            raise StorageError(f"The training could not be started: see {job.folder / 'worker.log'}.")
        threading.Thread(target=process.wait, daemon=True).start()  # otherwise it would remain as a zombie
        self._watch(job)

    def _watch(self, job: Job) -> None:
        def wait() -> None:
            while job.state.is_active:
                time.sleep(_WATCH_SECONDS)
            if job.state is State.DONE:
                self._when_done(job)

        threading.Thread(target=wait, name="training", daemon=True).start()


def _end_orphan(job: Job) -> None:
    """End the trainer of a worker that was killed. It saves a checkpoint, from which the next trainer continues."""
    orphans = [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(job.folder)]
    for process in orphans:
        process.terminate()
    _, alive = psutil.wait_procs(orphans, timeout=_ORPHAN_SECONDS)
    for process in alive:
        process.kill()
