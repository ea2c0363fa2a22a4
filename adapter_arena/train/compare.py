"""Compare methods: same data, same budget, several seeds; intervals, paired tests, cost beside quality.

Every run is an ordinary adapter under `<folder>/adapters`. Started again after an interruption,
finished runs are kept and the broken one is resumed, so the numbers are those of an undisturbed one.
A run that stands among the shipped adapters already, by the same recipe, is taken from there.
"""

import dataclasses
import json
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import jinja2
from scipy.stats import t as student_t

from adapter_arena import machine, results, stats
from adapter_arena.adapters import plots, store
from adapter_arena.data import load
from adapter_arena.errors import RecipeError
from adapter_arena.files import explain_disk_errors
from adapter_arena.models import bases, methods
from adapter_arena.recipe import DEFAULTS, Recipe, with_current_names
from adapter_arena.results import Results
from adapter_arena.serve.engine import Engine
from adapter_arena.train import evaluation, runs, training

FILE = "comparison.json"
_TEMPLATE = Path(__file__).with_name("comparison.md.jinja")
_TIMED = 20
_DATA = ("base_model", "dataset", "text_column", "label_column", "label_names", "streaming", "data_seed")
_DATA += ("n_train", "n_validation", "n_test")


@dataclass(frozen=True)
class Row:
    """A method over its seeds; means with 95 % intervals over seeds (None for one seed), seconds of the fastest run.

    What else a machine does only ever adds to the seconds, and not to every run alike; memory and latency are medians.
    """

    name: str
    """What was asked for: a method or a recipe."""
    method: str
    title: str
    seeds: list[int]
    accuracies: list[float]
    accuracy: float
    accuracy_ci95: list[float] | None
    """Student's t over seeds: how far another seed would land."""
    test_ci95: list[float]
    """Wilson over the test texts of the median seed: how far other texts would land."""
    f1: float
    ece: float
    ece_by_chance: float | None
    """What perfect calibration stays under on 95 % of test sets of this size (median seed)."""
    learning_rate: float
    trainable_params: int
    trainable_percent: float
    megabytes: float | None
    train_seconds: float
    samples_per_second: float
    device: str
    """What these seconds were taken on."""
    peak_memory_mb: float
    latency_ms: float | None
    """Median for one test text, as served."""


@dataclass(frozen=True)
class Comparison:
    """What `comparison.json` holds; `differences` are between the methods' median seeds on the same test texts."""

    name: str
    dataset: dict
    baseline_accuracy: float
    """Mean over the runs: its head is drawn by each one's seed."""
    n_test: int
    rows: list[Row]
    differences: list[stats.Difference]
    environment: dict
    runs: dict[str, list[str]]


def run(
    name: str,
    recipes: dict[str, list[Recipe]],
    folder: Path,
    share_texts: bool = False,
    trained: Path = store.FOLDER,
) -> Path:
    """Train what is missing of `recipes` (name -> one recipe a seed), compare, write report and pictures to `folder`.

    Finished runs on the same rows are looked for in `folder` and among the adapters of `trained`. Raises
    ArenaError; what is finished stays.
    """
    check(recipes)
    adapters = folder / "adapters"
    plan = [recipe for seeds in recipes.values() for recipe in seeds]
    places, splits = {}, load.load_splits(plan[0])
    for number, recipe in enumerate(plan, 1):
        places[recipe.name] = _finished(recipe, splits, adapters / recipe.name, trained)
        if places[recipe.name]:
            print(f"[{number}/{len(plan)}] {recipe.name}: finished before, in {places[recipe.name]}", flush=True)
            continue
        print(f"[{number}/{len(plan)}] {recipe.name}", flush=True)
        unfinished = runs.last_checkpoint(runs.FOLDER / recipe.name) is not None
        places[recipe.name] = training.run(recipe, adapters, resume=unfinished, share_texts=share_texts)
    if not machine.is_first():  # the last run is measured and the report written by the first process
        return folder
    found = {name: [_read(places[r.name]) for r in seeds] for name, seeds in recipes.items()}
    comparison = summarise(name, found, _latencies(list(places.values())))
    with explain_disk_errors("start the same comparison again"):
        write(comparison, found, folder)
    return folder


def check(recipes: dict[str, list[Recipe]]) -> None:
    """Raise RecipeError, before anything is trained, for recipes that cannot be compared."""
    plan = [recipe for seeds in recipes.values() for recipe in seeds]
    first = plan[0]
    for i, recipe in enumerate(plan):
        if recipe.name in [other.name for other in plan[:i]]:
            raise RecipeError(f"--compare names the same recipe twice, as {recipe.name}: leave one out.")
        for key in _DATA:
            if getattr(recipe, key) != getattr(first, key):
                raise RecipeError(
                    f"{first.name} and {recipe.name} cannot be compared, since their {key} differs "
                    f"({getattr(first, key)} and {getattr(recipe, key)}): give both the same, with a flag or in their files."
                )


def _finished(recipe: Recipe, splits: load.Splits, own: Path, trained: Path) -> Path | None:
    """The folder that holds the results of this very recipe and data. Raises RecipeError when `own` holds others."""
    if own.is_dir() and (found := results.read(own)):
        if changed := _changed(recipe, found, {}):
            raise RecipeError(
                f"{own} holds a run with another {', '.join(changed)}: name another --name, or delete that folder."
            )
        if not evaluation.is_of(found, splits):
            raise RecipeError(
                f"{own} holds a run on other rows than {recipe.dataset} has now: name another --name, or delete that folder."
            )
        return own
    for folder in store.folders(trained):
        found = results.read(folder)
        is_same = found and found.evaluation.correct and not _changed(recipe, found, {"name": found.recipe["name"]})
        if is_same and evaluation.is_of(found, splits):
            return folder
    return None


def _changed(recipe: Recipe, found: Results, apart_from: dict) -> list[str]:
    """Fields of the recipe that the results were not made with; what older ones do not name had the default."""
    wanted = dataclasses.asdict(recipe) | training.without_paths(recipe) | apart_from
    wanted = json.loads(json.dumps(wanted))  # as results.json gives it back: keys of label_names are strings there
    recorded = with_current_names(found.recipe)
    return [key for key, value in wanted.items() if recorded.get(key, DEFAULTS.get(key)) != value]


def _read(folder: Path) -> Results:
    found = results.read(folder)
    if found is None:
        raise RecipeError(f"{folder} has no {results.FILE}: delete that folder and start the comparison again.")
    return found


def median_run(found: list[Results]) -> Results:
    """The run of median accuracy (the lower of the two middle ones): typical, not chosen for its test score."""
    return sorted(found, key=lambda r: r.evaluation.accuracy)[(len(found) - 1) // 2]


def summarise(name: str, found: dict[str, list[Results]], latencies: dict[str, float]) -> Comparison:
    """The comparison of finished runs; `latencies` are milliseconds by adapter name, of those whose weights are there.

    Raises RecipeError when they were not trained and measured on the same rows.
    """
    all_runs = [r for runs in found.values() for r in runs]
    for r in all_runs[1:]:
        if _data_of(r) != _data_of(all_runs[0]):
            raise RecipeError(
                f"{r.name} and {all_runs[0].name} do not share their data, so they cannot be compared: "
                "give both the same --n-train, --n-test and --data-seed."
            )
    typical = {method: median_run(runs) for method, runs in found.items()}
    first = next(iter(typical.values()))
    return Comparison(
        name=name,
        dataset=dataclasses.asdict(first.dataset),
        baseline_accuracy=statistics.fmean(r.evaluation.baseline.accuracy for r in all_runs),
        n_test=first.evaluation.n,
        rows=sorted((_row(name, found, latencies) for name in found), key=lambda row: -row.accuracy),
        differences=sorted(stats.differences(typical), key=lambda d: d.p),
        environment=first.environment,
        runs={method: [r.name for r in runs] for method, runs in found.items()},
    )


def _data_of(r: Results) -> tuple:
    return r.dataset.revision, r.dataset.splits, r.recipe.get("data_seed", 42), r.evaluation.test_sha256


def _row(name: str, found: dict[str, list[Results]], latencies: dict[str, float]) -> Row:
    runs = found[name]
    is_alone = sum(others[0].method == runs[0].method for others in found.values()) == 1
    title = methods.METHODS[runs[0].method].title
    accuracies = [r.evaluation.accuracy for r in runs]
    typical = median_run(runs)
    fastest = max(runs, key=lambda r: r.training.samples_per_second)
    timed = [latencies[r.name] for r in runs if r.name in latencies]
    return Row(
        name=name,
        method=runs[0].method,
        title=title if is_alone else f"{title} ({name})",
        seeds=[r.recipe["seed"] for r in runs],
        accuracies=accuracies,
        accuracy=statistics.fmean(accuracies),
        accuracy_ci95=over_seeds(accuracies),
        test_ci95=typical.evaluation.accuracy_ci95,
        f1=statistics.fmean(r.evaluation.f1 for r in runs),
        ece=statistics.fmean(r.evaluation.ece for r in runs),
        ece_by_chance=stats.ece_by_chance(typical.evaluation.reliability) if typical.evaluation.reliability else None,
        learning_rate=typical.recipe["learning_rate"],
        trainable_params=typical.training.trainable_params,
        trainable_percent=typical.training.trainable_percent,
        megabytes=typical.megabytes,
        train_seconds=fastest.training.seconds,
        samples_per_second=fastest.training.samples_per_second,
        device=fastest.training.device,
        peak_memory_mb=statistics.median(r.training.peak_memory_mb for r in runs),
        latency_ms=statistics.median(timed) if timed else None,
    )


def _budget(recipe: dict) -> str:
    epochs = f"{recipe['epochs']} epoch{'s' if recipe['epochs'] != 1 else ''}"
    return f"{epochs}, batch {recipe['batch_size']}, served on the 4-bit base at {recipe['max_length']} tokens"


def over_seeds(values: list[float]) -> list[float] | None:
    """95 % interval of the mean over seeds by Student's t; None for fewer than two."""
    if len(values) < 2:
        return None
    half = student_t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return [statistics.fmean(values) - half, statistics.fmean(values) + half]


def _latencies(folders: list[Path]) -> dict[str, float]:
    """Median milliseconds for one text of 60 words with each adapter, in turns, on one engine."""
    runs = {folder: _read(folder) for folder in folders}
    base_id = runs[folders[0]].base_model.id
    if base_id not in bases.BASES:  # a local folder is known by its name only
        return {}
    engine = Engine(bases.find(base_id))
    for folder in folders:
        engine.add_folder(folder)
    text = " ".join(["the film takes its time but it stays with you"] * 6)
    seconds: dict[str, list[float]] = {r.name: [] for r in runs.values()}
    for turn in range(_TIMED + 1):
        for name, times in seconds.items():
            start = time.perf_counter()
            engine.predict([text], name)
            if turn:  # the first turn warms caches up
                times.append(time.perf_counter() - start)
    engine.close()
    return {name: 1000 * statistics.median(times) for name, times in seconds.items()}


def write(comparison: Comparison, found: dict[str, list[Results]], folder: Path) -> None:
    """comparison.json, report.md and its pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(dataclasses.asdict(comparison), indent=2, ensure_ascii=False)
    (folder / FILE).write_text(content + "\n", encoding="utf-8")
    plots.write_comparison(comparison.rows, comparison.baseline_accuracy, found, folder)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        c=comparison,
        pct=lambda share: f"{100 * share:.2f}",
        titles={row.name: row.title for row in comparison.rows},
        machines=results.machines({row.title: row.device for row in comparison.rows}),
        budgets={row.title: _budget(found[row.name][0].recipe) for row in comparison.rows},
    )
    (folder / "report.md").write_text(page, encoding="utf-8")
