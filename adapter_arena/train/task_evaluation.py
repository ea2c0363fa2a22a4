"""Evaluation of multi-label and regression adapters as they are served; `evaluation` measures single-label ones."""

import contextlib
import dataclasses
import json
import time

import numpy
from scipy.special import expit

from adapter_arena import files, task_scores, tasks
from adapter_arena.data.load import Splits
from adapter_arena.models import compute
from adapter_arena.models.truncation import Encoded
from adapter_arena.recipe import Recipe
from adapter_arena.results import Constant, Evaluation, LargeError, Score, Slice, pack_answers
from adapter_arena.serve.engine import Engine
from adapter_arena.train.evaluation import baseline_cache, digest, excerpts, length_quarters, logits_of, may_share

Scores = dict[str, Score]
_UNTRAINED = "untrained"
_ERRORS = 10


@dataclasses.dataclass(frozen=True)
class _Calibration:
    """What is chosen on validation for a multi-label model; nothing is for a regression."""

    temperature: float | None = None
    thresholds: numpy.ndarray | None = None


def evaluate(engine: Engine, name: str, splits: Splits, baseline: Scores, share_texts: bool = False) -> Evaluation:
    """Score adapter `name` once on the test split, with what a multi-label model needs chosen on the validation split.

    Excerpts of texts are recorded for public data, and for local data only with `share_texts`.
    """
    engine.merge(name)
    calibration = _calibrate(splits, logits_of(engine, name, splits.validation, "validation, as served"))
    start = time.perf_counter()
    logits = logits_of(engine, name, splits.test, "test, as served")
    seconds = time.perf_counter() - start
    answers = _answers(splits, logits, calibration)
    truth = truth_of(splits, splits.test["label"].to_numpy())
    scores, per_label = task_scores.measure(splits.task, answers, truth, splits.labels)
    encoded = engine.encode(splits.test["text"].tolist(), name)
    thresholds = None
    if calibration.thresholds is not None:
        thresholds = dict(zip(splits.labels, calibration.thresholds.tolist()))
    return Evaluation(
        split="test",
        n=len(splits.test),
        served_as=engine.precision,
        compute=compute.name_of(engine.dtype),
        seconds=seconds,
        temperature=calibration.temperature,
        test_sha256=digest(splits),
        scores=scores,
        untrained=baseline,
        constant=_constant(splits),
        thresholds=thresholds,
        per_class=per_label,
        slices=_slices(splits, answers, truth, encoded),
        largest_errors=_largest_errors(splits, answers, truth, encoded, may_share(splits, share_texts)),
        predicted=pack_answers(answers),
        truth=pack_answers(truth),
    )


def measure_baseline(engine: Engine, splits: Splits, recipe: Recipe) -> Scores:
    """Return the scores on the test split of the untrained base, calibrated like an adapter; they are cached."""
    path = baseline_cache(engine, splits, recipe)
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):  # missing or damaged: measured again
        return {name: Score(**score) for name, score in json.loads(path.read_text()).items()}
    engine.add_untrained(_UNTRAINED, splits.labels, recipe.seed, recipe.max_length)
    validation_logits = logits_of(engine, _UNTRAINED, splits.validation, "untrained on validation")
    logits = logits_of(engine, _UNTRAINED, splits.test, "untrained baseline")
    answers = _answers(splits, logits, _calibrate(splits, validation_logits))
    truth = truth_of(splits, splits.test["label"].to_numpy())
    scores, _ = task_scores.measure(splits.task, answers, truth, splits.labels)
    files.write_cache(path, json.dumps({name: dataclasses.asdict(score) for name, score in scores.items()}))
    return scores


def describe_baseline(baseline: Scores) -> str:
    """Return the scores in one line."""
    return ", ".join(f"{name} {score.value:.3f}" for name, score in baseline.items())


def truth_of(splits: Splits, labels: numpy.ndarray) -> numpy.ndarray:
    """Return labels as answers are compared with them: classes (n,), whether each label is given (n, labels), numbers (n,)."""
    if splits.task == tasks.SINGLE_LABEL:
        return labels.astype(numpy.int64)
    if splits.task == tasks.REGRESSION:
        return labels.astype(float)
    return splits.targets(labels).astype(bool)


def _calibrate(splits: Splits, logits: numpy.ndarray) -> _Calibration:
    if splits.task == tasks.REGRESSION:
        return _Calibration()
    truth = truth_of(splits, splits.validation["label"].to_numpy())
    temperature = task_scores.fit_temperature(logits, truth)
    return _Calibration(temperature, task_scores.best_thresholds(expit(logits / temperature), truth))


def _answers(splits: Splits, logits: numpy.ndarray, calibration: _Calibration) -> numpy.ndarray:
    """Return whether each label is given, shape (n, labels), or numbers in the scale of the data, shape (n,)."""
    if splits.task == tasks.REGRESSION:
        return logits[:, 0] * splits.scale.std + splits.scale.mean
    return expit(logits / calibration.temperature) >= calibration.thresholds


def _constant(splits: Splits) -> Constant:
    """Return the scores of always answering the mean of training, or its most frequent label alone."""
    truth = truth_of(splits, splits.test["label"].to_numpy())
    if splits.task == tasks.REGRESSION:
        mean = splits.scale.mean
        return Constant(f"{mean:.4g}", task_scores.regression(numpy.full(len(truth), mean), truth))
    most_frequent = int(truth_of(splits, splits.train.labels).sum(axis=0).argmax())
    predicted = numpy.zeros_like(truth)
    predicted[:, most_frequent] = True
    scores, _ = task_scores.multi_label(predicted, truth, splits.labels)
    return Constant(splits.labels[most_frequent], scores)


def _slices(splits: Splits, answers: numpy.ndarray, truth: numpy.ndarray, encoded: list[Encoded]) -> list[Slice]:
    """Return the scores by quarter of the lengths, and by whether the text was truncated."""
    quarters, quarter_names = length_quarters(numpy.array([len(row.ids) for row in encoded]))
    truncated = numpy.array([row.truncated for row in encoded], dtype=int)
    groupings = {"tokens": (quarters, quarter_names), "window": (truncated, ["complete", "truncated"])}
    slices = []
    for by, (group_of_row, names) in groupings.items():
        for index, name in enumerate(names):
            rows = group_of_row == index
            if rows.any():
                scores, _ = task_scores.measure(splits.task, answers[rows], truth[rows], splits.labels)
                slices.append(Slice(by, name, int(rows.sum()), scores=scores))
    return slices


def _largest_errors(
    splits: Splits, answers: numpy.ndarray, truth: numpy.ndarray, encoded: list[Encoded], with_texts: bool
) -> list[LargeError]:
    """Return the answers with the most wrong labels or the largest absolute error, the first of equal ones first."""
    errors = numpy.abs(answers - truth) if splits.task == tasks.REGRESSION else (answers != truth).sum(axis=1)
    found = []
    for row in numpy.argsort(-errors, kind="stable")[:_ERRORS].tolist():
        if errors[row] == 0:
            break
        text, text_pair = excerpts(splits.test["text"].iloc[row]) if with_texts else (None, None)
        found.append(
            LargeError(
                row=row,
                text=text,
                truth=_written(splits, truth[row]),
                predicted=_written(splits, answers[row]),
                error=float(errors[row]),
                tokens=len(encoded[row].ids),
                truncated=encoded[row].truncated,
                text_pair=text_pair,
            )
        )
    return found


def _written(splits: Splits, answer: numpy.ndarray) -> str:
    if splits.task == tasks.REGRESSION:
        return f"{answer:.6g}"
    return tasks.SEPARATOR.join(name for name, is_given in zip(splits.labels, answer) if is_given)
