"""`runs/<name>`: what a run that is under way keeps, so that it can go on after whatever ended it.

- `lock`: held by the one process that trains into the folder.
- `recipe.json`, `data.json`: what it was started with; another recipe or other data cannot continue it.
- `checkpoint-N`: two at most. One is whole once it holds `whole.json`, which is written last.
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
from adapter_arena.recipe import Recipe

FOLDER = Path("runs")
_RECIPE, _DATA, _WHOLE, _LOCK = "recipe.json", "data.json", "whole.json", "lock"


@contextmanager
def held(recipe: Recipe, resume: bool) -> Iterator[Path]:
    """The run's folder, this process's alone until the block ends; removed when it ends without an error.

    Raises RecipeError where another process trains into it, and where `resume` does not fit what stands there.
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
            f"Another process is training into {folder}: wait for it, or give this run another --name."
        ) from None
    try:
        _open(recipe, folder, resume)
        yield folder
    finally:
        lock.release()
    shutil.rmtree(folder)


def _open(recipe: Recipe, folder: Path, resume: bool) -> None:
    saved, now = folder / _RECIPE, json.dumps(dataclasses.asdict(recipe), indent=2)
    if resume and saved.read_text() != now:
        before, after = json.loads(saved.read_text()), json.loads(now)
        changed = ", ".join(key for key in after if before.get(key) != after[key])
        raise RecipeError(
            f"Run {recipe.name} was started with another {changed}: resume with the same flags, or delete {folder}."
        )
    if not resume and last_checkpoint(folder):
        raise RecipeError(
            f"An unfinished run stands in {folder}: add --resume to continue it, or delete that folder to start again."
        )
    for path in folder.iterdir():
        is_cut = path.name.startswith("checkpoint-") and not (path / _WHOLE).is_file()
        if is_cut:
            shutil.rmtree(path)
        elif not resume and path.name != _LOCK:  # CodeCarbon would add to what an earlier run left, for example
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    files.write_atomic(saved, now)


def check_data(folder: Path, splits: Splits) -> None:
    """Keep what data the run was started with, or raise DataError when it goes on with others."""
    saved, facts = folder / _DATA, splits.facts
    now = {"id": facts.id, "revision": facts.revision, "splits": facts.splits}
    if not saved.is_file():
        files.write_atomic(saved, json.dumps(now))
    elif json.loads(saved.read_text()) != now:
        raise DataError(
            f"{facts.id} has changed since run {folder.name} was started: bring back what it was, "
            f"or delete {folder} to start again."
        )


def last_checkpoint(folder: Path) -> Path | None:
    """The youngest whole checkpoint of the run, if there is one."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{_WHOLE}")]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def make_whole(checkpoint: Path, facts: dict) -> None:
    """Say that the checkpoint can be resumed from, and what is to be known for that beside what the Trainer keeps."""
    files.write_atomic(checkpoint / _WHOLE, json.dumps(facts))


def known(checkpoint: Path) -> dict:
    """What `make_whole` was told."""
    return json.loads((checkpoint / _WHOLE).read_text())
