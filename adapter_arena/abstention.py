"""Abstaining from answers of low confidence: how many texts are answered, and how many of these answers are right."""

import math

import numpy

from adapter_arena.results import Coverage
from adapter_arena.stats import wilson

_STEPS = 20
"""Number of points of a curve."""
_SHOWN = (1.0, 0.95, 0.9, 0.8, 0.5)
"""Shares of the texts in the short table of a card."""


def curve(confidence: numpy.ndarray, correct: numpy.ndarray) -> list[Coverage]:
    """Return the accuracy of the most confident 100 %, 95 %, … 5 % of the answers.

    Both arrays have the shape (n,). Answers of equal confidence are given or withheld together, so that a share may be
    larger than these, and there may be fewer points.
    """
    n = len(confidence)
    falling = numpy.sort(confidence)[::-1]
    points = {}
    for step in range(_STEPS, 0, -1):
        threshold = falling[math.ceil(n * step / _STEPS) - 1]
        answered = confidence >= threshold
        n_answered = int(answered.sum())
        right = int(correct[answered].sum())
        points[n_answered] = Coverage(
            share=n_answered / n,
            min_confidence=float(threshold),
            accuracy=right / n_answered,
            accuracy_ci95=list(wilson(right, n_answered)),
            n=n_answered,
        )
    return list(points.values())


def shown(points: list[Coverage]) -> list[Coverage]:
    """Return the points of a curve for a short table: for each of a few shares, the smallest one that is not below it."""
    chosen = {}
    for share in _SHOWN:
        enough = [point for point in points if point.share >= share]
        if enough:
            point = min(enough, key=lambda point: point.share)
            chosen[point.n] = point
    return list(chosen.values())
