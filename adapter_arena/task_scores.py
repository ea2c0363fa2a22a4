"""Scores of multi-label and regression models with bootstrap intervals. Pure functions of numpy arrays.

Single-label scores are in `stats`.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy
from scipy.optimize import minimize_scalar
from scipy.stats import rankdata

from adapter_arena.results import ClassMetrics, Score
from adapter_arena.tasks import DEFAULT_THRESHOLD, MULTI_LABEL, Task

_DRAWS = 2000
_PAIRED_DRAWS = 10_000
"""More than for intervals: the smallest p-value, 0.0002, must survive the correction for many pairs."""
_DRAWS_AT_ONCE = 100
"""Bounds the memory: each draw has a weight for every test row."""

Scores = dict[str, float]
"""Value of each metric of the task, by its name."""


def _with_intervals(
    columns: numpy.ndarray, score: Callable[[numpy.ndarray], numpy.ndarray], drawn: Iterable[numpy.ndarray]
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return scores, shape (scores,), and their 95 % percentile intervals over 2,000 draws of rows, (2, scores).

    `score` returns scores, shape (draws, scores), from sums of the `columns`, shape (rows, columns), over rows: shape
    (draws, columns). `drawn` are those sums, some draws at a time.
    """
    intervals = numpy.quantile(numpy.concatenate([score(sums) for sums in drawn]), (0.025, 0.975), axis=0)
    return score(columns.sum(axis=0, keepdims=True))[0], intervals


def _drawn_sums(columns: numpy.ndarray, draws: int) -> Iterator[numpy.ndarray]:
    """Yield sums of the columns over rows drawn with replacement, shape (some draws, columns).

    Columns with as many rows are summed over the same rows.
    """
    n = len(columns)
    generator = numpy.random.default_rng(0)
    for _ in range(0, draws, _DRAWS_AT_ONCE):  # counting is ten times as fast as Generator.multinomial
        weights = numpy.empty((_DRAWS_AT_ONCE, n))
        for weight, rows in zip(weights, generator.integers(n, size=weights.shape)):
            weight[:] = numpy.bincount(rows, minlength=n)
        yield weights @ columns


def _scores(names: tuple[str, ...], values: numpy.ndarray, intervals: numpy.ndarray) -> dict[str, Score]:
    found = {}
    for index, name in enumerate(names):
        found[name] = Score(float(values[index]), intervals[:, index].tolist())
    return found


def measure(
    task: str, predicted: numpy.ndarray, truth: numpy.ndarray, labels: list[str]
) -> tuple[dict[str, Score], dict[str, ClassMetrics] | None]:
    """Return the scores of the answers, and those of each label of a multi-label model."""
    if task == MULTI_LABEL:
        return multi_label(predicted, truth, labels)
    return regression(predicted, truth), None


def drawn(task: Task, predicted: numpy.ndarray, truth: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return the metrics that the task tests, shape (metrics,), and their values in 10,000 draws, (draws, metrics).

    The draws are the same for every model on as many rows, so that a difference of two models' draws is paired.
    `predicted` and `truth` are as for `multi_label` or `regression`.
    """
    if task.name == MULTI_LABEL:
        columns, score, names = _multi_label_columns(predicted, truth), _multi_label_scores, _MULTI_LABEL
    else:
        columns, score, names = _regression_columns(predicted, truth), _regression_scores, _REGRESSION
    tested = [names.index(metric.name) for metric in task.tested]
    draws = [score(sums)[:, tested] for sums in _drawn_sums(columns, _PAIRED_DRAWS)]
    return score(columns.sum(axis=0, keepdims=True))[0, tested], numpy.concatenate(draws)


# ---------------------------------------------------------------- multi-label

_MULTI_LABEL = ("f1", "f1_micro", "subset_accuracy")


def fit_temperature(logits: numpy.ndarray, truth: numpy.ndarray) -> float:
    """Return the divisor of the logits, from 0.05 to 20, with the least binary cross-entropy; both of shape (n, labels)."""
    signs = numpy.where(truth, -1.0, 1.0)

    def loss(log_temperature: float) -> float:
        return numpy.logaddexp(0, signs * logits / math.exp(log_temperature)).mean()

    best = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded")
    return float(math.exp(best.x))


def best_thresholds(probabilities: numpy.ndarray, truth: numpy.ndarray) -> numpy.ndarray:
    """Return for each label the threshold with the highest F1, shape (labels,); 0.5 for a label without an example.

    A label is given if its probability reaches the threshold. Both arrays have shape (n, labels).
    """
    thresholds = numpy.full(truth.shape[1], DEFAULT_THRESHOLD)
    for label in numpy.flatnonzero(truth.any(axis=0)):
        order = numpy.argsort(-probabilities[:, label], kind="stable")
        sorted_probabilities = probabilities[order, label]
        true_positives = truth[order, label].cumsum()
        predicted = numpy.arange(1, len(order) + 1)
        f1 = 2 * true_positives / (predicted + true_positives[-1])
        is_last_of_equals = numpy.append(numpy.diff(sorted_probabilities) < 0, True)
        best = int(numpy.where(is_last_of_equals, f1, -1).argmax())
        following = sorted_probabilities[best + 1] if best + 1 < len(order) else 0.0
        thresholds[label] = (sorted_probabilities[best] + following) / 2
    return thresholds


def multi_label(
    predicted: numpy.ndarray, truth: numpy.ndarray, labels: list[str]
) -> tuple[dict[str, Score], dict[str, ClassMetrics]]:
    """Return the scores, and those of each label, with intervals; both arrays are bool, shape (n, labels)."""
    columns = _multi_label_columns(predicted, truth)
    values, intervals = _with_intervals(columns, _multi_label_scores, _drawn_sums_of_equal_rows(columns))
    scores = _scores(_MULTI_LABEL, values, intervals)
    correct = (predicted & truth).sum(axis=0)
    per_label = {}
    for index, label in enumerate(labels):
        place = len(_MULTI_LABEL) + index
        per_label[label] = ClassMetrics(
            precision=float(correct[index] / max(1, predicted[:, index].sum())),
            recall=float(correct[index] / max(1, truth[:, index].sum())),
            f1=float(values[place]),
            n=int(truth[:, index].sum()),
            f1_ci95=intervals[:, place].tolist(),
        )
    return scores, per_label


def multi_label_on_validation(probabilities: numpy.ndarray, truth: numpy.ndarray) -> Scores:
    """Return the scores with thresholds chosen on the same rows, so that they do not depend on a threshold.

    Both arrays have shape (n, labels), `truth` is bool.
    """
    predicted = probabilities >= best_thresholds(probabilities, truth)
    columns = _multi_label_columns(predicted, truth)
    values = _multi_label_scores(columns.sum(axis=0, keepdims=True))[0]
    return dict(zip(_MULTI_LABEL, values[: len(_MULTI_LABEL)].tolist()))


def _multi_label_columns(predicted: numpy.ndarray, truth: numpy.ndarray) -> numpy.ndarray:
    """Return, for each row, a one, whether all labels are right, and the correct, predicted and true labels."""
    ones = numpy.ones((len(truth), 1))
    is_exact = (predicted == truth).all(axis=1, keepdims=True)
    return numpy.hstack([ones, is_exact, predicted & truth, predicted, truth]).astype(float)


def _drawn_sums_of_equal_rows(columns: numpy.ndarray) -> Iterator[numpy.ndarray]:
    """Yield what `_drawn_sums` does for columns of 0 and 1, drawing how often each different row occurs.

    A file of 50,000 rows with 28 labels has about 2,000 different ones: this takes a tenth of the time.
    """
    n = len(columns)
    _, first, counts = numpy.unique(
        numpy.packbits(columns.astype(bool), axis=1), axis=0, return_index=True, return_counts=True
    )
    generator = numpy.random.default_rng(0)
    for _ in range(0, _DRAWS, _DRAWS_AT_ONCE):
        yield generator.multinomial(n, counts / n, size=_DRAWS_AT_ONCE) @ columns[first]


def _multi_label_scores(sums: numpy.ndarray) -> numpy.ndarray:
    """Return macro F1, micro F1, subset accuracy and the F1 of each label, shape (draws, 3 + labels).

    A ratio of 0 to 0 is 0, and a label that is neither true nor predicted anywhere does not count in the mean.
    """
    n, exact = sums[:, 0], sums[:, 1]
    correct, predicted, true = numpy.split(sums[:, 2:], 3, axis=1)
    occurrences = predicted + true
    by_label = 2 * correct / numpy.maximum(occurrences, 1)
    macro = by_label.sum(axis=1) / numpy.maximum((occurrences > 0).sum(axis=1), 1)
    micro = 2 * correct.sum(axis=1) / numpy.maximum(occurrences.sum(axis=1), 1)
    return numpy.column_stack([macro, micro, exact / n, by_label])


# ---------------------------------------------------------------- regression

_REGRESSION = ("spearmanr", "pearsonr", "mae", "rmse")


def regression(predicted: numpy.ndarray, truth: numpy.ndarray) -> dict[str, Score]:
    """Return the scores with intervals; both arrays have shape (n,).

    Correlations of constant numbers are 0. The intervals of Spearman's correlation keep the ranks of all rows.
    """
    columns = _regression_columns(predicted, truth)
    values, intervals = _with_intervals(columns, _regression_scores, _drawn_sums(columns, _DRAWS))
    return _scores(_REGRESSION, values, intervals)


def regression_on_validation(predicted: numpy.ndarray, truth: numpy.ndarray) -> Scores:
    """Return the scores without intervals; both arrays have shape (n,)."""
    columns = _regression_columns(predicted, truth)
    values = _regression_scores(columns.sum(axis=0, keepdims=True))[0]
    return dict(zip(_REGRESSION, values.tolist()))


def _regression_columns(predicted: numpy.ndarray, truth: numpy.ndarray) -> numpy.ndarray:
    error = predicted - truth
    return numpy.column_stack(
        [
            numpy.ones(len(truth)),
            numpy.abs(error),
            error**2,
            _moments(predicted, truth),
            _moments(rankdata(predicted), rankdata(truth)),
        ]
    )


def _moments(x: numpy.ndarray, y: numpy.ndarray) -> numpy.ndarray:
    """Return x, y, x², y² and xy, shape (n, 5), of centred values, whose squares lose no digits."""
    x = x - x.mean()
    y = y - y.mean()
    return numpy.column_stack([x, y, x * x, y * y, x * y])


def _regression_scores(sums: numpy.ndarray) -> numpy.ndarray:
    means = sums / sums[:, :1]
    mae = means[:, 1]
    rmse = numpy.sqrt(means[:, 2])
    return numpy.column_stack([_correlation(means[:, 8:]), _correlation(means[:, 3:8]), mae, rmse])


def _correlation(means: numpy.ndarray) -> numpy.ndarray:
    """Return Pearson's correlation from the means of `_moments`; 0 if one side is constant."""
    x, y, xx, yy, xy = means.T
    variances = numpy.maximum(xx - x * x, 0) * numpy.maximum(yy - y * y, 0)
    return numpy.where(variances > 1e-24, (xy - x * y) / numpy.sqrt(numpy.maximum(variances, 1e-24)), 0.0)
