"""Attention for CPUs: scores that stay in the type of the queries, and a last layer for one token a text."""

from contextlib import contextmanager
from types import MethodType

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
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


def first_token_only(model: PreTrainedModel) -> PreTrainedModel:
    """Have the last layer of a BERT or RoBERTa classifier compute its first token alone; returns the model.

    The head reads nothing else, so answers and gradients stay the same. It saves five sixths of that layer's linear
    products: of six layers, in training and in serving, about a seventh of the time. Other models are left alone.
    """
    encoder = getattr(model.base_model, "encoder", None)
    if model.config.model_type in ("bert", "roberta") and model.config._attn_implementation == NAME:
        last = encoder.layer[-1]
        last.forward = MethodType(_first_token, last)
    return model


@contextmanager
def every_token(model: nn.Module):
    """Have every layer compute every token inside the block, for those who look at what layers are given."""
    layers = [m for m in model.modules() if getattr(vars(m).get("forward"), "__func__", None) is _first_token]
    kept = [vars(layer).pop("forward") for layer in layers]
    try:
        yield
    finally:
        for layer, forward in zip(layers, kept):
            layer.forward = forward


def _first_token(layer: nn.Module, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_, **__):
    """(rows, tokens, width) -> (rows, 1, width)."""
    inside, first = layer.attention.self, hidden_states[:, :1]
    query, key, value = (
        linear(x).unflatten(-1, (-1, inside.attention_head_size)).transpose(1, 2)
        for linear, x in ((inside.query, first), (inside.key, hidden_states), (inside.value, hidden_states))
    )
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    attended, _ = lean(inside, query, key, value, mask, dropout=inside.dropout.p)
    return layer.feed_forward_chunk(layer.attention.output(attended.flatten(2), first))


AttentionInterface.register(NAME, lean)
AttentionMaskInterface.register(NAME, eager_mask)
