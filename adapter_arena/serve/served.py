"""What serves one adapter, and what it answers."""

from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from adapter_arena.adapters.store import Adapter


@dataclass(frozen=True)
class Prediction:
    """The answer for one text: calibrated probabilities by label name, most likely label first in `label`."""

    label: str
    confidence: float
    scores: dict[str, float]
    adapter: str
    tokens: int
    truncated: bool

    def to_dict(self) -> dict:
        """As the API returns it."""
        return {**vars(self)}


@dataclass
class Served:
    """An adapter that can be asked; `model` is None until it is, and again when memory is short."""

    adapter: Adapter
    model: PreTrainedModel | PeftModel | None
    max_length: int | None
    """Its window in tokens; None before it was loaded."""
    used: float = 0.0
    """When it was last asked, seconds of time.monotonic()."""
    rows: int = 0
    """Answered since it was last to be merged."""
    merges_left: int = 3
    """Attempts to merge it that may still fail; 0 when it cannot be merged, or its copy alone is over the budget."""

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Calibrated by the adapter's temperature, of logits of shape (..., labels)."""
        return torch.softmax(logits / self.adapter.temperature, dim=-1)
