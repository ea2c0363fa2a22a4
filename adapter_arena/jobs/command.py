"""The command line of a training, and its environment."""

import os

from adapter_arena import files
from adapter_arena.jobs.job import Choices, Job

TEST_ROWS = 2000
"""Maximum test rows: enough for an interval of ±1.5 points, and quickly scored."""


def arguments(job: Job) -> list[str]:
    """Return the arguments of train_space.py, which continue the training from its last checkpoint if there is one."""
    choices = job.choices
    words = of_choices(choices)
    if not choices.is_comparison and (job.folder / "runs" / choices.name / "recipe.json").is_file():
        words.append("--resume")  # a comparison resumes its unfinished run itself
    return words


def of_choices(choices: Choices) -> list[str]:
    """Return the arguments that start the training."""
    words = ["--compare", ",".join(choices.methods), "--seeds", str(choices.seeds)]
    if not choices.is_comparison:
        words = ["--method", choices.methods[0]]
    options = {
        "name": choices.name,
        "base-model": choices.base_model,
        "dataset": choices.file,
        "text-column": choices.text_column,
        "text-pair-column": choices.pair_column,
        "label-column": choices.label_column,
        "n-train": choices.rows,
        "n-test": TEST_ROWS,
        "epochs": choices.epochs,
    }
    for name, value in options.items():
        if value is not None:
            words.append(f"--{name}={value}")  # also a value that starts with a dash
    return words


def environment() -> dict[str, str]:
    """Return the trainer's environment: the app's cache, and a progress bar that does not fill the log."""
    return os.environ | {"ARENA_CACHE": str(files.cache_folder().absolute()), "TQDM_MININTERVAL": "10"}
