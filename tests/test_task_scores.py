import numpy
import pytest
from scipy.special import expit
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, mean_absolute_error, root_mean_squared_error

from adapter_arena import stats, task_scores, tasks


def sets(n: int, labels: int = 4) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return logits, and the sets of labels that were drawn with their probabilities."""
    generator = numpy.random.default_rng(1)
    logits = generator.normal(-1, 2, (n, labels))
    return logits, generator.random((n, labels)) < expit(logits)


def test_multi_label_scores_are_those_of_scikit_learn():
    logits, truth = sets(300)
    predicted = logits > 0
    truth[:, 3] = predicted[:, 3] = False  # a label that does not occur is not part of the mean
    scores, per_label = task_scores.multi_label(predicted, truth, list("abcd"))
    assert scores["f1"].value == pytest.approx(f1_score(truth[:, :3], predicted[:, :3], average="macro"))
    assert scores["f1_micro"].value == pytest.approx(f1_score(truth, predicted, average="micro"))
    assert scores["subset_accuracy"].value == pytest.approx((truth == predicted).all(axis=1).mean())
    assert per_label["a"].f1 == pytest.approx(f1_score(truth[:, 0], predicted[:, 0]))
    assert per_label["a"].n == truth[:, 0].sum()
    for score in scores.values():
        low, high = score.ci95
        assert low < score.value < high
        assert 0.01 < high - low < 0.2
    right = int((truth == predicted).all(axis=1).sum())
    assert scores["subset_accuracy"].ci95 == pytest.approx(stats.wilson(right, 300), abs=0.01)


def test_regression_scores_are_those_of_scipy_and_scikit_learn():
    generator = numpy.random.default_rng(2)
    truth = generator.normal(1000, 5, 400).round()  # with ties, far from 0
    predicted = truth + generator.normal(0, 5, 400)
    scores = task_scores.regression(predicted, truth)
    expected = {
        "pearsonr": pearsonr(predicted, truth).statistic,
        "spearmanr": spearmanr(predicted, truth).statistic,
        "mae": mean_absolute_error(truth, predicted),
        "rmse": root_mean_squared_error(truth, predicted),
    }
    assert {name: score.value for name, score in scores.items()} == pytest.approx(expected)
    interval = pearsonr(predicted, truth).confidence_interval()
    assert scores["pearsonr"].ci95 == pytest.approx([interval.low, interval.high], abs=0.02)


def test_a_constant_prediction_has_no_correlation():
    scores = task_scores.regression_on_validation(numpy.full(5, 2.5), numpy.arange(5.0))
    assert (scores["pearsonr"], scores["spearmanr"]) == (0, 0)


def test_thresholds_have_the_highest_f1_of_all():
    logits, truth = sets(200)
    probabilities = expit(logits)
    truth[:, 3] = False
    thresholds = task_scores.best_thresholds(probabilities, truth)
    assert thresholds[3] == 0.5
    for label in range(3):
        reached = f1_score(truth[:, label], probabilities[:, label] >= thresholds[label])
        others = [f1_score(truth[:, label], probabilities[:, label] >= each) for each in probabilities[:, label]]
        assert reached == pytest.approx(max(others))


def test_equal_probabilities_are_on_the_same_side_of_a_threshold():
    probabilities = numpy.array([[0.9], [0.4], [0.4], [0.4], [0.1]])
    truth = numpy.array([[True], [True], [False], [True], [False]])
    (threshold,) = task_scores.best_thresholds(probabilities, truth)
    assert 0.1 < threshold < 0.4


def test_temperature_makes_exaggerated_probabilities_true():
    logits, truth = sets(4000)
    assert task_scores.fit_temperature(3 * logits, truth) == pytest.approx(3, rel=0.05)


def test_the_task_of_a_config_is_its_problem_type():
    assert tasks.of_config({"problem_type": "regression"}, 3) == "regression"
    assert tasks.of_config({}, 1) == "regression"
    assert tasks.of_config({"problem_type": None}, 2) == "single-label"
