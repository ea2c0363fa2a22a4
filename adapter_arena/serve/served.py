"""An adapter as an engine serves it, and its answers."""

from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from adapter_arena.adapters.store import Adapter


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
