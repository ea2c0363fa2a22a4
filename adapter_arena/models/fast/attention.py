"""Attention for CPUs: scores in the type of the queries, texts without padding, a last layer for one token a text."""

from contextlib import contextmanager
from itertools import accumulate, chain
from types import MethodType

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from adapter_arena.models.fast import fused

NAME = "lean"


def lean(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    lengths: list[int] | None = None,
    **_,
) -> tuple[torch.Tensor, None]:
    """Eager attention of transformers (query, key, value: batch, heads, tokens, size) in fewer passes over memory.

    Under autocast eager widens the scores, a number for each pair of tokens, to fp32: a mask in fp32 is added, and
    softmax is autocast to fp32. Softmax of bf16 computes in fp32 inside, so nothing is gained by it. Here the
    scores stay bf16, and the queries are scaled in their place. `lengths` is of texts that stand one after the
    other, see `flat`.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    device = query.device.type
    if torch.is_autocast_enabled(device):  # IA³'s scales have widened keys and values
        query, key, value = (tensor.to(torch.get_autocast_dtype(device)) for tensor in (query, key, value))
    with torch.autocast(device, enabled=False):
        if lengths:
            is_last, heads = query.shape[2] < key.shape[2], query.shape[1]
            query, key, value = (tensor.transpose(1, 2).flatten(2)[0] for tensor in (query, key, value))
            attended = fused.attend(query, torch.cat([key, value], 1), lengths, heads, is_last)
            return attended.view(1, len(query), heads, -1), None
        if query.dtype == torch.float32:
            attended = nn.functional.scaled_dot_product_attention(
                query, key, value, attention_mask, dropout if module.training else 0.0, scale=scaling
            )
            return attended.transpose(1, 2).contiguous(), None
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
    if is_lean(model):
        last = model.base_model.encoder.layer[-1]
        last.forward = MethodType(_first_token, last)
    return model


def is_lean(model: PreTrainedModel) -> bool:
    """Whether it is a BERT or RoBERTa that runs on the attention of this module."""
    return model.config.model_type in ("bert", "roberta") and model.config._attn_implementation == NAME


def flat(model: PreTrainedModel, rows: list[list[int]]) -> dict:
    """Inputs that have a lean model read the texts' token ids one after the other, without padding between.

    A few texts of one adapter differ in length, and padded to the longest a third of their batch is padding. For
    inference on a CPU; the answers have one row a text, as ever. The end is filled up to a multiple of 64, since
    oneDNN compiles its products for each new size.
    """
    lengths, config = [len(row) for row in rows], model.config
    first = config.pad_token_id + 1 if config.model_type == "roberta" else 0  # RoBERTa counts positions from there
    rest = -sum(lengths) % 64
    ids = [*chain.from_iterable(rows), *[config.pad_token_id] * rest]
    places = [*chain.from_iterable(range(first, first + length) for length in lengths), *[first] * rest]
    return {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([places]), "lengths": lengths}


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


def _first_token(
    layer: nn.Module,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *_,
    lengths: list[int] | None = None,
    **__,
) -> torch.Tensor:
    """(rows, tokens, width), or (1, all tokens, width) of texts of those `lengths`, -> (rows, 1, width)."""
    inside = layer.attention.self
    first = hidden_states[:, [0, *accumulate(lengths)][:-1] if lengths else slice(1)]
    query, key, value = (
        linear(x).unflatten(-1, (-1, inside.attention_head_size)).transpose(1, 2)
        for linear, x in ((inside.query, first), (inside.key, hidden_states), (inside.value, hidden_states))
    )
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    attended, _ = lean(inside, query, key, value, mask, dropout=inside.dropout.p, lengths=lengths)
    found = layer.feed_forward_chunk(layer.attention.output(attended.flatten(2), first))
    return found.transpose(0, 1) if lengths else found


AttentionInterface.register(NAME, lean)
AttentionMaskInterface.register(NAME, eager_mask)
