"""Whether a difference between adapters is more than chance: paired tests on the same test texts."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import binomtest

from adapter_arena.results import Bin, Results, correct_rows


@dataclass(frozen=True)
class Difference:
    """`first` against `second` on the same `n` rows; `p` is Holm-corrected over all pairs compared with it."""

    first: str
    second: str
    n: int
    points: float
    """Accuracy of `first` less that of `second`, in percentage points."""
    p: float

    @property
    def significant(self) -> bool:
        """At the 5 % level over the whole family of pairs."""
        return self.p < 0.05


def mcnemar(first: numpy.ndarray, second: numpy.ndarray) -> float:
    """Exact two-sided p-value of McNemar's test; both are right-or-wrong of shape (n,) on the same rows.

    Only rows on which exactly one is right tell them apart. McNemar 1947; exact as in Dietterich 1998.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return float(binomtest(only_first, only_first + only_second).pvalue) if only_first + only_second else 1.0


def holm(p_values: list[float]) -> list[float]:
    """p-values corrected for testing all of them, in the same order. Holm 1979."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, most = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = most
    return corrected


def differences(found: dict[str, Results]) -> list[Difference]:
    """Every pair of adapters that was measured on the same test rows; those without row results are left out."""
    rows = {name: r.evaluation for name, r in found.items() if r.evaluation.correct and r.evaluation.test_sha256}
    pairs = [(a, b) for a, b in combinations(rows, 2) if rows[a].test_sha256 == rows[b].test_sha256]
    right = {name: correct_rows(evaluation) for name, evaluation in rows.items()}
    corrected = holm([mcnemar(right[a], right[b]) for a, b in pairs])
    return [
        Difference(a, b, rows[a].n, 100 * (right[a].mean() - right[b].mean()), p) for (a, b), p in zip(pairs, corrected)
    ]


def ece_by_chance(bins: list[Bin], draws: int = 2000) -> float:
    """The calibration error that a perfectly calibrated model of these confidences exceeds on one test set in twenty."""
    n, confidence = sum(b.n for b in bins), numpy.clip([b.confidence for b in bins], 0, 1)
    generator = numpy.random.default_rng(0)
    rows = generator.multinomial(n, [b.n / n for b in bins], draws)
    right = generator.binomial(rows, confidence)
    return float(numpy.quantile(numpy.abs(rows * confidence - right).sum(1) / n, 0.95))


_DRAWS = 2000


_BINS = 15


_Z95 = 1.959963984540054


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
    return [
        Bin(
            float(confidence[rows].mean()),
            float(correct[rows].mean()),
            list(wilson(int(correct[rows].sum()), int(rows.sum()))),
            int(rows.sum()),
        )
        for rows in held
    ]


def expected_calibration_error(probabilities: numpy.ndarray, truth: numpy.ndarray) -> float:
    """Mean gap between confidence and accuracy over the bins of `reliability`. Guo et al. 2017, arXiv:1706.04599."""
    return sum(b.n * abs(b.accuracy - b.confidence) for b in reliability(probabilities, truth)) / len(truth)


def fit_temperature(logits: numpy.ndarray, truth: numpy.ndarray) -> float:
    """The number that logits are divided by for the least negative log-likelihood, between 0.05 and 20.

    Temperature scaling, Guo et al. 2017. It changes no prediction, only the confidence.
    """

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / math.exp(log_temperature), axis=1)[numpy.arange(len(truth)), truth].mean()

    return float(math.exp(minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded").x))
