"""An adapter as an engine serves it, and its answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from adapter_arena import tasks
from adapter_arena.adapters.store import Adapter
from adapter_arena.errors import RequestError, unknown

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """The answer for one text."""

    label: str
    """The most likely label; the labels of a multi-label adapter, joined with `|`; the number of a regression as text."""
    confidence: float | None
    """Its calibrated probability; the highest one of a multi-label adapter; None for a regression."""
    scores: dict[str, float]
    """Calibrated probabilities by label; the number of a regression by its name."""
    adapter: str
    tokens: int
    truncated: bool
    labels: list[str] | None = None
    """Labels whose probability reaches their threshold, the most likely first; of a multi-label adapter only."""
    value: float | None = None
    """Number in the scale of the training data; of a regression only."""

    def is_abstained(self, min_confidence: float) -> bool:
        """Return whether the confidence is below this one, compared in the precision of the probabilities (float32).

        A regression has no confidence and never abstains.
        """
        if self.confidence is None:
            return False
        return bool(numpy.float32(self.confidence) < numpy.float32(min_confidence))

    def to_dict(self) -> dict:
        """Return the answer as the API does."""
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass
class Served:
    """An adapter of an engine; `model` is None while it is not loaded."""

    adapter: Adapter
    model: PreTrainedModel | PeftModel | None
    max_length: int | None
    """Window in tokens; None until the adapter is loaded for the first time."""
    rows: int = 0
    """Texts answered since the last merge attempt."""
    merges_left: int = 3
    """Failed merge attempts that are still allowed; 0 if the adapter cannot be merged or exceeds the budget alone."""

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Return what the adapter's task makes of logits, both of shape (..., labels).

        Probabilities are calibrated by the adapter's temperature; numbers are in the scale of the training data.
        """
        activation = tasks.TASKS[self.adapter.task].activation
        if activation == "softmax":
            return torch.softmax(logits / self.adapter.temperature, dim=-1)
        if activation == "sigmoid":
            return torch.sigmoid(logits / self.adapter.temperature)
        scale = self.adapter.scale
        return logits if scale is None else logits * scale.std + scale.mean

    def answer(self, scores: list[float]) -> dict:
        """Return the fields of a Prediction that follow from the scores of the labels, in their order."""
        labels = self.adapter.labels
        by_label = dict(zip(labels, scores))
        if self.adapter.task == tasks.REGRESSION:
            value = scores[0] if len(scores) == 1 else None
            label = ", ".join(f"{score:.6g}" for score in scores)
            return {"label": label, "confidence": None, "scores": by_label, "value": value}
        highest = max(scores)
        if self.adapter.task == tasks.SINGLE_LABEL:
            return {"label": labels[scores.index(highest)], "confidence": highest, "scores": by_label}
        thresholds = dict(zip(labels, self.adapter.thresholds))
        given = [label for label in labels if by_label[label] >= thresholds[label]]
        given.sort(key=by_label.__getitem__, reverse=True)
        joined = tasks.SEPARATOR.join(given)
        return {"label": joined, "confidence": highest, "scores": by_label, "labels": given}


def choose(adapters: Mapping[str, T], name: str | None) -> T:
    """Return the adapter of that name, or the first one if `name` is None or empty. Raises RequestError."""
    if not adapters:
        raise RequestError("No adapter is loaded. Train one with `python train_space.py --dataset sample`.")
    if name in (None, ""):
        return next(iter(adapters.values()))
    if not isinstance(name, str) or name not in adapters:
        raise RequestError(unknown("adapter", str(name)[:100], adapters))
    return adapters[name]
