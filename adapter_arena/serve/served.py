"""An adapter as an engine serves it, and its answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from adapter_arena.adapters.store import Adapter
from adapter_arena.errors import RequestError, unknown

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """The answer for one text."""

    label: str
    """The most likely label."""
    confidence: float
    """Its calibrated probability."""
    scores: dict[str, float]
    """Calibrated probabilities by label."""
    adapter: str
    tokens: int
    truncated: bool

    def is_abstained(self, min_confidence: float) -> bool:
        """Return whether the confidence is below this one, compared in the precision of the probabilities (float32)."""
        return bool(numpy.float32(self.confidence) < numpy.float32(min_confidence))

    def to_dict(self) -> dict:
        """Return the answer as the API does."""
        return {**vars(self)}


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

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return probabilities, calibrated by the adapter's temperature, from logits of shape (..., labels)."""
        return torch.softmax(logits / self.adapter.temperature, dim=-1)


def choose(adapters: Mapping[str, T], name: str | None) -> T:
    """Return the adapter of that name, or the first one if `name` is None or empty. Raises RequestError."""
    if not adapters:
        raise RequestError("No adapter is loaded. Train one with `python train_space.py --dataset sample`.")
    if name in (None, ""):
        return next(iter(adapters.values()))
    if not isinstance(name, str) or name not in adapters:
        raise RequestError(unknown("adapter", str(name)[:100], adapters))
    return adapters[name]
