"""Attention: scores in the type of the queries, packed inputs, and a last layer for the first token only."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, chain
from types import MethodType

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from adapter_arena.models.fast import fused

NAME = "adapter_arena"
"""Name of this attention in transformers."""


def attention_forward(
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
    """Compute the eager attention of transformers in fewer passes over memory.

    `query`, `key` and `value` are (batch, heads, tokens, size), the result is (batch, tokens, heads, size). Under
    autocast, eager attention widens the scores, a number for each pair of tokens, to fp32: it adds a mask in fp32, and
    softmax is autocast to fp32. The softmax of bf16 computes in fp32 internally, so this gains nothing. Here the scores
    stay in bf16, and the queries are scaled instead of the scores. On GPUs, and on CPUs in fp32, PyTorch's fused
    attention is faster. `lengths` are those of packed inputs, see
    `packed_inputs`.
    """
    device = query.device.type
    if torch.is_autocast_enabled(device):  # the scales of IA³ have widened keys and values
        dtype = torch.get_autocast_dtype(device)
        query = query.to(dtype)
        key = key.to(dtype)
        value = value.to(dtype)
    with torch.autocast(device, enabled=False):
        if lengths:
            return _packed_attention(query, key, value, lengths), None
        if scaling is None:
            scaling = query.shape[-1] ** -0.5
        if device != "cpu" or query.dtype == torch.float32:
            mask = None if attention_mask is None else attention_mask.to(query.dtype)
            attended = nn.functional.scaled_dot_product_attention(
                query, key, value, mask, dropout if module.training else 0.0, scale=scaling
            )
            return attended.transpose(1, 2).contiguous(), None
        scores = torch.matmul(query * scaling, key.transpose(2, 3))
        if attention_mask is not None:
            lowest = torch.finfo(scores.dtype).min
            scores = scores.add_(attention_mask.to(scores.dtype).clamp_min(lowest))
        weights = nn.functional.dropout(scores.softmax(-1), p=dropout, training=module.training)
        return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


def _packed_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Return the attention of packed inputs, (1, tokens, heads, size); each is given as (1, heads, tokens, size)."""
    heads = query.shape[1]
    is_last_layer = query.shape[2] < key.shape[2]  # it has queries for the first token of each text only
    query = _tokens_first(query)
    keys_values = torch.cat([_tokens_first(key), _tokens_first(value)], 1)
    attended = fused.attend(query, keys_values, lengths, heads, is_last_layer)
    return attended.view(1, len(query), heads, -1)


def _tokens_first(x: torch.Tensor) -> torch.Tensor:
    """(1, heads, tokens, size) -> (tokens, heads * size)."""
    return x.transpose(1, 2).flatten(2)[0]


def first_token_only(model: PreTrainedModel) -> PreTrainedModel:
    """Make the last layer of a classifier with BERT's layers compute the first token only; return the model.

    The head reads nothing else, so answers and gradients stay the same. It saves five sixths of that layer's linear
    products: with six layers about a seventh of the time, in training and in serving. Other models are unchanged.
    """
    if supports_packed_inputs(model):
        last = model.base_model.encoder.layer[-1]
        last.forward = MethodType(_forward_first_token, last)
    return model


def supports_packed_inputs(model: PreTrainedModel) -> bool:
    """Return whether the model has BERT's layers and runs on the attention of this module."""
    return model.config.model_type in fused.MODEL_TYPES and model.config._attn_implementation == NAME


def packed_inputs(model: PreTrainedModel, rows: list[list[int]], types: list[list[int]] | None = None) -> dict:
    """Return model inputs in which the texts' token ids follow each other without padding.

    A few texts of one adapter differ in length, and padded to the longest, a third of their batch is padding. For
    inference on a CPU with a model that `supports_packed_inputs`; the logits have one row for each text, as usual. The
    end is filled up to a multiple of 64, since oneDNN compiles its products for each new size. `types` are the token
    types, if not all are 0.
    """
    first_position = fused.first_position(model.config)
    lengths = [len(row) for row in rows]
    padding = -sum(lengths) % 64
    ids = [*chain.from_iterable(rows), *[model.config.pad_token_id] * padding]
    positions: list[int] = []
    for length in lengths:
        positions.extend(range(first_position, first_position + length))
    positions.extend([first_position] * padding)
    inputs = {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([positions]), "lengths": lengths}
    if types is not None:
        inputs["token_type_ids"] = torch.tensor([[*chain.from_iterable(types), *[0] * padding]])
    return inputs


@contextmanager
def every_token(model: nn.Module) -> Iterator[None]:
    """Make every layer compute every token inside the block, for code that looks at the layers' inputs."""
    patched = {}
    for layer in model.modules():
        forward = vars(layer).get("forward")
        if getattr(forward, "__func__", None) is _forward_first_token:
            patched[layer] = forward
    for layer in patched:
        del layer.forward
    try:
        yield
    finally:
        for layer, forward in patched.items():
            layer.forward = forward


def _forward_first_token(
    layer: nn.Module,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *_,
    lengths: list[int] | None = None,
    **__,
) -> torch.Tensor:
    """Compute the layer for each text's first token: (rows, tokens, width) -> (rows, 1, width).

    With `lengths`, the hidden states are those of packed inputs: (1, all tokens, width).
    """
    attention = layer.attention.self
    if lengths:
        starts = [0, *accumulate(lengths)][:-1]
        first = hidden_states[:, starts]
    else:
        first = hidden_states[:, :1]
    query = _split_heads(attention, attention.query(first))
    key = _split_heads(attention, attention.key(hidden_states))
    value = _split_heads(attention, attention.value(hidden_states))
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    attended, _ = attention_forward(attention, query, key, value, mask, dropout=attention.dropout.p, lengths=lengths)
    output = layer.feed_forward_chunk(layer.attention.output(attended.flatten(2), first))
    return output.transpose(0, 1) if lengths else output


def _split_heads(attention: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(batch, tokens, width) -> (batch, heads, tokens, size)."""
    return x.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)


AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, eager_mask)
