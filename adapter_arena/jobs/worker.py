"""The process of one training: waits until it is the first of the queue, then runs train_space.py.

    python -m adapter_arena.jobs.worker FOLDER TRAINER

`manager` starts it in a session of its own, so it outlives the app. It imports little: while it waits it should not take
memory.
"""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import filelock
import psutil

from adapter_arena.jobs import command, queue
from adapter_arena.jobs.job import LOG, Job, Saved, State

READY = "ready"
"""Printed as soon as the state is written."""
_POLL_SECONDS = 0.25
_NICE = 5
"""Lower priority than the app, whose visitors wait for an answer."""
_STOPPED = (130, 143)
"""Exit statuses of the trainer after Ctrl-C and SIGTERM."""


def main(folder: Path, trainer: Path) -> None:
    """Queue up, train, and write how it ended."""
    job = Job(folder)
    process = psutil.Process()
    saved = dataclasses.replace(
        job.saved,
        state=State.QUEUED,
        queued_at=time.time(),
        started_at=0.0,
        exit_code=0,
        over_limit=False,
        pid=process.pid,
        process_started_at=process.create_time(),
    )
    job.save(saved)
    print(READY, flush=True)
    if hasattr(os, "nice"):  # not on Windows
        os.nice(_NICE)
    lock = filelock.FileLock(folder.parent / "turn.lock")
    while not job.should_stop:
        if queue.ahead(job) == 0:
            try:
                lock.acquire(timeout=_POLL_SECONDS)
                break
            except filelock.Timeout:
                continue
        time.sleep(_POLL_SECONDS)
    if not lock.is_locked:
        job.save(dataclasses.replace(saved, state=State.STOPPED))
        return
    saved = dataclasses.replace(saved, state=State.RUNNING, started_at=time.time())
    job.save(saved)
    job.save(_train(job, trainer, saved))
    if job.saved.state is State.DONE:
        job.data.unlink(missing_ok=True)  # nobody needs this copy any more
    lock.release()


def _train(job: Job, trainer: Path, saved: Saved) -> Saved:
    """Run the trainer until it ends or has to stop, and return the new state."""
    limit = job.choices.max_seconds
    over_limit = False
    with (job.folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(trainer), *command.arguments(job)],
            cwd=job.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=command.environment(),
        )
        is_told = False
        while process.poll() is None:
            seconds = saved.seconds + time.time() - saved.started_at
            over_limit = over_limit or (limit > 0 and seconds > limit)
            if not is_told and (over_limit or job.should_stop):
                process.terminate()  # the trainer finishes the step and saves a checkpoint
                is_told = True
            time.sleep(_POLL_SECONDS)
    state = State.DONE if process.returncode == 0 else State.FAILED
    if process.returncode and (is_told or process.returncode in _STOPPED):
        state = State.STOPPED
    return dataclasses.replace(
        saved,
        state=state,
        seconds=saved.seconds + time.time() - saved.started_at,
        exit_code=process.returncode,
        over_limit=over_limit,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
