"""The folder `runs/<name>` of a training that is not finished, from which it can be resumed.

- `lock`: locked by the one process that trains in this folder.
- `recipe.json`, `data.json`: the recipe and the data of the training. It cannot be resumed with others.
- `best-N.safetensors`: the trained weights of the best evaluation, at step N, if the recipe has a metric.
- `progress.jsonl`: steps, losses and scores, see `adapter_arena.progress`.
- `checkpoint-N`: at most two. A checkpoint is complete if it contains `progress.json`, which is written last.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from adapter_arena import files
from adapter_arena.data.load import Splits
from adapter_arena.errors import DataError, RecipeError
from adapter_arena.recipe import DEFAULTS, Recipe

FOLDER = Path("runs")
_RECIPE = "recipe.json"
_DATA = "data.json"
_PROGRESS = "progress.json"
_LOCK = "lock"


@contextmanager
def run_folder(recipe: Recipe, resume: bool) -> Iterator[Path]:
    """Yield the run's folder, locked by this process; delete it if the block ends without an error.

    Raises RecipeError if another process uses the folder, or if there is nothing that `resume` can continue.
    """
    folder = FOLDER / recipe.name
    if resume and not (folder / _RECIPE).is_file():
        raise RecipeError(f"There is no unfinished run {recipe.name} to resume: leave --resume out to start it.")
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise RecipeError(
            f"Another process is training in {folder}: wait for it, or give this run another --name."
        ) from None
    try:
        problem = _recipe_problem(recipe, folder, resume)
        if problem:
            raise RecipeError(problem)
        _delete_leftovers(folder, resume)
        files.write_atomic(folder / _RECIPE, _to_json(recipe))
        yield folder
    finally:
        lock.release()
    shutil.rmtree(folder)


def _to_json(recipe: Recipe) -> str:
    return json.dumps(dataclasses.asdict(recipe), indent=2)


def _recipe_problem(recipe: Recipe, folder: Path, resume: bool) -> str | None:
    """Return why the folder's checkpoints cannot be resumed, or must be; None if the run can start."""
    if not resume:
        if last_checkpoint(folder):
            return f"There is an unfinished run in {folder}: add --resume to continue it, or delete that folder."
        return None
    saved = json.loads((folder / _RECIPE).read_text())
    current = json.loads(_to_json(recipe))
    saved = DEFAULTS | saved  # a run of an earlier version lacks later fields
    changed = [field for field in current if saved.get(field) != current[field]]
    if changed:
        return (
            f"Run {recipe.name} was started with another {', '.join(changed)}: resume with the same flags, or delete "
            f"{folder}."
        )
    return None


def _delete_leftovers(folder: Path, resume: bool) -> None:
    """Delete incomplete checkpoints and, for a new run, everything else that an earlier one left.

    CodeCarbon, for example, would append to its earlier file.
    """
    for path in folder.iterdir():
        if path.name == _LOCK:
            continue
        is_incomplete = path.name.startswith("checkpoint-") and not (path / _PROGRESS).is_file()
        if resume and not is_incomplete:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def check_data(folder: Path, splits: Splits) -> None:
    """Record the data of a new run. Raises DataError if a resumed run was started with other data."""
    path = folder / _DATA
    facts = splits.facts
    current = {"id": facts.id, "revision": facts.revision, "splits": facts.splits}
    if not path.is_file():
        files.write_atomic(path, json.dumps(current))
        return
    if json.loads(path.read_text()) != current:
        raise DataError(
            f"{facts.id} has changed since run {folder.name} was started: restore the earlier data, or delete {folder} "
            "to start again."
        )


def step_of(checkpoint: Path) -> int:
    """Return the number of the checkpoint's last step, from its folder's name."""
    return int(checkpoint.name.rpartition("-")[2])


def last_checkpoint(folder: Path) -> Path | None:
    """Return the run's latest complete checkpoint; None if there is none."""
    complete = [path.parent for path in folder.glob(f"checkpoint-*/{_PROGRESS}")]
    return max(complete, key=step_of, default=None)


def mark_complete(checkpoint: Path, progress: dict) -> None:
    """Mark the checkpoint as complete and store `progress`, which the Trainer itself does not save."""
    files.write_atomic(checkpoint / _PROGRESS, json.dumps(progress))


def read_progress(checkpoint: Path) -> dict:
    """Return the `progress` that `mark_complete` stored."""
    return json.loads((checkpoint / _PROGRESS).read_text())
