"""A merged BERT or RoBERTa for inference, doing less than transformers' own.

- Tokens of all texts stand one after the other: no product is spent on padding, and attention needs no mask.
- Of the last layer only what stands at each text's first token is computed: the head reads nothing else.
- One product for query, key and value, weights in the order that oneDNN reads them in, GELU inside the product
  before it, all between in bf16.
"""

import itertools
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

_MODELS = ("BertForSequenceClassification", "RobertaForSequenceClassification")
Shared = dict[tuple[int, ...], "Linear"]


class Linear(nn.Module):
    """The given layers on the same input as one, bf16, then GELU if `gelu`."""

    def __init__(self, layers: list[nn.Linear], gelu: bool = False):
        super().__init__()
        weight = torch.cat([layer.weight for layer in layers]).to(torch.bfloat16)
        self.nbytes = weight.nbytes
        self._gelu = gelu
        self._packed = weight.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self._packed else weight
        self._bias = torch.cat([layer.bias for layer in layers]).to(torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) -> (…, out), both bf16."""
        if self._packed:
            after = ("gelu", [], "none") if self._gelu else ("none", [], "")
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, *after)
        x = functional.linear(x, self._weight, self._bias)
        return functional.gelu(x) if self._gelu else x


class _Layer(NamedTuple):
    inputs: tuple[Linear, ...]
    """Query, key and value in one; in the last layer query, and key and value."""
    attended: Linear
    norm: nn.Module
    up: Linear
    down: Linear
    last_norm: nn.Module


class Classifier(nn.Module):
    """The whole model, with the embeddings and the head of the given one; called as that is."""

    def __init__(self, model: PreTrainedModel, shared: Shared):
        super().__init__()
        body = model.base_model
        self._embeddings, self._pooler, self._head = body.embeddings, body.pooler, model.classifier
        self._heads = model.config.num_attention_heads
        self._shared = shared
        self.nbytes = 0
        """Of weights that no other adapter has, since its own differ from the base's there."""
        layers = body.encoder.layer
        self._layers = [self._layer(layer, layer is layers[-1]) for layer in layers]

    def _layer(self, layer: nn.Module, is_last: bool) -> _Layer:
        inside, to = layer.attention.self, layer.attention.output
        inputs = ([inside.query], [inside.key, inside.value])
        if not is_last:
            inputs = (inputs[0] + inputs[1],)
        return _Layer(
            tuple(map(self._linear, inputs)),
            self._linear([to.dense]),
            to.LayerNorm,
            self._linear([layer.intermediate.dense], gelu=True),
            self._linear([layer.output.dense]),
            layer.output.LayerNorm,
        )

    def _linear(self, layers: list[nn.Linear], gelu: bool = False) -> Linear:
        key = tuple(map(id, layers))
        if key in self._shared:
            return self._shared[key]
        found = Linear(layers, gelu)
        if all(getattr(layer, "is_base", False) for layer in layers):
            self._shared[key] = found
        else:
            self.nbytes += found.nbytes
        return found

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SequenceClassifierOutput:
        """Token ids of shape (rows, tokens), padded behind; to be called under autocast."""
        lengths = attention_mask.sum(1).tolist()
        x = self._embeddings(input_ids=input_ids)
        x = x.flatten(0, 1) if min(lengths) == input_ids.shape[1] else x[attention_mask.bool()]
        with torch.autocast(x.device.type, enabled=False):
            x, runs, first = _padded(x.to(torch.bfloat16)), _runs(lengths), _starts(lengths, x.device)
            for layer in self._layers:
                x = self._run(layer, x, runs, first)
        x = x[: len(lengths)].unsqueeze(1)  # the head takes each text's first token itself
        return SequenceClassifierOutput(logits=self._head(self._pooler(x) if self._pooler else x))

    def _run(self, layer: _Layer, x: torch.Tensor, runs: list["_Run"], first: torch.Tensor) -> torch.Tensor:
        """(all tokens, width) -> the same, or after the last layer (rows, width)."""
        is_last = len(layer.inputs) == 2
        if is_last:
            keys_values, x = layer.inputs[1](x), _padded(x[first])
            query = layer.inputs[0](x)
        else:
            query, keys_values = layer.inputs[0](x).tensor_split([x.shape[1]], 1)
        attended = self._attend(query, keys_values, runs, is_last)
        x = layer.norm(layer.attended(attended) + x)
        return layer.last_norm(layer.down(layer.up(x)) + x)

    def _attend(
        self, query: torch.Tensor, keys_values: torch.Tensor, runs: list["_Run"], is_last: bool
    ) -> torch.Tensor:
        width = query.shape[1]
        size = width // self._heads
        query = query * size**-0.5
        out = torch.zeros_like(query)
        for run in runs:
            asked = slice(run.row, run.row + run.rows) if is_last else run.tokens
            q = query[asked].view(run.rows, -1, self._heads, size).transpose(1, 2)
            k, v = keys_values[run.tokens].view(run.rows, run.length, 2, self._heads, size).permute(2, 0, 3, 1, 4)
            scores = q @ k.transpose(2, 3)
            torch.softmax(scores, -1, out=scores)
            out[asked].view(run.rows, -1, self._heads, size).copy_((scores @ v).transpose(1, 2))
        return out


class _Run(NamedTuple):
    """Neighbouring texts of one length."""

    row: int
    rows: int
    length: int
    tokens: slice


def _padded(x: torch.Tensor) -> torch.Tensor:
    """Zero rows added up to a multiple of 16, of 64 beyond 256: oneDNN compiles for each new size, 0.6 to 2 ms a layer."""
    step = 16 if len(x) <= 256 else 64
    return functional.pad(x, (0, 0, 0, -len(x) % step))


def _runs(lengths: list[int]) -> list[_Run]:
    runs, row, token = [], 0, 0
    # Long texts are attended one by one: that is as fast, and every number of rows is one more size to compile for.
    for length, group in itertools.groupby(enumerate(lengths), lambda pair: (pair[1], pair[1] >= 64 and pair[0])):
        rows, length = len(list(group)), length[0]
        runs.append(_Run(row, rows, length, slice(token, token + rows * length)))
        row, token = row + rows, token + rows * length
    return runs


def _starts(lengths: list[int], device: torch.device) -> torch.Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)][:-1], device=device)


def fuse(model: nn.Module, shared: Shared) -> Classifier | None:
    """The model as a Classifier; None where it is of another kind."""
    is_known = type(model).__name__ in _MODELS and model.config.hidden_act == "gelu"
    return Classifier(model, shared) if is_known else None
