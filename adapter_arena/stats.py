"""Statistics of evaluation: intervals, paired tests, calibration. Pure functions of numpy arrays."""

import dataclasses
import functools
import math
from dataclasses import dataclass
from itertools import combinations

import numpy
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import binomtest

from adapter_arena import task_scores, tasks
from adapter_arena.errors import shortened_list
from adapter_arena.results import Bin, Evaluation, Majority, Results, SimpleBaseline, unpack_answers, unpack_rows

_DRAWS = 2000
_BINS = 15
_Z95 = 1.959963984540054
_SIGNIFICANT = 0.05
_HUNDREDTHS = ("percentage points", "hundredths")
"""Units of differences of shares, and of other metrics from 0 or -1 to 1."""


@dataclass(frozen=True)
class Answers:
    """The answers of a model to the test rows, as results record them."""

    task: str
    labels: tuple[str, ...]
    rows: str
    """Digest of the test rows."""
    n: int
    packed: str
    """Whether each is correct (single-label, see `results.pack_rows`), or the answers (see `results.pack_answers`)."""
    truth: str | None
    """What the answers should be, packed likewise; None for single-label."""

    def are_on_the_rows_of(self, other: "Answers") -> bool:
        """Return whether both models answered the same test rows."""
        return (self.task, self.rows, self.truth) == (other.task, other.rows, other.truth)


def answers_of(found: Results, baseline: SimpleBaseline | None = None) -> Answers | None:
    """Return the recorded answers of an adapter, or of a baseline in its results; None if they were not recorded."""
    evaluation = found.evaluation
    is_single_label = found.task == tasks.SINGLE_LABEL
    measured = baseline or evaluation
    packed = measured.correct if is_single_label else measured.predicted
    truth = None if is_single_label else evaluation.truth
    if not evaluation.test_sha256 or not packed or (truth is None and not is_single_label):
        return None
    return Answers(found.task, tuple(found.labels), evaluation.test_sha256, evaluation.n, packed, truth)


@dataclass(frozen=True)
class Difference:
    """The difference in one metric between two models on the same `n` test rows."""

    first: str
    second: str
    n: int
    points: float
    """The metric of `first` minus that of `second`, in `unit`."""
    p: float
    """Holm-corrected over all differences that were tested together."""
    metric: str = "Accuracy"
    """Title of the metric, with a remark if less is better."""
    unit: str = "percentage points"
    """`percentage points`, `hundredths` of F1 and correlations, or for errors the name of the number in the data."""
    test: str = "McNemar"
    """`McNemar` or `bootstrap`."""

    @property
    def written(self) -> str:
        """The difference with its sign, without the unit."""
        return f"{self.points:+.3g}" if self.unit not in _HUNDREDTHS else f"{self.points:+.2f}"

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at the 5 % level over the family of all pairs."""
        return self.p < _SIGNIFICANT


def mcnemar(first: numpy.ndarray, second: numpy.ndarray) -> float:
    """Return the exact two-sided p-value of McNemar's test (McNemar 1947; exact as in Dietterich 1998).

    Both arrays are bool, shape (n,): whether each answered the row correctly. Only rows that exactly one of them
    answered correctly contribute.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return float(binomtest(only_first, discordant).pvalue)


def holm(p_values: list[float]) -> list[float]:
    """Return the p-values corrected for multiple testing, in the same order (Holm 1979)."""
    n = len(p_values)
    order = sorted(range(n), key=p_values.__getitem__)
    corrected = [0.0] * n
    largest = 0.0
    for rank, index in enumerate(order):
        p = min(1.0, (n - rank) * p_values[index])
        largest = max(largest, p)
        corrected[index] = largest
    return corrected


def differences(found: dict[str, Results], every_metric: bool = False) -> list[Difference]:
    """Return the tested difference of every pair of adapters that were measured on the same test rows.

    It is in the metric that ranks models of their task; with `every_metric` there is one for each tested metric.
    Adapters without recorded answers are left out.
    """
    answers = {}
    for name, result in found.items():
        recorded = answers_of(result)
        if recorded is not None:
            answers[name] = recorded
    tested = []
    for first, second in combinations(answers, 2):
        if answers[first].are_on_the_rows_of(answers[second]):
            compared = compare(answers[first], answers[second])
            for difference in compared if every_metric else compared[:1]:
                tested.append(dataclasses.replace(difference, first=first, second=second))
    p_values = holm([difference.p for difference in tested])
    return [dataclasses.replace(difference, p=p) for difference, p in zip(tested, p_values)]


def compare(first: Answers, second: Answers) -> list[Difference]:
    """Return the difference of two models in each tested metric of their task, first in the one that ranks its models.

    The names are empty and p is not corrected. The test is McNemar's for single-label; otherwise a paired bootstrap,
    whose p-value is the smallest level at which the percentile interval of the difference excludes 0 (Efron &
    Tibshirani 1993, section 15.4).
    """
    task = tasks.TASKS[first.task]
    if task.name == tasks.SINGLE_LABEL:
        ours, theirs = unpack_rows(first.packed, first.n), unpack_rows(second.packed, second.n)
        points = 100 * float(ours.mean() - theirs.mean())
        return [Difference("", "", first.n, points, mcnemar(ours, theirs))]
    values, draws = _drawn_scores(first)
    other_values, other_draws = _drawn_scores(second)
    found = []
    for index, metric in enumerate(task.tested):
        factor, unit = (1, first.labels[0]) if metric.is_error else (100, "hundredths")
        points = factor * float(values[index] - other_values[index])
        p = _bootstrap_p(draws[:, index] - other_draws[:, index])
        title = metric.title if metric.more_is_better else f"{metric.title} (less is better)"
        found.append(Difference("", "", first.n, points, p, title, unit, "bootstrap"))
    return found


@functools.lru_cache(maxsize=64)
def _drawn_scores(answers: Answers) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return the tested metrics of a model as `task_scores.drawn` does; the leaderboard compares each with many."""
    shape = answers.task, answers.n, len(answers.labels)
    predicted = unpack_answers(answers.packed, *shape)
    truth = unpack_answers(answers.truth, *shape)
    return task_scores.drawn(tasks.TASKS[answers.task], predicted, truth)


def _bootstrap_p(drawn_differences: numpy.ndarray) -> float:
    below = int((drawn_differences <= 0).sum())
    above = int((drawn_differences >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(drawn_differences) + 1))


def ece_by_chance(bins: list[Bin]) -> float:
    """Return the 95 % quantile of the calibration error of a perfectly calibrated model with these confidences."""
    n = sum(bin.n for bin in bins)
    confidence = numpy.clip([bin.confidence for bin in bins], 0, 1)
    generator = numpy.random.default_rng(0)
    rows = generator.multinomial(n, [bin.n / n for bin in bins], _DRAWS)
    correct = generator.binomial(rows, confidence)
    errors = numpy.abs(rows * confidence - correct).sum(axis=1) / n
    return float(numpy.quantile(errors, 0.95))


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927). Unlike the normal interval it stays inside [0, 1]."""
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    z2 = _Z95**2
    scale = 1 + z2 / n
    centre = (share + z2 / (2 * n)) / scale
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def scores(matrix: numpy.ndarray) -> numpy.ndarray:
    """Return precision, recall and F1 of each class, and their macro means in the last column; shape (3, labels + 1).

    `matrix` is a confusion matrix, shape (labels, labels), whose rows are the true classes. As in scikit-learn with
    zero_division=0, a ratio of 0 to 0 is 0, and a class that is neither true nor predicted anywhere does not count
    in the mean.
    """
    correct = matrix.diagonal()
    predicted = matrix.sum(axis=0)
    true = matrix.sum(axis=1)
    numerators = numpy.stack([correct, correct, 2 * correct])
    denominators = numpy.stack([predicted, true, predicted + true])
    by_class = numerators / numpy.maximum(denominators, 1)
    means = by_class.sum(axis=1) / numpy.count_nonzero(predicted + true)
    return numpy.column_stack([by_class, means])


def majority(matrix: numpy.ndarray, labels: list[str]) -> Majority:
    """Return the scores of always answering the most frequent true class of a confusion matrix as in `scores`."""
    true = matrix.sum(axis=1)
    index = int(true.argmax())
    constant = numpy.zeros_like(matrix)
    constant[:, index] = true
    _, _, f1 = scores(constant)
    return Majority(labels[index], accuracy=float(true[index] / true.sum()), f1=float(f1[-1]))


def shortcomings(found: Results) -> list[str]:
    """Return a sentence for each reason not to use the adapter; none for results without a majority class.

    The reasons are a class that it never predicts, and an accuracy whose 95 % interval does not lie above the accuracy
    of always answering the most frequent class. Of other tasks it is the score that ranks their adapters.
    """
    evaluation = found.evaluation
    if evaluation.constant is not None:
        return _not_better_than_constant(found)
    constant = evaluation.majority
    if constant is None:
        return []
    matrix = numpy.array(evaluation.confusion_matrix)
    never = numpy.flatnonzero((matrix.sum(axis=0) == 0) & (matrix.sum(axis=1) > 0))
    sentences = []
    if len(never):
        names = [f"{found.labels[index]!r} ({matrix[index].sum():,} test texts)" for index in never]
        sentences.append(f"This adapter never predicts {shortened_list(names)}.")
    low, high = evaluation.accuracy_ci95
    if low <= constant.accuracy:
        relation = "is below" if high < constant.accuracy else "cannot be told apart from"
        sentences.append(
            f"Its accuracy of {evaluation.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}) {relation} the "
            f"{constant.accuracy:.1%} of always answering {constant.label!r}."
        )
    return sentences


def _not_better_than_constant(found: Results) -> list[str]:
    metric = tasks.of(found).objective
    constant = found.evaluation.constant
    score = found.evaluation.scores[metric.name]
    least = constant.scores[metric.name].value
    if score.ci95[0] > least:
        return []
    interval = " to ".join(map(metric.write, score.ci95))
    return [
        f"Its {metric.title} of {metric.write(score.value)} (95 % interval {interval}) is not above the "
        f"{metric.write(least)} of always answering {constant.answer!r}."
    ]


def recall_of_rarest(evaluation: Evaluation) -> str | None:
    """Return the recall of the class with the fewest test rows in words; None if the classes have equally many."""
    present = {label: row for label, row in evaluation.per_class.items() if row.n}
    rarest = min(present, key=lambda label: present[label].n)
    row = present[rarest]
    if row.n == max(other.n for other in present.values()):
        return None
    return f"recall of the rarest class {rarest!r} {row.recall:.1%} ({row.n:,} test texts)"


def bootstrap(matrix: numpy.ndarray) -> numpy.ndarray:
    """Return 95 % percentile intervals of `scores` over 2,000 draws of as many test rows; shape (2, 3, labels + 1).

    The confusion matrix of rows drawn with replacement is multinomial, so the matrix itself is drawn
    (Efron & Tibshirani 1993, chapter 13).
    """
    rng = numpy.random.default_rng(0)
    n = matrix.sum()
    draws = [scores(rng.multinomial(n, matrix.ravel() / n).reshape(matrix.shape)) for _ in range(_DRAWS)]
    return numpy.quantile(draws, (0.025, 0.975), axis=0)


def reliability(probabilities: numpy.ndarray, truth: numpy.ndarray) -> list[Bin]:
    """Return the accuracy in each of 15 equal-width bins of the top label's probability, without empty bins.

    `probabilities` has shape (n, labels), `truth` shape (n,).
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    bin_of_row = numpy.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = []
    for index in numpy.unique(bin_of_row):
        rows = bin_of_row == index
        n = int(rows.sum())
        interval = wilson(int(correct[rows].sum()), n)
        mean_confidence = float(confidence[rows].mean())
        accuracy = float(correct[rows].mean())
        bins.append(Bin(confidence=mean_confidence, accuracy=accuracy, accuracy_ci95=list(interval), n=n))
    return bins


def expected_calibration_error(probabilities: numpy.ndarray, truth: numpy.ndarray) -> float:
    """Return the mean gap between confidence and accuracy over the bins of `reliability` (arXiv:1706.04599)."""
    bins = reliability(probabilities, truth)
    gap = sum(bin.n * abs(bin.accuracy - bin.confidence) for bin in bins)
    return gap / len(truth)


def fit_temperature(logits: numpy.ndarray, truth: numpy.ndarray) -> float:
    """Return the divisor of the logits, from 0.05 to 20, with the least negative log-likelihood (arXiv:1706.04599).

    Temperature scaling changes the confidence of predictions, not their labels.
    """
    rows = numpy.arange(len(truth))

    def loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(logits / math.exp(log_temperature), axis=1)
        return -log_probabilities[rows, truth].mean()

    bounds = (math.log(0.05), math.log(20))
    best = minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(math.exp(best.x))
