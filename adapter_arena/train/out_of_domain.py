"""Evaluation on another data set than the adapter's own: how far its accuracy carries over to other texts."""

import dataclasses
from pathlib import Path

import numpy
from scipy.special import softmax
from sklearn.metrics import confusion_matrix

from adapter_arena import tasks
from adapter_arena.adapters import store
from adapter_arena.data import load, sources, summary
from adapter_arena.data.labels import LabelIndex
from adapter_arena.data.load import Splits
from adapter_arena.errors import DataError, RecipeError, shortened_list
from adapter_arena.models import bases
from adapter_arena.recipe import DATA_FIELDS, DEFAULTS, Recipe
from adapter_arena.results import OutOfDomain, Results
from adapter_arena.stats import bootstrap, expected_calibration_error, scores, wilson
from adapter_arena.train import evaluation, run

_FIXED_FIELDS = ("streaming", "n_train")
"""Fields that are reset, since nothing is trained."""


def find_other(found: Results, recipe: Recipe, fields: dict) -> Recipe | None:
    """Return the recipe that scores the adapter on another data set; None if `fields` name its own.

    `recipe` is the adapter's own, and `fields` are those that the user set. It is another data set if both its name and
    its content are others. A data set of the same name with other content has changed, which `run.measure_again`
    refuses. Raises ArenaError.
    """
    dataset = fields.get("dataset", recipe.dataset)
    if _short_name(dataset) != _short_name(found.dataset.id):
        reset = {name: DEFAULTS[name] for name in (*DATA_FIELDS, *_FIXED_FIELDS)}
        other = dataclasses.replace(recipe, **(reset | fields))
        if sources.find(other).facts.revision != found.dataset.revision:
            return other
    for name in DATA_FIELDS:
        if name in fields:
            raise RecipeError(
                f"--{name.replace('_', '-')} has no effect with --evaluate on the adapter's own data, "
                f"{found.dataset.id}: leave it out, or name another data set with --dataset."
            )
    return None


def _short_name(dataset: str) -> str:
    """Return the name that `stanfordnlp/imdb`, a folder IMDb and a file imdb.csv have in common."""
    path = Path(dataset)
    if path.exists():
        path = path.resolve()
    return path.name.partition(".")[0].casefold()


def measure(name: str, recipe: Recipe, output_dir: Path = store.FOLDER) -> tuple[str, OutOfDomain]:
    """Score the adapter `output_dir/name` on the test split of the recipe's data; return the data's id and the scores.

    The scores are added to its results and its card. Its own evaluation stays as it is, and its temperature is used.
    Raises ArenaError, also if the data have a label that the adapter has not.
    """
    folder = output_dir / name
    adapter = store.read(folder, bases.find(recipe.base_model))
    found = adapter.results
    if found.task != tasks.SINGLE_LABEL:
        raise RecipeError(
            f"{name} is a {found.task} adapter: only single-label ones can be scored on another data set."
        )
    splits = load.load_splits(recipe)
    if splits.task != tasks.SINGLE_LABEL:
        raise DataError(
            f"{splits.facts.id} is read as {splits.task} data, but {name} is a single-label adapter: add --task "
            "single-label, or name another --label-column."
        )
    print("\n".join(summary.lines(splits)), flush=True)
    truth = _true_labels(splits, found)
    engine = run.new_engine(recipe)
    engine.add(adapter)
    logits = evaluation.served_logits(engine, name, splits)
    measured = _score(logits / found.evaluation.temperature, truth, splits)
    engine.close()
    found.out_of_domain[splits.facts.id] = measured
    run.replace_results(found, folder)
    return splits.facts.id, measured


def _true_labels(splits: Splits, found: Results) -> numpy.ndarray:
    """Return the index of the adapter's label of each test row. Raises DataError if a label is not the adapter's."""
    index = LabelIndex(found.labels)
    names = [index.find(label) for label in splits.labels]
    unknown_labels = [label for label, name in zip(splits.labels, names) if name is None]
    if unknown_labels:
        raise DataError(
            f"{splits.facts.id} has the labels {shortened_list(unknown_labels)}, which are not among those of "
            f"{found.name} ({shortened_list(found.labels)}): name one of them for each value, for example "
            f"--label-names {unknown_labels[0]}={found.labels[0]}."
        )
    numbers = numpy.array([found.labels.index(name) for name in names])
    return numbers[splits.test["label"].to_numpy()]


def _score(scaled_logits: numpy.ndarray, truth: numpy.ndarray, splits: Splits) -> OutOfDomain:
    n, n_labels = scaled_logits.shape
    predicted = scaled_logits.argmax(axis=1)
    right = int((predicted == truth).sum())
    matrix = confusion_matrix(truth, predicted, labels=range(n_labels))
    _, _, f1 = scores(matrix)
    low, high = bootstrap(matrix)[:, 2, -1].tolist()
    return OutOfDomain(
        n=n,
        accuracy=right / n,
        accuracy_ci95=list(wilson(right, n)),
        f1=float(f1[-1]),
        f1_ci95=[low, high],
        ece=expected_calibration_error(softmax(scaled_logits, axis=1), truth),
        revision=splits.facts.revision,
        test_sha256=evaluation.digest(splits),
        measured_at=run.utc_now(),
    )


def describe(found: Results, dataset: str, measured: OutOfDomain) -> str:
    """Return the scores in a line for the user."""
    low, high = measured.accuracy_ci95
    return (
        f"{found.name} on {dataset}: accuracy {measured.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}), macro F1 "
        f"{measured.f1:.3f}, ECE {measured.ece:.3f} on {measured.n:,} texts; on its own data {found.dataset.id}: "
        f"accuracy {found.evaluation.accuracy:.1%}"
    )
