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
from adapter_arena.recipe import Recipe
from adapter_arena.results import ClassMetrics, Constant, Evaluation, Score
from adapter_arena.serve.engine import Engine
from adapter_arena.train.evaluation import baseline_cache, digest, logits_of

Scores = dict[str, Score]
_UNTRAINED = "untrained"


@dataclasses.dataclass(frozen=True)
class _Calibration:
    """What is chosen on validation for a multi-label model; nothing is for a regression."""

    temperature: float | None = None
    thresholds: numpy.ndarray | None = None


def evaluate(engine: Engine, name: str, splits: Splits, baseline: Scores, share_texts: bool = False) -> Evaluation:
    """Score adapter `name` once on the test split, with what a multi-label model needs chosen on the validation split.

    No texts are recorded, whatever `share_texts` is.
    """
    engine.merge(name)
    calibration = _calibrate(splits, logits_of(engine, name, splits.validation, "validation, as served"))
    start = time.perf_counter()
    logits = logits_of(engine, name, splits.test, "test, as served")
    seconds = time.perf_counter() - start
    scores, per_label = _score(splits, logits, calibration)
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
    )


def measure_baseline(engine: Engine, splits: Splits, recipe: Recipe) -> Scores:
    """Return the scores on the test split of the untrained base, calibrated like an adapter; they are cached."""
    path = baseline_cache(engine, splits, recipe)
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):  # missing or damaged: measured again
        return {name: Score(**score) for name, score in json.loads(path.read_text()).items()}
    engine.add_untrained(_UNTRAINED, splits.labels, recipe.seed, recipe.max_length)
    validation_logits = logits_of(engine, _UNTRAINED, splits.validation, "untrained on validation")
    logits = logits_of(engine, _UNTRAINED, splits.test, "untrained baseline")
    scores, _ = _score(splits, logits, _calibrate(splits, validation_logits))
    files.write_cache(path, json.dumps({name: dataclasses.asdict(score) for name, score in scores.items()}))
    return scores


def describe_baseline(baseline: Scores) -> str:
    """Return the scores in one line."""
    return ", ".join(f"{name} {score.value:.3f}" for name, score in baseline.items())


def _calibrate(splits: Splits, logits: numpy.ndarray) -> _Calibration:
    if splits.task == tasks.REGRESSION:
        return _Calibration()
    truth = splits.targets(splits.validation["label"].to_numpy()).astype(bool)
    temperature = task_scores.fit_temperature(logits, truth)
    return _Calibration(temperature, task_scores.best_thresholds(expit(logits / temperature), truth))


def _score(
    splits: Splits, logits: numpy.ndarray, calibration: _Calibration
) -> tuple[Scores, dict[str, ClassMetrics] | None]:
    """Return the scores on the test split, and those of each label."""
    if splits.task == tasks.REGRESSION:
        predicted = logits[:, 0] * splits.scale.std + splits.scale.mean
        return task_scores.regression(predicted, splits.test["label"].to_numpy()), None
    truth = splits.targets(splits.test["label"].to_numpy()).astype(bool)
    predicted = expit(logits / calibration.temperature) >= calibration.thresholds
    return task_scores.multi_label(predicted, truth, splits.labels)


def _constant(splits: Splits) -> Constant:
    """Return the scores of always answering the mean of training, or its most frequent label alone."""
    test_labels = splits.test["label"].to_numpy()
    if splits.task == tasks.REGRESSION:
        mean = splits.scale.mean
        return Constant(f"{mean:.6g}", task_scores.regression(numpy.full(len(test_labels), mean), test_labels))
    most_frequent = int(splits.targets(splits.train.labels).sum(axis=0).argmax())
    truth = splits.targets(test_labels).astype(bool)
    predicted = numpy.zeros_like(truth)
    predicted[:, most_frequent] = True
    scores, _ = task_scores.multi_label(predicted, truth, splits.labels)
    return Constant(splits.labels[most_frequent], scores)
