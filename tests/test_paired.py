"""Paired comparison of models on the same test rows, for every task."""

import dataclasses

import numpy
import pytest
from scipy.stats import spearmanr, ttest_rel
from sklearn.metrics import f1_score

from adapter_arena import results, stats
from adapter_arena.results import pack_answers, unpack_answers

N = 401


def numbers(noise: float, seed: int) -> numpy.ndarray:
    return truth_of_numbers() + numpy.random.default_rng(seed).normal(0, noise, N)


def truth_of_numbers() -> numpy.ndarray:
    return numpy.random.default_rng(9).normal(3, 1, N)


def truth_of_labels() -> numpy.ndarray:
    return numpy.random.default_rng(9).random((N, 3)) < (0.5, 0.3, 0.1)


def labels(errors: float, seed: int) -> numpy.ndarray:
    return truth_of_labels() ^ (numpy.random.default_rng(seed).random((N, 3)) < errors)


def answers(task: str, predicted: numpy.ndarray, truth: numpy.ndarray) -> stats.Answers:
    names = ("score",) if task == "regression" else ("a", "b", "c")
    return stats.Answers(task, names, "rows", N, pack_answers(predicted), pack_answers(truth))


def test_the_bootstrap_of_mean_errors_agrees_with_the_paired_t_test():
    truth = truth_of_numbers()
    checked = 0
    for seed in range(6):
        first, second = numbers(0.5, 2 * seed), numbers(0.53, 2 * seed + 1)
        errors = abs(first - truth), abs(second - truth)
        _, found = stats.compare(answers("regression", first, truth), answers("regression", second, truth))
        assert (found.unit, found.test, found.n) == ("score", "bootstrap", N)
        assert found.metric == "Mean absolute error (less is better)"
        assert found.points == pytest.approx(errors[0].mean() - errors[1].mean(), abs=1e-5)
        assert found.p == pytest.approx(ttest_rel(*errors).pvalue, abs=0.03)
        checked += found.p < 0.2
    assert checked  # not only where any two tests agree


def test_correlations_and_f1_differ_by_those_of_scipy_and_scikit_learn():
    truth = truth_of_numbers()
    first, second = numbers(0.4, 1), numbers(0.8, 2)
    found, _ = stats.compare(answers("regression", first, truth), answers("regression", second, truth))
    expected = spearmanr(first, truth).statistic - spearmanr(second, truth).statistic
    assert found.points == pytest.approx(100 * expected, abs=1e-3)
    assert (found.metric, found.unit, found.written) == ("Spearman correlation", "hundredths", f"{100 * expected:+.2f}")
    assert found.p < 0.001
    truth = truth_of_labels()
    first, second = labels(0.2, 1), labels(0.1, 2)
    [found] = stats.compare(answers("multi-label", first, truth), answers("multi-label", second, truth))
    expected = f1_score(truth, first, average="macro") - f1_score(truth, second, average="macro")
    assert found.points == pytest.approx(100 * expected)
    assert found.points < 0
    assert found.p < 0.001


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_equal_models_do_not_differ_and_models_of_equal_quality_seldom_do(task):
    made = numbers if task == "regression" else labels
    truth = truth_of_numbers() if task == "regression" else truth_of_labels()
    one = answers(task, made(0.2, 1), truth)
    for difference in stats.compare(one, one):
        assert (difference.points, difference.p) == (0, 1)
    p_values = []
    for seed in range(2, 42, 2):
        first, second = (answers(task, made(0.2, one_seed), truth) for one_seed in (seed, seed + 1))
        p_values.append(stats.compare(first, second)[0].p)
    assert sum(p < 0.05 for p in p_values) <= 4  # the chance of more than 4 of 20 is 0.3 %
    assert 0.25 < numpy.median(p_values) < 0.75


@pytest.fixture
def measured(adapter_for_task):
    """Return a function that reads the results of an adapter of the task, with some of its answers made wrong."""

    def read(task: str, wrong: int = 0) -> results.Results:
        found = results.read(adapter_for_task(task))
        evaluation = found.evaluation
        shape = task, evaluation.n, len(found.labels)
        predicted = unpack_answers(evaluation.predicted, *shape)
        predicted[:wrong] = ~predicted[:wrong] if task == "multi-label" else predicted[:wrong] + 100
        found.evaluation = dataclasses.replace(evaluation, predicted=pack_answers(predicted))
        return found

    return read


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_adapters_on_the_same_rows_are_compared_and_older_ones_are_not(measured, task):
    older, other = measured(task), measured(task)
    older.evaluation.predicted = None
    other.evaluation.test_sha256 = "0" * 64
    found = {"good": measured(task), "bad": measured(task, wrong=60), "older": older, "other": other}
    [difference] = stats.differences(found)
    assert (difference.first, difference.second, difference.n) == ("good", "bad", 80)
    assert difference.points > 10
    assert difference.significant
    every = stats.differences(found, every_metric=True)
    assert every[0].metric == difference.metric
    assert len(every) == (2 if task == "regression" else 1)
    assert every[0].p >= difference.p  # corrected for more tests
    if task == "regression":
        assert every[1].points < -50
        assert every[1].unit == "label"


def test_adapters_of_different_tasks_are_not_compared(measured, trained):
    found = {"numbers": measured("regression"), "labels": measured("multi-label"), "classes": results.read(trained)}
    for one in found.values():
        one.evaluation.test_sha256 = "0" * 64
    assert stats.differences(found) == []


@pytest.mark.parametrize("n", [1, 7, 8, 80])
def test_answers_round_trip(n):
    generator = numpy.random.default_rng(n)
    given = generator.random((n, 3)) < 0.5
    assert (unpack_answers(pack_answers(given), "multi-label", n, 3) == given).all()
    values = generator.normal(1e4, 1, n)
    assert unpack_answers(pack_answers(values), "regression", n, 1) == pytest.approx(values, rel=1e-7)
