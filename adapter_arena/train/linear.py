"""The linear models of the baselines from scikit-learn, one kind for each task."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier

from adapter_arena import task_scores, tasks

_ITERATIONS = 500


@dataclass(frozen=True)
class Kind:
    """How a task is learned from features. The last argument of `fit` is C, the inverse strength of the regularisation."""

    fit: Callable[[Any, numpy.ndarray, float], Any]
    outputs: Callable[[Any, Any], numpy.ndarray]
    """Returns the outputs of a model for features: classes (n,), probabilities (n, labels) or numbers (n,)."""
    score: Callable[[numpy.ndarray, numpy.ndarray], float]
    """Returns the score of outputs, given the truth, by which C is chosen: the metric that ranks models of the task."""


def _fit_classes(features: Any, classes: numpy.ndarray, c: float) -> LogisticRegression:
    return _fit(LogisticRegression(C=c, max_iter=_ITERATIONS), features, classes)


def _fit_labels(features: Any, given: numpy.ndarray, c: float) -> OneVsRestClassifier:
    return _fit(OneVsRestClassifier(LogisticRegression(C=c, max_iter=_ITERATIONS)), features, given.astype(int))


def _fit_numbers(features: Any, numbers: numpy.ndarray, c: float) -> Ridge:
    return Ridge(alpha=1 / (2 * c)).fit(features, numbers)  # the same relation as in scikit-learn's other models


def _fit(model: Any, features: Any, truth: numpy.ndarray) -> Any:
    with warnings.catch_warnings():
        # A large C may need more iterations; validation decides whether the model is good as it is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # A label that no row has, or every row, is predicted with certainty.
        warnings.filterwarnings("ignore", "Label .* is present in all training examples", UserWarning)
        return model.fit(features, truth)


def _accuracy(predicted: numpy.ndarray, classes: numpy.ndarray) -> float:
    return float((predicted == classes).mean())


def _macro_f1(probabilities: numpy.ndarray, given: numpy.ndarray) -> float:
    return task_scores.multi_label_on_validation(probabilities, given)["f1"]


def _spearman(predicted: numpy.ndarray, numbers: numpy.ndarray) -> float:
    return task_scores.regression_on_validation(predicted, numbers)["spearmanr"]


KINDS = {
    tasks.SINGLE_LABEL: Kind(_fit_classes, lambda model, features: model.predict(features), _accuracy),
    tasks.MULTI_LABEL: Kind(_fit_labels, lambda model, features: model.predict_proba(features), _macro_f1),
    tasks.REGRESSION: Kind(_fit_numbers, lambda model, features: model.predict(features), _spearman),
}
"""The kind of each task."""


@dataclass(frozen=True)
class Features:
    """Features of the rows of the three splits, dense or sparse, shape (rows, features)."""

    train: Any
    validation: Any
    test: Any


@dataclass(frozen=True)
class Chosen:
    """The answers of the model that is best on validation."""

    answers: numpy.ndarray
    """Answers to the test rows: classes (n,), whether each label is given (n, labels), or numbers (n,)."""
    c: float


def best_answers(
    task: str, values: tuple[float, ...], features: Features, train: numpy.ndarray, validation: numpy.ndarray
) -> Chosen:
    """Return the answers of the model whose C, one of `values`, has the best score on validation, the smallest of several.

    `train` and `validation` are the true answers. The thresholds of labels are chosen on validation too.
    """
    kind = KINDS[task]
    best = None
    best_score = -numpy.inf
    for c in values:
        model = kind.fit(features.train, train, c)
        outputs = kind.outputs(model, features.validation)
        score = kind.score(outputs, validation)
        if score > best_score:
            best, best_c, best_score, best_outputs = model, c, score, outputs
    answers = kind.outputs(best, features.test)
    if task == tasks.MULTI_LABEL:
        answers = answers >= task_scores.best_thresholds(best_outputs, validation)
    return Chosen(answers, best_c)
