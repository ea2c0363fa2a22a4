"""A training that was started on the page: what was chosen, and how far it is, in a folder of its own.

- `job.json`: what was chosen; written once.
- `state.json`: the state and the worker's process; written by the worker only.
- `stop`: exists if the training should stop.
- `log`: what the trainer printed.
- `runs`, `adapters`, `comparisons`: the trainer's own folders, since the job's folder is its working directory.
- the data file, until the training is done.
"""

import dataclasses
import json
import re
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from adapter_arena import files, tasks

LOG = "log"
_CHOICES = "job.json"
_STATE = "state.json"
_STOP = "stop"
_CLOCK_SECONDS = 2.0
"""Tolerance for the start of a process, which is computed from the time since the machine started."""
_TAIL_BYTES = 20_000
_FULL_BYTES = 1_000_000
"""Free bytes below which a disk is full: no checkpoint fits."""


class State(StrEnum):
    """How far a training is."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Its process has disappeared, for example with the machine's restart."""
    DONE = "done"

    @property
    def is_active(self) -> bool:
        """Whether a process works on it or waits for its turn."""
        return self in (State.QUEUED, State.RUNNING, State.STOPPING)

    @property
    def can_resume(self) -> bool:
        """Whether it can be continued from its last checkpoint."""
        return self in (State.STOPPED, State.FAILED, State.INTERRUPTED)


@dataclass(frozen=True)
class Choices:
    """What was chosen for a training."""

    file: str
    """Name of the data file."""
    name: str
    base_model: str
    methods: tuple[str, ...]
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    rows: int | None = None
    """Maximum training rows; None for all."""
    epochs: int = 2
    seeds: int = 1
    """Runs of each method, if there are several methods."""
    task: str = tasks.SINGLE_LABEL
    runs: tuple[tuple[str, str], ...] = ()
    """Name and method of each run."""
    created: float = 0.0
    """Seconds since 1970."""
    max_seconds: float = 0.0
    """Limit of the training; 0 for none."""

    @property
    def is_comparison(self) -> bool:
        """Whether several methods are trained and compared."""
        return len(self.methods) > 1


@dataclass(frozen=True)
class Saved:
    """The content of state.json."""

    state: State = State.INTERRUPTED
    queued_at: float = 0.0
    started_at: float = 0.0
    """Seconds since 1970; 0 before it had its turn."""
    seconds: float = 0.0
    """Seconds of earlier starts, without the present one."""
    exit_code: int = 0
    over_limit: bool = False
    """Whether it was stopped because it took `max_seconds`."""
    pid: int = 0
    process_started_at: float = 0.0


class Job:
    """The folder of a training. Its id is secret: who knows it may see and stop the training."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.id = folder.name
        content = json.loads((folder / _CHOICES).read_text(encoding="utf-8"))
        content["methods"] = tuple(content["methods"])
        content["runs"] = tuple(map(tuple, content["runs"]))
        self.choices = Choices(**content)

    @classmethod
    def create(cls, folder: Path, choices: Choices, data: Path) -> "Job":
        """Make the folder of a new training, with a copy of its data file. Raises OSError; then there is no folder."""
        folder.mkdir(parents=True, mode=0o700)
        try:
            shutil.copyfile(data, folder / choices.file)
            files.write_atomic(folder / _CHOICES, json.dumps(dataclasses.asdict(choices), indent=2))
        except OSError:
            shutil.rmtree(folder)
            raise
        return cls(folder)

    @property
    def data(self) -> Path:
        """The copy of the data file."""
        return self.folder / self.choices.file

    # ------------------------------------------------------------ state

    @property
    def saved(self) -> Saved:
        """What the worker wrote last."""
        path = self.folder / _STATE
        if not path.is_file():
            return Saved()
        content = json.loads(path.read_text(encoding="utf-8"))
        return Saved(**content | {"state": State(content["state"])})

    def save(self, saved: Saved) -> None:
        """Write state.json. Raises OSError."""
        files.write_atomic(self.folder / _STATE, json.dumps(dataclasses.asdict(saved), indent=2))

    @property
    def state(self) -> State:
        """The state now, also if the worker could not write it."""
        saved = self.saved
        if not saved.state.is_active:
            return saved.state
        if not _is_alive(saved):
            return State.INTERRUPTED
        return State.STOPPING if self.should_stop else saved.state

    @property
    def should_stop(self) -> bool:
        """Whether it was asked to stop."""
        return (self.folder / _STOP).exists()

    def request_stop(self) -> None:
        """Ask the worker to stop. Raises OSError."""
        (self.folder / _STOP).touch()

    def forget_stop(self) -> None:
        """Remove the request to stop."""
        (self.folder / _STOP).unlink(missing_ok=True)

    # ------------------------------------------------------------ results

    @property
    def adapters(self) -> list[Path]:
        """The folders of the finished adapters."""
        pattern = "comparisons/*/adapters/*" if self.choices.is_comparison else "adapters/*"
        found = [path for path in self.folder.glob(pattern) if path.is_dir() and not path.name.startswith(".")]
        return sorted(found)

    @property
    def report(self) -> Path | None:
        """The report of a comparison; None if there is none yet."""
        return next(self.folder.glob("comparisons/*/report.md"), None)

    @property
    def problem(self) -> str:
        """Why the training failed, in one line: the trainer's error, or the last line that it printed."""
        if shutil.disk_usage(self.folder).free < _FULL_BYTES:
            return "The disk is full: free some space, then press Resume."
        lines = self.tail()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        if errors:
            return errors[-1]
        last = lines[-1] if lines else "it printed nothing"
        return f"The training ended with exit status {self.saved.exit_code}: {last}"

    def tail(self) -> list[str]:
        """Return the last lines of the log, without progress bars and empty lines."""
        path = self.folder / LOG
        if not path.is_file():
            return []
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
        lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
        return [line for line in lines if line and "step/s" not in line and "s/step" not in line]


def _is_alive(saved: Saved) -> bool:
    """Return whether the worker's process exists: not one that got its number later, and not one that has ended."""
    try:
        process = psutil.Process(saved.pid)
        is_same = abs(process.create_time() - saved.process_started_at) < _CLOCK_SECONDS
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
