"""Compare methods: train each with several seeds on the same data and budget, and write a report.

Every run is an ordinary adapter in `<folder>/adapters`. A comparison that is started again after an interruption
keeps the finished runs and resumes the unfinished one, so its numbers are those of an uninterrupted one. A run of
the same recipe among the shipped adapters is used instead of training it again.
"""

import dataclasses
import itertools
import json
from pathlib import Path

from adapter_arena import machine, results, stats
from adapter_arena.adapters import store
from adapter_arena.data import load
from adapter_arena.errors import RecipeError
from adapter_arena.files import explain_disk_errors
from adapter_arena.models import bases
from adapter_arena.recipe import DEFAULTS, Recipe, with_current_names
from adapter_arena.results import Results
from adapter_arena.serve import timing
from adapter_arena.serve.engine import Engine
from adapter_arena.train import checkpoints, comparison, evaluation, report
from adapter_arena.train.run import check_task, train, without_paths

_SHARED_FIELDS = ("base_model", "dataset", "text_column", "label_column", "label_names", "streaming", "data_seed")
_SHARED_FIELDS += ("n_train", "n_validation", "n_test", "text_pair_column", "task")
"""Recipe fields that all runs of a comparison share."""
_TIMED_ROUNDS = 20


def run(
    name: str,
    recipes: dict[str, list[Recipe]],
    folder: Path,
    share_texts: bool = False,
    trained: Path = store.FOLDER,
) -> Path:
    """Train the missing runs, compare all of them and write the report to `folder`, which is returned.

    `recipes` has one recipe a seed for each method or recipe name. Finished runs on the same rows are used from
    `folder` and from the adapters in `trained`. Raises ArenaError; finished runs are kept.
    """
    check(recipes)
    places = train_missing(recipes, folder / "adapters", trained, share_texts)
    if not machine.is_main_process():  # only the first process measures latencies and writes the report
        return folder
    found = results_of(recipes, places)
    base = bases.find(next(iter(recipes.values()))[0].base_model)
    summary = comparison.summarise(name, found, _measure_latencies(base, list(places.values())))
    with explain_disk_errors("start the same comparison again"):
        report.write(summary, found, folder)
    return folder


def check(recipes: dict[str, list[Recipe]]) -> None:
    """Raise RecipeError, before anything is trained, for recipes that cannot be compared."""
    first, *others = itertools.chain.from_iterable(recipes.values())
    names = {first.name}
    for recipe in others:
        if recipe.name in names:
            raise RecipeError(f"--compare names the same recipe twice, as {recipe.name}: remove one.")
        names.add(recipe.name)
        for field in _SHARED_FIELDS:
            value = getattr(recipe, field)
            expected = getattr(first, field)
            if value != expected:
                raise RecipeError(
                    f"{first.name} and {recipe.name} cannot be compared, since their {field} differs "
                    f"({expected} and {value}): give both the same, with a flag or in their files."
                )


def train_missing(
    recipes: dict[str, list[Recipe]], adapters: Path, trained: Path, share_texts: bool
) -> dict[str, Path]:
    """Return the adapter folder of each recipe by the recipe's name; those that do not exist yet are trained.

    New ones are written to `adapters`; one in `trained` is used instead, see `run`. Raises ArenaError.
    """
    plan = list(itertools.chain.from_iterable(recipes.values()))
    splits = load.load_splits(plan[0])
    for recipe in plan:
        check_task(recipe, splits)
    places = {}
    for number, recipe in enumerate(plan, 1):
        progress = f"[{number}/{len(plan)}] {recipe.name}"
        finished = _finished_run(recipe, splits, adapters / recipe.name, trained)
        if finished:
            print(f"{progress}: finished before, in {finished}", flush=True)
            places[recipe.name] = finished
        else:
            print(progress, flush=True)
            resume = checkpoints.last_checkpoint(checkpoints.FOLDER / recipe.name) is not None
            places[recipe.name] = train(recipe, adapters, resume=resume, share_texts=share_texts)
    return places


def results_of(recipes: dict[str, list[Recipe]], places: dict[str, Path]) -> dict[str, list[Results]]:
    """Return the results of the trained recipes by the key in `recipes`, in the order of the seeds."""
    found = {}
    for key, seeds in recipes.items():
        found[key] = [results.read(places[recipe.name]) for recipe in seeds]
    return found


def _finished_run(recipe: Recipe, splits: load.Splits, own: Path, trained: Path) -> Path | None:
    """Return the folder with results of exactly this recipe and data: `own`, or one in `trained` under any name.

    Raises RecipeError if `own` has results of another recipe or other data.
    """
    found = results.read(own) if own.is_dir() else None
    if found:
        difference = _difference(recipe, found, splits)
        if difference:
            raise RecipeError(f"{own} contains a run {difference}: choose another --name, or delete that folder.")
        return own
    for folder in store.folders(trained):
        found = results.read(folder)
        if found and stats.answers_of(found):  # without recorded answers it cannot be tested
            renamed = dataclasses.replace(recipe, name=found.recipe["name"])
            if not _difference(renamed, found, splits):
                return folder
    return None


def _difference(recipe: Recipe, found: Results, splits: load.Splits) -> str | None:
    """Return how a finished run differs from the recipe and its data, or None if it does not."""
    wanted = dataclasses.asdict(recipe) | without_paths(recipe)
    wanted = json.loads(json.dumps(wanted))  # results.json has strings as keys of label_names
    recorded = with_current_names(found.recipe)
    changed = []
    for field, value in wanted.items():
        if recorded.get(field, DEFAULTS.get(field)) != value:  # older results lack fields added since
            changed.append(field)
    if changed:
        return f"with another {', '.join(changed)}"
    if not evaluation.is_of(found, splits):
        return f"on other rows than {recipe.dataset} has now"
    return None


def _measure_latencies(base: bases.Base, folders: list[Path]) -> dict[str, float]:
    """Return the median milliseconds for one text by adapter name, served by one engine."""
    engine = Engine(base)
    adapters = [engine.add_folder(folder) for folder in folders]
    texts = {adapter.name: timing.text_for(adapter) for adapter in adapters}
    latencies = timing.measure_latency(lambda name: engine.predict([texts[name]], name), texts, _TIMED_ROUNDS)
    engine.close()
    return latencies
