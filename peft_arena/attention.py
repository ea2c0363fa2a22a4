"""Attention for CPUs: eager attention whose scores stay in the type of the queries."""

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

NAME = "lean"


def lean(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_,
) -> tuple[torch.Tensor, None]:
    """Eager attention of transformers (query, key, value: batch, heads, tokens, size) in fewer passes over memory.

    Under autocast eager widens the scores, a number for each pair of tokens, to fp32: a mask in fp32 is added, and
    softmax is autocast to fp32. Softmax of bf16 computes in fp32 inside, so nothing is gained by it. Here the
    scores stay bf16, and the queries are scaled in their place.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    device = query.device.type
    if torch.is_autocast_enabled(device):  # IA³'s scales have widened keys and values
        query, key, value = (tensor.to(torch.get_autocast_dtype(device)) for tensor in (query, key, value))
    with torch.autocast(device, enabled=False):
        scores = torch.matmul(query * scaling, key.transpose(2, 3))
        if attention_mask is not None:
            scores = scores.add_(attention_mask.to(scores.dtype).clamp_min(torch.finfo(scores.dtype).min))
        weights = nn.functional.dropout(scores.softmax(-1), p=dropout, training=module.training)
        return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, lean)
AttentionMaskInterface.register(NAME, eager_mask)
