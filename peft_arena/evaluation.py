"""Metrics of an adapter as it is served: scores with intervals, calibration, slices, mistakes."""

import contextlib
import dataclasses
import hashlib
import json
import math
import time

import numpy
import pandas
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import confusion_matrix
from tqdm.auto import tqdm

from . import compute, machine
from .bases import cache_folder, sha256_of
from .data import Splits
from .engine import Engine
from .recipes import Recipe
from .results import Baseline, Bin, ClassMetrics, Evaluation, Example, Mistake, Results, Slice

EXCERPT = 100
"""Characters of a text that results and cards may show."""
_MISTAKES = 10
_DRAWS = 2000
_BINS = 15
_CHUNK = 512
_Z95 = 1.959963984540054


def evaluate(engine: Engine, name: str, splits: Splits, baseline: Baseline, share_texts: bool = False) -> Evaluation:
    """Score adapter `name` once on the test split; the temperature is fitted on the validation split.

    Excerpts of texts are recorded for public data, for local data only with `share_texts`.
    """
    engine.heat(name)  # as all but its first answers will be given
    validation = _logits(engine, name, splits.validation, "validation, as served")
    temperature = fit_temperature(validation, splits.validation["label"].to_numpy())
    start = time.perf_counter()
    logits = _logits(engine, name, splits.test, "test, as served")
    seconds = time.perf_counter() - start
    truth, probabilities = splits.test["label"].to_numpy(), softmax(logits / temperature, axis=1)
    correct, matrix = truth == logits.argmax(axis=1), _confusion(splits, logits)
    (precision, recall, f1), (low, high) = scores(matrix), bootstrap(matrix)
    rows = _rows(engine, name, splits, probabilities)
    shown = rows if share_texts or splits.facts.source in ("hub", "made") else rows.assign(text=None)
    return Evaluation(
        split="test",
        n=len(truth),
        served_as=engine.precision,
        compute=compute.name_of(engine.dtype),
        baseline=baseline,
        accuracy=float(correct.mean()),
        accuracy_ci95=list(wilson(int(correct.sum()), len(truth))),
        f1=float(f1[-1]),
        precision=float(precision[-1]),
        recall=float(recall[-1]),
        per_class={
            label: ClassMetrics(*map(float, (precision[i], recall[i], f1[i])), int(n), [low[2, i], high[2, i]])
            for i, (label, n) in enumerate(zip(splits.labels, matrix.sum(axis=1)))
        },
        confusion_matrix=matrix.tolist(),
        ece=expected_calibration_error(probabilities, truth),
        ece_uncalibrated=expected_calibration_error(softmax(logits, axis=1), truth),
        temperature=temperature,
        seconds=seconds,
        precision_ci95=[low[0, -1], high[0, -1]],
        recall_ci95=[low[1, -1], high[1, -1]],
        f1_ci95=[low[2, -1], high[2, -1]],
        mistakes=_mistakes(shown),
        examples=_examples(shown, splits.labels),
        slices=_slices(rows),
        reliability=reliability(probabilities, truth),
        correct=numpy.packbits(correct).tobytes().hex(),
        test_sha256=digest(splits),
    )


def measure_baseline(engine: Engine, splits: Splits, recipe: Recipe) -> Baseline:
    """Accuracy and macro F1 of the untrained base, its head drawn from the recipe's seed, on the test split.

    It is the same for every method, so it is measured once for each base, data, window and seed.
    """
    weights = engine.base.sha256 or sha256_of(engine.base.folder / "model.safetensors")
    key = json.dumps(
        [weights, digest(splits), splits.labels, recipe.max_length, recipe.seed, engine.precision, str(engine.dtype)]
    )
    path = cache_folder() / "baselines" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):  # not there, or damaged: it is measured
        return Baseline(**json.loads(path.read_text()))
    engine.add_untrained("untrained", splits.labels, recipe.seed, recipe.max_length)
    matrix = _confusion(splits, _logits(engine, "untrained", splits.test, "untrained baseline"))
    right, n = int(matrix.trace()), len(splits.test)
    found = Baseline(
        right / n,
        float(scores(matrix)[2, -1]),
        list(wilson(right, n)),
        bootstrap(matrix)[:, 2, -1].tolist(),
        matrix.tolist(),
    )
    machine.keep(path, json.dumps(dataclasses.asdict(found)))
    return found


def digest(splits: Splits) -> str:
    """sha256 of the test labels and texts, in order."""
    rows = (f"{splits.labels[label]}\t{text}" for label, text in zip(splits.test["label"], splits.test["text"]))
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).hexdigest()


def is_of(found: Results, splits: Splits) -> bool:
    """Whether the results were trained and measured on these very rows."""
    same = (found.dataset.revision, found.dataset.splits) == (splits.facts.revision, splits.facts.splits)
    return same and found.evaluation.test_sha256 in (None, digest(splits))


def _confusion(splits: Splits, logits: numpy.ndarray) -> numpy.ndarray:
    return confusion_matrix(splits.test["label"], logits.argmax(axis=1), labels=range(len(splits.labels)))


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


def scores(matrix: numpy.ndarray) -> numpy.ndarray:
    """Precision, recall and F1 of each class, and in the last column their macro means; shape (3, labels + 1).

    `matrix` is a confusion matrix, shape (labels, labels), rows the true classes. As in scikit-learn
    with zero_division=0: a ratio of nothing is 0, and a class that is neither true nor predicted
    anywhere does not count in the mean.
    """
    right, predicted, true = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
    each = numpy.stack([right, right, 2 * right]) / numpy.maximum([predicted, true, predicted + true], 1)
    return numpy.column_stack([each, each.sum(axis=1) / numpy.count_nonzero(predicted + true)])


def bootstrap(matrix: numpy.ndarray, seed: int = 0) -> numpy.ndarray:
    """95 % percentile intervals of `scores` over 2,000 draws of as many test rows; shape (2, 3, labels + 1).

    Rows drawn with replacement have a multinomial confusion matrix, so that is drawn instead
    (Efron & Tibshirani 1993, chapter 13).
    """
    rng, n = numpy.random.default_rng(seed), matrix.sum()
    draws = [scores(rng.multinomial(n, matrix.ravel() / n).reshape(matrix.shape)) for _ in range(_DRAWS)]
    return numpy.quantile(draws, (0.025, 0.975), axis=0)


def reliability(probabilities: numpy.ndarray, truth: numpy.ndarray) -> list[Bin]:
    """Accuracy in the 15 equal-width bins of the top label's probability, empty ones left out.

    `probabilities` has shape (n, labels), `truth` (n,).
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    bins = numpy.minimum((confidence * _BINS).astype(int), _BINS - 1)
    held = [bins == b for b in numpy.unique(bins)]
    return [Bin(float(confidence[rows].mean()), *_share(correct[rows]), int(rows.sum())) for rows in held]


def expected_calibration_error(probabilities: numpy.ndarray, truth: numpy.ndarray) -> float:
    """Mean gap between confidence and accuracy over the bins of `reliability`. Guo et al. 2017, arXiv:1706.04599."""
    return sum(b.n * abs(b.accuracy - b.confidence) for b in reliability(probabilities, truth)) / len(truth)


def _share(correct: numpy.ndarray) -> tuple[float, list[float]]:
    """Accuracy and its interval."""
    return float(correct.mean()), list(wilson(int(correct.sum()), len(correct)))


def _rows(engine: Engine, name: str, splits: Splits, probabilities: numpy.ndarray) -> pandas.DataFrame:
    """The test rows with what the adapter made of each: truth, predicted (names), confidence, tokens, truncated."""
    encoded, names = engine.encode(splits.test["text"].tolist(), name), numpy.array(splits.labels, dtype=object)
    return pandas.DataFrame(
        {
            "text": splits.test["text"],
            "truth": names[splits.test["label"]],
            "predicted": names[probabilities.argmax(axis=1)],
            "confidence": probabilities.max(axis=1),
            "tokens": [len(row.ids) for row in encoded],
            "truncated": [row.truncated for row in encoded],
        }
    )


def _mistakes(rows: pandas.DataFrame) -> list[Mistake]:
    """The ten most confident wrong answers."""
    wrong = rows[rows["truth"] != rows["predicted"]].sort_values("confidence", ascending=False, kind="stable")
    first = wrong[:_MISTAKES].to_dict("index")
    return [Mistake(int(i), **row | {"text": excerpt(row["text"])}) for i, row in first.items()]


def _examples(rows: pandas.DataFrame, labels: list[str]) -> dict[str, Example]:
    """For each label the most confidently right text of those that an excerpt holds whole, else the shortest one."""
    right = rows[rows["truth"] == rows["predicted"]]
    length = right["text"].fillna("").str.len().clip(lower=EXCERPT)
    best = right.assign(length=length).sort_values(["length", "confidence"], ascending=[True, False], kind="stable")
    best = best.drop_duplicates("truth").reset_index().set_index("truth")
    return {
        label: Example(int(best["index"][label]), excerpt(best["text"][label]), float(best["confidence"][label]))
        for label in labels
        if label in best.index
    }


def excerpt(text: str | None) -> str | None:
    """At most 100 characters of a text on one line, ending in … when cut; what cannot be printed becomes a space."""
    if text is None:
        return None
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1].rstrip() + "…"


def _slices(rows: pandas.DataFrame) -> list[Slice]:
    """Accuracy by length in quarters of the rows, by whether the window held the text, and by confidence."""
    tokens, correct = rows["tokens"].to_numpy(), (rows["truth"] == rows["predicted"]).to_numpy()
    _, quarter = numpy.unique(
        numpy.searchsorted(numpy.quantile(tokens, (0.25, 0.5, 0.75)), tokens), return_inverse=True
    )
    bounds = [f"{tokens[quarter == q].min()}–{tokens[quarter == q].max()}" for q in range(quarter.max() + 1)]
    level = numpy.digitize(rows["confidence"], (0.5, 0.7, 0.9, 0.97))
    parts = {
        "tokens": (quarter, bounds),
        "window": (rows["truncated"].to_numpy(int), ["read whole", "cut"]),
        "confidence": (level, ["below 50 %", "50–70 %", "70–90 %", "90–97 %", "97–100 %"]),
    }
    return [
        Slice(by, name, int((group == i).sum()), *_share(correct[group == i]))
        for by, (group, names) in parts.items()
        for i, name in enumerate(names)
        if (group == i).any()
    ]


def fit_temperature(logits: numpy.ndarray, truth: numpy.ndarray) -> float:
    """The number that logits are divided by for the least negative log-likelihood, between 0.05 and 20.

    Temperature scaling, Guo et al. 2017. It changes no prediction, only the confidence.
    """

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / math.exp(log_temperature), axis=1)[numpy.arange(len(truth)), truth].mean()

    return float(math.exp(minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded").x))
