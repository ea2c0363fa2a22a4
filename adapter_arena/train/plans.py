"""The runs of a comparison: methods or recipes, each with several seeds and perhaps several numbers of training rows."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from adapter_arena.errors import RecipeError, unknown
from adapter_arena.models import methods
from adapter_arena.recipe import Recipe
from adapter_arena.train import recipes

_DEFAULT_SEED = 42
_FEWEST_STEPS = 100
"""Optimizer steps that a run on few rows takes at least: the usual epochs would be 2 steps for 16 rows, which is too
few to learn anything (Mosbach et al. 2021, arXiv:2006.04884)."""


def make(wanted: str, seeds: str, fields: dict) -> dict[str, list[Recipe]]:
    """Return a recipe for each seed of each method or recipe in `wanted`, a list separated by commas.

    `seeds` is the number of seeds, or one for each method; `fields` are those of the command line. Raises RecipeError.
    """
    names = _methods_and_recipes(wanted)
    counts = _seed_counts(seeds, len(names))
    fields = dict(fields)
    first_seed = fields.pop("seed", _DEFAULT_SEED)
    plan: dict[str, list[Recipe]] = {}
    for name, count in zip(names, counts):
        is_method = name in methods.METHODS
        plan[name] = []
        for seed in range(first_seed, first_seed + count):
            method = name if is_method else None
            file = None if is_method else recipes.local_file(name)
            recipe, _ = recipes.resolve(method, file, **fields, seed=seed)
            plan[name].append(dataclasses.replace(recipe, name=f"{recipe.name}-s{seed}"))
    return plan


def make_by_rows(
    wanted: str, seeds: str, fields: dict, row_counts: Sequence[int | str]
) -> list[dict[str, list[Recipe]]]:
    """Return a plan as from `make` for each number of training rows, ascending, which names its runs.

    Raises RecipeError, also for `streaming`, which reads other rows for each number.
    """
    plans = []
    for rows in sorted(row_counts, key=lambda rows: math.inf if rows == "all" else rows):
        plan = make(wanted, seeds, fields | {"n_train": rows})
        for name, runs in plan.items():
            if runs[0].streaming:
                raise RecipeError("--streaming reads other rows for each --n-train: give one number, or leave it out.")
            plan[name] = [_of_rows(recipe, rows, keep_epochs="epochs" in fields) for recipe in runs]
        plans.append(plan)
    return plans


def _of_rows(recipe: Recipe, rows: int | str, keep_epochs: bool) -> Recipe:
    """Return the recipe of a run on `rows` training rows, with that in its name and with enough epochs."""
    stem, _, seed = recipe.name.rpartition("-")
    renamed = dataclasses.replace(recipe, name=f"{stem}-{rows}-{seed}")
    if keep_epochs or rows == "all":
        return renamed
    steps_per_epoch = math.ceil(rows / recipe.batch_size)
    return dataclasses.replace(renamed, epochs=max(recipe.epochs, math.ceil(_FEWEST_STEPS / steps_per_epoch)))


def default_name(recipe: Recipe, suffixes: int) -> str:
    """Return the name of a comparison after its first run's, without the method and that many suffixes."""
    return recipe.name.rsplit("-", 1 + suffixes)[0]


def _methods_and_recipes(text: str) -> list[str]:
    """Return the different names in a list separated by commas. Raises RecipeError."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    known = [*methods.METHODS, *recipes.names()]
    problem = None
    if len(names) < 2:
        problem = "--compare needs at least two different methods, for example lora,ia3."
    for name in names:
        is_file = "/" in name or Path(name).suffix in recipes.SUFFIXES
        if name not in known and not is_file:
            problem = unknown("method or recipe", name, known)
    if problem:
        raise RecipeError(problem)
    return names


def _seed_counts(text: str, n: int) -> list[int]:
    """Return the number of seeds of each of the `n` methods. Raises RecipeError."""
    counts = [int(number) if number.strip().isdecimal() else 0 for number in text.split(",")]
    if len(counts) == 1:
        counts *= n
    if len(counts) != n or 0 in counts:
        raise RecipeError(f"--seeds {text} is neither one number from 1 up nor one for each of the {n} methods.")
    return counts
