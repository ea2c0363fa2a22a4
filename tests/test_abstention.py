"""The curve of abstaining: which share of the texts is answered at which accuracy."""

import numpy
import pytest

from adapter_arena import abstention, results
from adapter_arena.adapters import cards
from adapter_arena.stats import wilson
from adapter_arena.ui.board_plots import CURVES


def test_curve_on_known_scores():
    """100 answers of confidence 0.505 to 1.0; the 30 least sure ones are wrong."""
    confidence = 0.5 + numpy.arange(1, 101) / 200
    correct = numpy.arange(100) >= 30
    order = numpy.random.default_rng(0).permutation(100)
    points = abstention.curve(confidence[order], correct[order])
    assert [point.n for point in points] == list(range(100, 0, -5))
    by_share = {point.share: point for point in points}
    assert by_share[1.0].accuracy == 0.7
    assert by_share[0.8].accuracy == pytest.approx(70 / 80)
    assert by_share[0.8].accuracy_ci95 == list(wilson(70, 80))
    assert by_share[0.8].min_confidence == confidence[20]
    assert by_share[0.7].accuracy == by_share[0.05].accuracy == 1
    for point in points:
        assert (confidence >= point.min_confidence).sum() == point.n


def test_equal_confidences_are_answered_together():
    confidence = numpy.array([0.9] * 6 + [0.6] * 4)
    correct = numpy.array([True] * 5 + [False] * 5)
    points = abstention.curve(confidence, correct)
    assert [(point.share, point.accuracy) for point in points] == [(1.0, 0.5), (0.6, 5 / 6)]
    assert abstention.shown(points) == points


def test_one_row_is_one_point():
    (point,) = abstention.curve(numpy.array([0.7]), numpy.array([True]))
    assert (point.share, point.n, point.accuracy) == (1.0, 1, 1.0)


def test_short_table_has_the_nearest_shares():
    points = abstention.curve(numpy.linspace(0.5, 1, 1000), numpy.ones(1000, bool))
    assert [point.share for point in abstention.shown(points)] == [1.0, 0.95, 0.9, 0.8, 0.5]
    assert abstention.shown([]) == []


def test_curve_is_in_results_card_and_leaderboard(trained):
    found = results.read(trained)
    curve = found.evaluation.abstention
    assert curve[0].n == found.evaluation.n
    assert curve[0].accuracy == found.evaluation.accuracy
    assert curve[0].accuracy_ci95 == found.evaluation.accuracy_ci95
    assert [x for x, _ in CURVES["abstaining"].points(found)] == [100 * point.share for point in curve]
    section = cards.render(found).partition("## Abstaining")[2].partition("\n## ")[0]
    assert section.count("\n| ") == 1 + len(abstention.shown(curve))
    found.evaluation.abstention = []  # results of earlier versions
    assert "## Abstaining" not in cards.render(found)
    assert CURVES["abstaining"].points(found) == []
