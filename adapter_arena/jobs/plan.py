"""What a training will take: its runs, parameters, memory and minutes, before it starts."""

import dataclasses
import functools
import json
import subprocess
import sys
from dataclasses import dataclass

from adapter_arena.errors import RecipeError
from adapter_arena.jobs import command, manager
from adapter_arena.jobs.job import Choices

_TIMEOUT_SECONDS = 300
_CHARACTERS_PER_TOKEN = 4.5
# LoRA on the default base trains on 14.5 reviews/s of up to 256 tokens, 0.3 ms a token; one text of 64 tokens is answered
# in 16 ms, 0.25 ms a token (two cores of an Intel Xeon, benchmarks/).
_TRAINING_PER_ANSWER = 1.2
# What a trainer does besides, on the same cores: it starts in 10 s, and in batches it scores a text in a quarter of the
# time of an answer; every text once by the frozen base, and the validation and test texts before and after training.
_START_IN_ANSWERS = 600
_SCORING_PER_ANSWER = 0.25
_TIMED_TOKENS = 64


@dataclass(frozen=True)
class PlannedRun:
    """One run, as the trainer will do it."""

    name: str
    method: str
    epochs: int
    batch_size: int
    max_length: int
    trainable: int
    """Parameters that are trained."""
    total: int
    megabytes: float
    """Memory for the base model and a batch, in MB (10^6 bytes)."""


def runs(choices: Choices) -> list[PlannedRun]:
    """Return the runs of a training, which the trainer plans in a process of its own. Raises RecipeError."""
    # Without what decides neither names nor memory, so that fewer plans have to be made.
    general = dataclasses.replace(choices, text_column=None, pair_column=None, label_column=None, rows=None, epochs=1)
    planned = _planned(tuple(command.of_choices(general)))
    return [dataclasses.replace(run, epochs=choices.epochs) for run in planned]


def with_runs(choices: Choices, planned: list[PlannedRun]) -> Choices:
    """Return the choices with the names and methods of the runs."""
    return dataclasses.replace(choices, runs=tuple((run.name, run.method) for run in planned))


@functools.lru_cache(maxsize=256)
def _planned(words: tuple[str, ...]) -> list[PlannedRun]:
    process = subprocess.run(
        [sys.executable, str(manager.TRAINER), *words, "--dry-run", "--json"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        env=command.environment(),
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines() or ["it printed no reason."]
        raise RecipeError(lines[-1].removeprefix("error: "))
    return [PlannedRun(**run) for run in json.loads(process.stdout.splitlines()[-1])]


def seconds(
    planned: list[PlannedRun],
    rows: int,
    scored_rows: int,
    characters: float,
    answer_ms: float | None,
    base_parameters: int,
) -> float | None:
    """Return about how long the runs take on this machine, from what one answer takes here; None if that is unknown.

    Args:
        planned: the runs.
        rows: number of training rows.
        scored_rows: number of validation and test rows.
        characters: mean length of a text.
        answer_ms: milliseconds for a text of about 64 tokens on the app's base model, see `serve.timing`.
        base_parameters: number of parameters of the app's base model.
    """
    if answer_ms is None:
        return None
    answers = float(_START_IN_ANSWERS)
    for run in planned:
        tokens = min(run.max_length, characters / _CHARACTERS_PER_TOKEN + 2)
        times_larger = max(1.0, run.total / base_parameters)
        training = _TRAINING_PER_ANSWER * rows * run.epochs
        scoring = _SCORING_PER_ANSWER * (rows + 3 * scored_rows)
        answers += (training + scoring) * tokens / _TIMED_TOKENS * times_larger
    return answers * answer_ms / 1000
