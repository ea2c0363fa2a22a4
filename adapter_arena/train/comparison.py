"""The summary of a comparison: each method over its seeds, with intervals, paired tests and costs."""

import dataclasses
import math
import statistics
from collections import Counter
from dataclasses import dataclass, field

from scipy.stats import t as student_t

from adapter_arena import stats
from adapter_arena.errors import RecipeError
from adapter_arena.models import methods
from adapter_arena.results import Results, SimpleBaseline


@dataclass(frozen=True)
class Row:
    """A method over its seeds.

    Accuracy, F1 and ECE are means with 95 % intervals. Seconds are those of the fastest run, because other load on
    the machine only ever adds to them; memory and latency are medians.
    """

    name: str
    """The method or recipe that was compared."""
    method: str
    title: str
    seeds: list[int]
    accuracies: list[float]
    accuracy: float
    accuracy_ci95: list[float] | None
    """Student's t over seeds, how far another seed may be off; None for one seed."""
    test_ci95: list[float]
    """Wilson over the test texts of the median seed, how far other texts may be off."""
    f1: float
    ece: float
    ece_by_chance: float | None
    """The ECE that perfect calibration stays under on 95 % of test sets of this size (median seed)."""
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
    dataset: dict
    baseline_accuracy: float
    """Mean over the runs, since the head of the untrained base is drawn from each run's seed."""
    n_test: int
    rows: list[Row]
    differences: list[stats.Difference]
    environment: dict
    runs: dict[str, list[str]]
    baselines: dict[str, SimpleBaseline]
    """Baselines without fine-tuning, as in Evaluation; empty if no run has them."""


def summarise(name: str, found: dict[str, list[Results]], latencies: dict[str, float]) -> Comparison:
    """Return the comparison of finished runs; `latencies` are milliseconds by adapter name, for adapters that were timed.

    Raises RecipeError if the runs were not trained and measured on the same rows.
    """
    _check_same_data(found)
    titles = titles_of(found)
    rows = []
    baselines = []
    median_runs = {}
    names = {}
    for key, runs in found.items():
        rows.append(_row(key, titles[key], runs, latencies))
        baselines.extend(run.evaluation.baseline.accuracy for run in runs)
        median_runs[key] = median_run(runs)
        names[key] = [run.name for run in runs]
    first = next(iter(median_runs.values()))
    return Comparison(
        name=name,
        dataset=dataclasses.asdict(first.dataset),
        baseline_accuracy=statistics.fmean(baselines),
        n_test=first.evaluation.n,
        rows=sorted(rows, key=lambda row: -row.accuracy),
        differences=sorted(stats.differences(median_runs), key=lambda difference: difference.p),
        environment=first.environment,
        runs=names,
        baselines=_baselines(found),
    )


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
    accuracies = []
    f1_scores = []
    calibration_errors = []
    peaks_mb = []
    for run in runs:
        seeds.append(run.recipe["seed"])
        accuracies.append(run.evaluation.accuracy)
        f1_scores.append(run.evaluation.f1)
        calibration_errors.append(run.evaluation.ece)
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
        accuracies=accuracies,
        accuracy=statistics.fmean(accuracies),
        accuracy_ci95=interval_over_seeds(accuracies),
        test_ci95=typical.evaluation.accuracy_ci95,
        f1=statistics.fmean(f1_scores),
        ece=statistics.fmean(calibration_errors),
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


def _elsewhere(runs: list[Results]) -> dict[str, float]:
    """Return the mean accuracy on each data set that all runs were scored on."""
    means = {}
    for dataset in runs[0].out_of_domain:
        if all(dataset in run.out_of_domain for run in runs):
            means[dataset] = statistics.fmean(run.out_of_domain[dataset].accuracy for run in runs)
    return means


def median_run(runs: list[Results]) -> Results:
    """Return the run of median accuracy, the lower of the two middle ones: typical, not chosen for its test score."""
    by_accuracy = sorted(runs, key=lambda run: run.evaluation.accuracy)
    return by_accuracy[(len(runs) - 1) // 2]


def interval_over_seeds(values: list[float]) -> list[float] | None:
    """Return the 95 % interval of the mean over seeds by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    standard_error = statistics.stdev(values) / math.sqrt(len(values))
    half = student_t.ppf(0.975, len(values) - 1) * standard_error
    return [mean - half, mean + half]
