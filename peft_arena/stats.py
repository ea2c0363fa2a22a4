"""Whether a difference between adapters is more than chance: paired tests on the same test texts."""

from dataclasses import dataclass
from itertools import combinations

import numpy
from scipy.stats import binomtest

from .results import Bin, Results, correct_rows


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
