"""Scores by number of training rows: each method and baseline on nested subsets of the training rows.

Every run is an ordinary adapter in `<folder>/adapters`, so an interrupted curve continues like a comparison.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy

from adapter_arena import machine, stats, tasks
from adapter_arena.adapters import plots, store
from adapter_arena.data import load
from adapter_arena.errors import RecipeError
from adapter_arena.files import explain_disk_errors
from adapter_arena.recipe import Recipe
from adapter_arena.results import BASELINE_TITLES, Results, SimpleBaseline, baseline_titles, score_in, score_of
from adapter_arena.train import baselines, compare, comparison
from adapter_arena.train.run import new_engine

FILE = "rows_curve.json"
_TEMPLATE = Path(__file__).with_name("rows_curve.md.jinja")
_SIGNIFICANT = 0.05

Plans = list[dict[str, list[Recipe]]]
"""A comparison for each number of training rows, ascending: one recipe a seed for each method or recipe name."""


@dataclass(frozen=True)
class Point:
    """A method or baseline after training on `rows` rows; scores of a method are means over its seeds."""

    key: str
    title: str
    rows: int
    scores: dict[str, float]
    """By metric, those that are shown in tables and were measured."""
    test_ci95: list[float]
    """Of the metric that ranks the task's models, over the test texts; that of a method's median seed."""
    seconds: float
    """Duration of a method's fastest training, or of everything that a baseline does."""
    note: str
    """What was trained: epochs and seeds of a method; of a baseline its C, and its rows if they are fewer."""


@dataclass(frozen=True)
class BaselineTest:
    """A method against the baseline that is best on the test texts after training on the same rows."""

    key: str
    title: str
    rows: int
    baseline: str
    points: float
    """As in stats.Difference: the metric of the method's median seed minus that of the baseline."""
    p: float
    """Holm-corrected over all tests."""

    @property
    def is_better(self) -> bool:
        """Whether the method is significantly better, at the 5 % level."""
        return self.points > 0 and self.p < _SIGNIFICANT


@dataclass(frozen=True)
class Curve:
    """The content of `rows_curve.json`."""

    name: str
    task: str
    dataset: str
    n_test: int
    points: list[Point]
    tests: list[BaselineTest]
    verdict: str
    """At which numbers of rows fine-tuning beats the best baseline, in a sentence."""
    environment: dict


def run(name: str, plans: Plans, folder: Path, share_texts: bool = False, trained: Path = store.FOLDER) -> Path:
    """Train the missing runs, measure the baselines and write the report to `folder`, which is returned.

    Finished runs are used as in `compare.run`. Raises ArenaError; finished runs are kept.
    """
    sizes = _sizes(plans)
    found = {}
    for size, recipes in sizes.items():
        places = compare.train_missing(recipes, folder / "adapters", trained, share_texts)
        found[size] = compare.results_of(recipes, places)
    if not machine.is_main_process():
        return folder
    curve = summarise(name, found, _measure_baselines(sizes))
    with explain_disk_errors("start the same comparison again"):
        write(curve, folder)
    return folder


def _sizes(plans: Plans) -> dict[int, dict[str, list[Recipe]]]:
    """Return the plans by their number of training rows. Raises RecipeError if the data have too few rows for one."""
    sizes = {}
    for recipes in plans:
        compare.check(recipes)
        recipe = next(iter(recipes.values()))[0]
        rows = len(load.load_splits(recipe).train)
        if (recipe.n_train is not None and rows < recipe.n_train) or rows in sizes:
            raise RecipeError(
                f"--n-train {recipe.n_train or 'all'}: {recipe.dataset} has only {rows:,} training rows: leave it out."
            )
        sizes[rows] = recipes
    return sizes


def _measure_baselines(sizes: dict[int, dict[str, list[Recipe]]]) -> dict[int, dict[str, SimpleBaseline]]:
    """Return the baselines by number of rows; those that the runs have measured are read from the cache."""
    measured = {}
    engine = None
    for size, recipes in sizes.items():
        recipe = next(iter(recipes.values()))[0]
        engine = engine or new_engine(recipe)
        measured[size] = baselines.measure(engine, load.load_splits(recipe), recipe)
    engine.close()
    return measured


def summarise(
    name: str, found: dict[int, dict[str, list[Results]]], measured: dict[int, dict[str, SimpleBaseline]]
) -> Curve:
    """Return the curve of finished runs and baselines by number of training rows.

    Raises RecipeError if they were not measured on the same test rows.
    """
    first = next(iter(next(iter(found.values())).values()))[0]
    task = tasks.of(first)
    points = []
    for size, runs_of in found.items():
        titles = comparison.titles_of(runs_of)
        for key, runs in runs_of.items():
            if any(run.evaluation.test_sha256 != first.evaluation.test_sha256 for run in runs):
                raise RecipeError(f"{runs[0].name} and {first.name} cannot be compared, since their test rows differ.")
            points.append(_method_point(key, titles[key], size, runs))
        for key, baseline in measured[size].items():
            points.append(_baseline_point(task, key, size, baseline))
    tests = _baseline_tests(found, measured)
    return Curve(
        name=name,
        task=task.name,
        dataset=first.dataset.id,
        n_test=first.evaluation.n,
        points=points,
        tests=tests,
        verdict=verdict(tests),
        environment=first.environment,
    )


def _method_point(key: str, title: str, size: int, runs: list[Results]) -> Point:
    typical = comparison.median_run(runs)
    task = tasks.of(typical)
    scores = {}
    for metric in task.table_metrics:
        scores[metric.name] = float(numpy.mean([score_of(run, metric)[0] for run in runs]))
    epochs = typical.recipe["epochs"]
    seeds = "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"
    return Point(
        key=key,
        title=title,
        rows=size,
        scores=scores,
        test_ci95=score_of(typical, task.objective)[1],
        seconds=min(run.training.seconds for run in runs),
        note=f"{epochs} {'epoch' if epochs == 1 else 'epochs'}, {seeds}",
    )


def _baseline_point(task: tasks.Task, key: str, size: int, baseline: SimpleBaseline) -> Point:
    notes = []
    if baseline.c is not None:
        notes.append(f"C {baseline.c:g}")
    if baseline.train_rows < size:
        notes.append(f"{baseline.train_rows:,} rows")
    scores = {metric.name: score_in(baseline, metric)[0] for metric in task.table_metrics}
    return Point(
        key=key,
        title=baseline_titles(task.name)[key],
        rows=size,
        scores={name: score for name, score in scores.items() if score is not None},
        test_ci95=score_in(baseline, task.objective)[1],
        seconds=baseline.seconds,
        note=", ".join(notes),
    )


def _baseline_tests(
    found: dict[int, dict[str, list[Results]]], measured: dict[int, dict[str, SimpleBaseline]]
) -> list[BaselineTest]:
    """Return the test of each method in the metric that ranks the task's models; none without baselines."""
    pending = []
    for size, runs_of in found.items():
        titles = comparison.titles_of(runs_of)
        for key, runs in runs_of.items():
            if measured[size]:
                pending.append(_baseline_test(key, titles[key], size, comparison.median_run(runs), measured[size]))
    p_values = stats.holm([test.p for test in pending])
    return [dataclasses.replace(test, p=p) for test, p in zip(pending, p_values)]


def _baseline_test(
    key: str, title: str, size: int, typical: Results, measured: dict[str, SimpleBaseline]
) -> BaselineTest:
    """Return the test of a method's median seed against the best baseline, with p not corrected."""
    metric = tasks.of(typical).objective
    best = max(measured, key=lambda name: score_in(measured[name], metric)[0])
    difference, *_ = stats.compare(stats.answers_of(typical), stats.answers_of(typical, measured[best]))
    name = baseline_titles(typical.task)[best]
    return BaselineTest(key, title, size, name, difference.points, difference.p)


def verdict(tests: list[BaselineTest]) -> str:
    """Return at which numbers of rows each method beats the best baseline, in one sentence."""
    if not tests:
        return "There is no baseline to compare fine-tuning with."
    by_method: dict[str, list[BaselineTest]] = {}
    for test in tests:
        by_method.setdefault(test.title, []).append(test)
    if not any(test.is_better for test in tests):
        return f"Fine-tuning with {', '.join(by_method)} never becomes significantly better than the best baseline."
    parts = [f"{title} {_where_better(of_method)}" for title, of_method in by_method.items()]
    return f"Fine-tuning is significantly better than the best baseline: {'; '.join(parts)}."


def _where_better(tests: list[BaselineTest]) -> str:
    """Return `from 256 training rows on`, `at 64, 256 training rows` if it is not with the most rows, or `never`."""
    start = _better_from(tests)
    if start is not None:
        return f"from {start:,} training rows on"
    sizes = sorted(test.rows for test in tests if test.is_better)
    if not sizes:
        return "never"
    return f"at {', '.join(f'{rows:,}' for rows in sizes)} training rows"


def _better_from(tests: list[BaselineTest]) -> int | None:
    """Return the smallest number of rows from which on the method is better; None if it is not with the most rows."""
    start = None
    for test in sorted(tests, key=lambda test: -test.rows):
        if not test.is_better:
            break
        start = test.rows
    return start


def write(curve: Curve, folder: Path) -> None:
    """Write rows_curve.json, report.md and a picture, for example accuracy_by_rows.png, to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(dataclasses.asdict(curve), indent=2, ensure_ascii=False)
    (folder / FILE).write_text(content + "\n", encoding="utf-8")
    task = tasks.TASKS[curve.task]
    picture = f"{task.objective.name}_by_rows.png"
    plots.write_rows_curve(curve.points, task.objective, list(BASELINE_TITLES), folder / picture)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(
        c=curve,
        metric=task.objective,
        others=_measured_for_all(task.table_metrics[1:], curve.points),
        is_single_label=task.name == tasks.SINGLE_LABEL,
        picture=picture,
        titles={point.key: point.title for point in curve.points},
        cells={(point.rows, point.key): point for point in curve.points},
        sizes=list(dict.fromkeys(point.rows for point in curve.points)),
    )
    (folder / "report.md").write_text(text, encoding="utf-8")


def _measured_for_all(metrics: list[tasks.Metric], points: list[Point]) -> list[tasks.Metric]:
    return [metric for metric in metrics if all(metric.name in point.scores for point in points)]
