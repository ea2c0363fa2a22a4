"""The summary of a comparison: each method over its seeds, with intervals, paired tests and costs."""

import dataclasses
import itertools
import math
import statistics
from collections import Counter
from dataclasses import dataclass, field

from scipy.stats import t as student_t

from adapter_arena import stats, tasks
from adapter_arena.errors import RecipeError
from adapter_arena.models import methods
from adapter_arena.results import Constant, Results, SimpleBaseline, score_of, untrained_score_of


@dataclass(frozen=True)
class SeedScores:
    """A metric of a method over its seeds."""

    values: list[float]
    mean: float
    ci95: list[float] | None
    """Student's t over seeds, how far another seed may be off; None for one seed."""
    test_ci95: list[float] | None
    """Over the test texts of the median seed, how far other texts may be off; None for a metric without an interval."""


@dataclass(frozen=True)
class Row:
    """A method over its seeds.

    Seconds are those of the fastest run, because other load on the machine only ever adds to them; memory and latency
    are medians.
    """

    name: str
    """The method or recipe that was compared."""
    method: str
    title: str
    seeds: list[int]
    scores: dict[str, SeedScores]
    """By metric, those of the task that are shown in tables."""
    ece_by_chance: float | None
    """The ECE that perfect calibration stays under on 95 % of test sets of this size (median seed); single-label only."""
    learning_rate: float
    trainable_params: int
    trainable_percent: float
    megabytes: float | None
    train_seconds: float
    samples_per_second: float
    device: str
    """The device on which these seconds were measured."""
    peak_memory_mb: float
    latency_ms: float | None
    """Median for one text, as served."""
    elsewhere: dict[str, float] = field(default_factory=dict)
    """Accuracy on other data sets that all runs were scored on, mean over the runs."""


@dataclass(frozen=True)
class Comparison:
    """The content of `comparison.json`; `differences` are between the methods' median seeds on the same test texts."""

    name: str
    task: str
    dataset: dict
    untrained: dict[str, float]
    """By metric, mean over the runs, since the head of the untrained base is drawn from each run's seed."""
    n_test: int
    rows: list[Row]
    differences: list[stats.Difference]
    environment: dict
    runs: dict[str, list[str]]
    baselines: dict[str, SimpleBaseline]
    """Baselines without fine-tuning, as in Evaluation; empty if no run has them."""
    constant: Constant | None
    """As in Evaluation."""

    @property
    def metric(self) -> tasks.Metric:
        """The metric that ranks the methods."""
        return tasks.TASKS[self.task].objective


def summarise(name: str, found: dict[str, list[Results]], latencies: dict[str, float]) -> Comparison:
    """Return the comparison of finished runs; `latencies` are milliseconds by adapter name, for adapters that were timed.

    Raises RecipeError if the runs were not trained and measured on the same rows.
    """
    _check_same_data(found)
    titles = titles_of(found)
    rows = []
    median_runs = {}
    names = {}
    for key, runs in found.items():
        rows.append(_row(key, titles[key], runs, latencies))
        median_runs[key] = median_run(runs)
        names[key] = [run.name for run in runs]
    first = next(iter(median_runs.values()))
    metric = tasks.of(first).objective
    return Comparison(
        name=name,
        task=first.task,
        dataset=dataclasses.asdict(first.dataset),
        untrained=_untrained(found),
        n_test=first.evaluation.n,
        rows=sorted(rows, key=lambda row: -row.scores[metric.name].mean),
        differences=sorted(stats.differences(median_runs, every_metric=True), key=lambda difference: difference.p),
        environment=first.environment,
        runs=names,
        baselines=_baselines(found),
        constant=first.evaluation.constant,
    )


def _untrained(found: dict[str, list[Results]]) -> dict[str, float]:
    """Return the mean score of the untrained base by metric, without metrics that are not measured for it."""
    means = {}
    all_runs = list(itertools.chain.from_iterable(found.values()))
    for metric in tasks.of(all_runs[0]).table_metrics:
        values = [untrained_score_of(run, metric)[0] for run in all_runs]
        if None not in values:
            means[metric.name] = statistics.fmean(values)
    return means


def _baselines(found: dict[str, list[Results]]) -> dict[str, SimpleBaseline]:
    """Return the baselines of the first run that has them: all runs share their data and base."""
    for runs in found.values():
        for run in runs:
            if run.evaluation.baselines:
                return run.evaluation.baselines
    return {}


def _check_same_data(found: dict[str, list[Results]]) -> None:
    first = next(iter(found.values()))[0]
    for runs in found.values():
        for run in runs:
            if _data_of(run) != _data_of(first):
                raise RecipeError(
                    f"{run.name} and {first.name} cannot be compared, since their data differ: "
                    "give both the same --n-train, --n-test and --data-seed."
                )


def _data_of(run: Results) -> tuple:
    return run.dataset.revision, run.dataset.splits, run.recipe.get("data_seed", 42), run.evaluation.test_sha256


def titles_of(found: dict[str, list[Results]]) -> dict[str, str]:
    """Return a title for each entry: the method's, with the entry's name if several entries use the method."""
    uses = Counter(runs[0].method for runs in found.values())
    titles = {}
    for name, runs in found.items():
        method = runs[0].method
        title = methods.METHODS[method].title
        titles[name] = title if uses[method] == 1 else f"{title} ({name})"
    return titles


def _row(name: str, title: str, runs: list[Results], latencies: dict[str, float]) -> Row:
    seeds = []
    peaks_mb = []
    for run in runs:
        seeds.append(run.recipe["seed"])
        peaks_mb.append(run.training.peak_memory_mb)
    timed = [latencies[run.name] for run in runs if run.name in latencies]
    typical = median_run(runs)
    bins = typical.evaluation.reliability
    fastest = max(runs, key=lambda run: run.training.samples_per_second)
    return Row(
        name=name,
        method=typical.method,
        title=title,
        seeds=seeds,
        scores=_scores(runs),
        ece_by_chance=stats.ece_by_chance(bins) if bins else None,
        learning_rate=typical.recipe["learning_rate"],
        trainable_params=typical.training.trainable_params,
        trainable_percent=typical.training.trainable_percent,
        megabytes=typical.megabytes,
        train_seconds=fastest.training.seconds,
        samples_per_second=fastest.training.samples_per_second,
        device=fastest.training.device,
        peak_memory_mb=statistics.median(peaks_mb),
        latency_ms=statistics.median(timed) if timed else None,
        elsewhere=_elsewhere(runs),
    )


def _scores(runs: list[Results]) -> dict[str, SeedScores]:
    typical = median_run(runs)
    found = {}
    for metric in tasks.of(typical).table_metrics:
        values = [score_of(run, metric)[0] for run in runs]
        _, test_ci95 = score_of(typical, metric)
        found[metric.name] = SeedScores(values, statistics.fmean(values), interval_over_seeds(values), test_ci95)
    return found


def _elsewhere(runs: list[Results]) -> dict[str, float]:
    """Return the mean accuracy on each data set that all runs were scored on."""
    means = {}
    for dataset in runs[0].out_of_domain:
        if all(dataset in run.out_of_domain for run in runs):
            means[dataset] = statistics.fmean(run.out_of_domain[dataset].accuracy for run in runs)
    return means


def median_run(runs: list[Results]) -> Results:
    """Return the run of median score, the lower of the two middle ones: typical, not chosen for its test score.

    The score is the one that ranks models of the task.
    """
    metric = tasks.of(runs[0]).objective
    by_score = sorted(runs, key=lambda run: score_of(run, metric)[0])
    return by_score[(len(runs) - 1) // 2]


def interval_over_seeds(values: list[float]) -> list[float] | None:
    """Return the 95 % interval of the mean over seeds by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    standard_error = statistics.stdev(values) / math.sqrt(len(values))
    half = student_t.ppf(0.975, len(values) - 1) * standard_error
    return [mean - half, mean + half]
