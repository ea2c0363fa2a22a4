"""Metrics of an adapter as it is served: accuracy with interval, F1, calibration, confusion."""

import dataclasses
import hashlib
import json
import math
import time

import numpy
import pandas
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support
from tqdm.auto import tqdm

from .bases import cache_folder, sha256_of
from .data import Splits
from .engine import Engine
from .recipes import Recipe
from .results import Baseline, ClassMetrics, Evaluation

_BINS = 15
_CHUNK = 512
_Z95 = 1.959963984540054


def evaluate(engine: Engine, name: str, splits: Splits, baseline: Baseline) -> Evaluation:
    """Score adapter `name` once on the test split; the temperature is fitted on the validation split."""
    validation = _logits(engine, name, splits.validation, "validation, as served")
    temperature = fit_temperature(validation, splits.validation["label"].to_numpy())
    start = time.perf_counter()
    logits = _logits(engine, name, splits.test, "test, as served")
    seconds = time.perf_counter() - start
    truth, predicted = splits.test["label"].to_numpy(), logits.argmax(axis=1)
    ids = list(range(len(splits.labels)))
    columns = precision_recall_fscore_support(truth, predicted, labels=ids, zero_division=0)
    per_class = {
        label: ClassMetrics(float(p), float(r), float(f), int(n)) for label, p, r, f, n in zip(splits.labels, *columns)
    }
    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, average="macro", zero_division=0)
    correct = int((truth == predicted).sum())
    return Evaluation(
        split="test",
        n=len(truth),
        served_as=engine.precision,
        baseline=baseline,
        accuracy=correct / len(truth),
        accuracy_ci95=list(wilson(correct, len(truth))),
        f1=float(f1),
        precision=float(precision),
        recall=float(recall),
        per_class=per_class,
        confusion_matrix=confusion_matrix(truth, predicted, labels=ids).tolist(),
        ece=expected_calibration_error(softmax(logits / temperature, axis=1), truth),
        ece_uncalibrated=expected_calibration_error(softmax(logits, axis=1), truth),
        temperature=temperature,
        seconds=seconds,
    )


def measure_baseline(engine: Engine, splits: Splits, recipe: Recipe) -> Baseline:
    """Accuracy and macro F1 of the untrained base, its head drawn from the recipe's seed, on the test split.

    It is the same for every method, so it is measured once for each base, data, window and seed.
    """
    weights = engine.base.sha256 or sha256_of(engine.base.folder / "model.safetensors")
    digest = hashlib.sha256("\n".join(splits.test["text"]).encode("utf-8", "surrogatepass")).hexdigest()
    key = json.dumps([weights, digest, splits.labels, recipe.max_length, recipe.seed, engine.precision])
    path = cache_folder() / "baselines" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if path.is_file():
        return Baseline(**json.loads(path.read_text()))
    engine.add_untrained("untrained", splits.labels, recipe.seed, recipe.max_length)
    predicted = _logits(engine, "untrained", splits.test, "untrained baseline").argmax(axis=1)
    truth = splits.test["label"]
    found = Baseline(float(accuracy_score(truth, predicted)), float(f1_score(truth, predicted, average="macro")))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(found)))
    return found


def _logits(engine: Engine, name: str, frame: pandas.DataFrame, what: str) -> numpy.ndarray:
    """Raw logits in the order of `frame`, shape (rows, labels), with a bar while it takes."""
    texts = frame["text"].tolist()
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # like lengths share a batch
    chunks = [order[i : i + _CHUNK] for i in range(0, len(order), _CHUNK)]
    logits = numpy.empty((len(texts), len(engine.logits(texts[:1], name)[0])))
    with tqdm(total=len(texts), desc=what, unit="text", dynamic_ncols=True) as bar:
        for chunk in chunks:
            logits[chunk] = engine.logits([texts[i] for i in chunk], name).numpy()
            bar.update(len(chunk))
    return logits


def wilson(correct: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); unlike the normal one it stays inside [0, 1]."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = correct / n, _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def expected_calibration_error(probabilities: numpy.ndarray, truth: numpy.ndarray) -> float:
    """Mean gap between confidence and accuracy over 15 equal-width bins of the top label's probability.

    `probabilities` has shape (n, labels), `truth` (n,). Guo et al. 2017, arXiv:1706.04599.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    bins = numpy.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs(correct[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).sum() for b in set(bins)]
    return float(sum(gaps) / len(truth))


def fit_temperature(logits: numpy.ndarray, truth: numpy.ndarray) -> float:
    """The number that logits are divided by for the least negative log-likelihood, between 0.05 and 20.

    Temperature scaling, Guo et al. 2017. It changes no prediction, only the confidence.
    """

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / math.exp(log_temperature), axis=1)[numpy.arange(len(truth)), truth].mean()

    return float(math.exp(minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded").x))
