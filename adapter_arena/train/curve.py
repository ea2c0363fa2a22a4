"""The learning curve of a training: loss and score of a few validation rows at evenly spaced steps."""

import numpy
import torch
from torch.utils.data import Subset

from adapter_arena.train.trainer import ArenaTrainer

POINTS = 10
"""Points of a curve after that of the untrained model, at step 0."""
_MOST_ROWS = 256
"""Enough for a curve: ±4 points at 90 %."""
_FEWEST_ROWS = 64
_SHARE = 1 / 16
"""Validation rows as a share of the training rows; the eleven points take about a tenth of the time of two epochs."""
_PREFIX = "curve"


class LearningCurve:
    """Scores the model at some steps and adds the scores to the Trainer's log, which its checkpoints keep."""

    def __init__(self, runner: ArenaTrainer, points: int):
        rows = runner.eval_dataset
        n = min(_MOST_ROWS, max(_FEWEST_ROWS, int(_SHARE * len(runner.train_dataset))))
        order = numpy.random.default_rng(0).permutation(len(rows))[:n]
        self._rows = Subset(rows, sorted(order.tolist()))
        self._runner = runner
        self._points = points

    def is_due(self, step: int, steps: int) -> bool:
        """Return whether a training of `steps` steps is scored after `step`: at 0, at the end, and evenly between."""
        if step == 0:
            return True
        return step * self._points // steps > (step - 1) * self._points // steps

    def record(self) -> None:
        """Score the model as it is now. The random state of the training stays as it is."""
        runner = self._runner
        with torch.random.fork_rng():
            loader = runner.get_eval_dataloader(self._rows)
            found = runner.evaluation_loop(loader, "learning curve", metric_key_prefix=_PREFIX)
        loss = found.metrics[f"{_PREFIX}_loss"]
        score = found.metrics[f"{_PREFIX}_{runner.task.objective.name}"]
        runner.log({f"{_PREFIX}_loss": float(loss), f"{_PREFIX}_score": float(score)})


def points(log: list[dict]) -> list[list[float]]:
    """Return [step, validation loss, validation score] for each point in the Trainer's log."""
    found = []
    for line in log:
        if f"{_PREFIX}_loss" in line:
            found.append([float(line["step"]), line[f"{_PREFIX}_loss"], line[f"{_PREFIX}_score"]])
    return found
