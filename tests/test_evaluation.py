import numpy
import pytest
from scipy.special import softmax

from peft_arena import results
from peft_arena.evaluation import expected_calibration_error, fit_temperature, wilson


def test_wilson_interval_matches_published_values():
    # Newcombe 1998, table I: 81/263 and 0/20
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_calibration_error_by_hand():
    # 4 answers at 0.95 confidence, 3 right: gap 0.2; 2 answers at 0.6, both right: gap 0.4
    confidence = numpy.array([0.95] * 4 + [0.6] * 2)
    probabilities = numpy.stack([1 - confidence, confidence], axis=1)
    truth = numpy.array([1, 1, 1, 0, 1, 1])
    assert expected_calibration_error(probabilities, truth) == pytest.approx((4 * 0.2 + 2 * 0.4) / 6)


def test_temperature_undoes_overconfidence():
    rng = numpy.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 1.5
    truth = numpy.array([rng.choice(3, p=p) for p in softmax(logits, axis=1)])
    assert fit_temperature(4 * logits, truth) == pytest.approx(4, rel=0.05)
    overconfident = expected_calibration_error(softmax(4 * logits, axis=1), truth)
    assert expected_calibration_error(softmax(logits, axis=1), truth) < overconfident / 5


def test_evaluation_adds_up(trained):
    evaluation = results.read(trained).evaluation
    right = sum(evaluation.confusion_matrix[i][i] for i in range(2))
    assert evaluation.accuracy == right / evaluation.n
    assert [row.n for row in evaluation.per_class.values()] == [sum(row) for row in evaluation.confusion_matrix]
    assert 0 <= evaluation.baseline.accuracy <= 1
