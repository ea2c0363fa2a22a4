"""A merged BERT or RoBERTa for inference, doing less than transformers' own.

- Tokens of all texts stand one after the other: no product is spent on padding, and attention needs no mask.
- Of the last layer only what stands at each text's first token is computed: the head reads nothing else.
- One product for query, key and value, weights in the order that oneDNN reads them in, GELU inside the product
  before it, all between in the compute type (bf16 or fp32); the head in fp32.
- The layers are one TorchScript call: Python's lock is free for the other threads until they are done.
"""

import copy
import functools
import itertools
import sys
from typing import List  # noqa: UP035 - TorchScript reads the annotations

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

_MODELS = ("BertForSequenceClassification", "RobertaForSequenceClassification")
Shared = dict[tuple[int, ...], "Linear"]


class Linear:
    """The weight and bias of linear layers on the same input as one, in the type `dtype`."""

    def __init__(self, layers: list[nn.Linear], dtype: torch.dtype):
        weight = torch.cat([layer.weight for layer in layers]).to(dtype)
        self.nbytes = weight.nbytes
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if _has_packed_products(weight) else weight
        self.bias = torch.cat([layer.bias for layer in layers]).to(dtype)


class Classifier(nn.Module):
    """The whole model, with the embeddings and the head of the given one."""

    def __init__(self, model: PreTrainedModel, shared: Shared):
        super().__init__()
        body = model.base_model
        self._embeddings = body.embeddings
        self._pooler, self._head = (_exact(module) for module in (body.pooler, model.classifier))
        self._heads, self._eps = model.config.num_attention_heads, model.config.layer_norm_eps
        self._dtype = model.compute_dtype
        self._gelu_inside = _has_fast_gelu(self._dtype)
        self._device = body.embeddings.word_embeddings.weight.device
        # RoBERTa counts positions from the padding's id + 1.
        self._first = model.config.pad_token_id + 1 if model.config.model_type == "roberta" else 0
        self._shared = shared
        self.nbytes = 0
        """Of weights that no other adapter has, since its own differ from the base's there."""
        layers = body.encoder.layer
        self._layers = [self._layer(layer, layer is layers[-1]) for layer in layers]

    def _layer(self, layer: nn.Module, is_last: bool) -> list[torch.Tensor]:
        """As `_encode` takes them."""
        inside, to = layer.attention.self, layer.attention.output
        inputs = (
            ([inside.key, inside.value], [inside.query]) if is_last else ([inside.query, inside.key, inside.value],)
        )
        first, *query = [self._linear(layers) for layers in inputs]
        attended, up, down = ([to.dense], [layer.intermediate.dense], [layer.output.dense])
        parts = [first, self._linear(attended), _norm(to.LayerNorm), self._linear(up), self._linear(down)]
        parts += [_norm(layer.output.LayerNorm), *query]
        return [tensor for part in parts for tensor in (part.weight, part.bias)]

    def _linear(self, layers: list[nn.Linear]) -> Linear:
        key = tuple(map(id, layers))
        if key in self._shared:
            return self._shared[key]
        found = Linear(layers, self._dtype)
        if all(getattr(layer, "is_base", False) for layer in layers):
            self._shared[key] = found
        else:
            self.nbytes += found.nbytes
        return found

    def forward(self, ids: list[list[int]]) -> torch.Tensor:
        """Logits of shape (rows, labels) for the token ids of each text."""
        lengths = [len(row) for row in ids]
        flat = torch.tensor([list(itertools.chain.from_iterable(ids))], device=self._device)
        places = torch.tensor([[place for n in lengths for place in range(self._first, self._first + n)]])
        x = self._embeddings(flat, torch.zeros_like(flat), places.to(self._device))[0]
        x = _layers()(x.to(self._dtype), lengths, self._heads, self._eps, self._gelu_inside, self._layers)
        x = x.float().unsqueeze(1)  # the head takes each text's first token itself
        return self._head(self._pooler(x) if self._pooler else x)


def _has_packed_products(weight: torch.Tensor) -> bool:
    """Whether oneDNN multiplies by such a weight in an order of its own."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _has_fast_gelu(dtype: torch.dtype) -> bool:
    """Whether GELU inside oneDNN's product is faster than after it; on AVX2 the layer takes 12 % longer with it."""
    return dtype == torch.bfloat16 or torch.backends.cpu.get_cpu_capability() == "AVX512"


def _exact(module: nn.Module | None) -> nn.Module | None:
    """The adapter's own pooler or head in fp32: it costs nothing, and bf16 would round the logits to a 256th."""
    if isinstance(module, ModulesToSaveWrapper) and module.active_adapters:
        module = module.modules_to_save[module.active_adapters[0]]
    if module is None or all(parameter.dtype == torch.float32 for parameter in module.parameters()):
        return module
    return copy.deepcopy(module).float()


def _norm(module: nn.Module) -> nn.LayerNorm:
    """The norm itself, of an adapter that brings its own too (LN tuning)."""
    own = getattr(module, "ln_tuning_layers", None)
    return own[module.active_adapters[0]] if isinstance(module, BaseTunerLayer) and own else module


@functools.cache
def _layers():
    """`_encode`, compiled where TorchScript and oneDNN's products are there."""
    if sys.version_info >= (3, 14) or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return _encode
    torch._C._jit_set_profiling_executor(False)  # it would compile anew for the sizes it has seen first
    return torch.jit.script(_encode)


def _encode(
    x: torch.Tensor,
    lengths: List[int],  # noqa: UP006
    heads: int,
    eps: float,
    gelu_inside: bool,
    layers: List[List[torch.Tensor]],  # noqa: UP006
) -> torch.Tensor:
    """(all tokens, width) -> (rows, width), each text's first token.

    `layers`: weight and bias of the inputs (query, key, value; in the last layer key, value), of the attention's
    output, its norm, up, down, their norm, and in the last layer of the query.
    """
    rows, width = len(lengths), [x.shape[1]]
    first, start = torch.zeros(rows, dtype=torch.long), 0
    for row in range(rows):
        first[row] = start
        start += lengths[row]
    first = first.to(x.device)
    x = _padded(x)
    for layer in layers:
        inputs = _linear(x, layer[0], layer[1], False)
        if len(layer) == 14:
            x = _padded(x[first])
            attended = attend(_linear(x, layer[12], layer[13], False), inputs, lengths, heads, True)
        else:
            query = inputs[:, : width[0]]
            attended = attend(query, inputs[:, width[0] :], lengths, heads, False)
        x = torch.layer_norm(_linear(attended, layer[2], layer[3], False) + x, width, layer[4], layer[5], eps)
        up = _linear(x, layer[6], layer[7], gelu_inside)
        if not gelu_inside:
            up = functional.gelu(up)
        x = torch.layer_norm(_linear(up, layer[8], layer[9], False) + x, width, layer[10], layer[11], eps)
    return x[:rows]


def attend(
    query: torch.Tensor,
    keys_values: torch.Tensor,
    lengths: List[int],  # noqa: UP006
    heads: int,
    is_last: bool,
) -> torch.Tensor:
    """Each text's tokens attend to its own, which stand one text after the other; (as queries, width).

    `query` is (all tokens, width), or with `is_last` (rows, width) for each text's first; `keys_values` is (all tokens,
    twice the width). Tokens behind the last text's are left at zero.
    """
    size = query.shape[1] // heads
    query = query * size**-0.5
    out = torch.zeros_like(query)
    row, token = 0, 0
    while row < len(lengths):
        # Neighbours of one length together; long texts singly: that is as fast, and every number of rows is one
        # more size to compile for.
        length, rows = lengths[row], 1
        while length < 64 and row + rows < len(lengths) and lengths[row + rows] == length:
            rows += 1
        end = token + rows * length
        asked, asked_end = token, end
        if is_last:
            asked, asked_end = row, row + rows
        q = query[asked:asked_end].view(rows, -1, heads, size).transpose(1, 2)
        both = keys_values[token:end].view(rows, length, 2, heads, size).permute(2, 0, 3, 1, 4)
        if query.dtype == torch.float32:
            attended = functional.scaled_dot_product_attention(q, both[0], both[1], scale=1.0)
        else:  # in bf16 that is the slower one
            scores = q @ both[0].transpose(2, 3)
            torch.softmax(scores, -1, out=scores)
            attended = scores @ both[1]
        out[asked:asked_end].view(rows, -1, heads, size).copy_(attended.transpose(1, 2))
        row, token = row + rows, end
    return out


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, gelu: bool) -> torch.Tensor:
    """(rows, in) -> (rows, out), then GELU if `gelu`."""
    if weight.is_mkldnn:
        if gelu:
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "none")
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    x = functional.linear(x, weight, bias)
    return functional.gelu(x) if gelu else x


def _padded(x: torch.Tensor) -> torch.Tensor:
    """Zero rows added up to a multiple of 16, of 64 beyond 256: oneDNN compiles for each new size, 0.6 to 2 ms a layer."""
    step = 16 if x.shape[0] <= 256 else 64
    return functional.pad(x, [0, 0, 0, (step - x.shape[0] % step) % step])


def fuse(model: nn.Module, shared: Shared) -> Classifier | None:
    """The model as a Classifier; None where it is of another kind."""
    is_known = type(model).__name__ in _MODELS and model.config.hidden_act == "gelu"
    return Classifier(model, shared) if is_known else None
