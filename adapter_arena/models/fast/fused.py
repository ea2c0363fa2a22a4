"""A merged BERT, RoBERTa or similar model for inference on CPUs that does less work than the model in transformers.

- The tokens of all texts follow each other: no product is spent on padding, and attention needs no mask.
- The last layer computes only the first token of each text: the head reads nothing else.
- Query, key and value are one product, weights have the memory order that oneDNN reads, GELU is part of the product
  before it, and everything in between is in the compute type (bf16 or fp32); the head is in fp32.
- The layers are one TorchScript call: Python's lock is free for other threads while they run.
"""

import copy
import functools
import itertools
import sys
from typing import List, NamedTuple, Optional  # noqa: UP035 - TorchScript reads the annotations

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "camembert", "data2vec-text")
"""Model types with the layers of BERT. All but BERT itself count positions from the padding's id + 1."""


class Linear:
    """The weight and bias of linear layers with the same input, as one layer in the type `dtype`."""

    def __init__(self, layers: list[nn.Linear], dtype: torch.dtype):
        weight = torch.cat([layer.weight for layer in layers]).to(dtype)
        self.nbytes = weight.nbytes
        if _has_packed_products(weight):
            weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.weight = weight
        self.bias = torch.cat([layer.bias for layer in layers]).to(dtype)


Shared = dict[tuple[int, ...], Linear]
"""Fused layers of the base model alone, by the ids of the layers they are made of."""


class Layer(NamedTuple):
    """The weights of one transformer layer, as TorchScript takes them."""

    inputs_weight: torch.Tensor
    """Of query, key and value; in the last layer of key and value."""
    inputs_bias: torch.Tensor
    attention_weight: torch.Tensor
    attention_bias: torch.Tensor
    attention_norm_weight: torch.Tensor
    attention_norm_bias: torch.Tensor
    up_weight: torch.Tensor
    up_bias: torch.Tensor
    down_weight: torch.Tensor
    down_bias: torch.Tensor
    output_norm_weight: torch.Tensor
    output_norm_bias: torch.Tensor
    query_weight: Optional[torch.Tensor]  # noqa: UP045
    """In the last layer only."""
    query_bias: Optional[torch.Tensor]  # noqa: UP045


class Classifier(nn.Module):
    """The complete model; embeddings and head are those of the model it is made of."""

    def __init__(self, model: PreTrainedModel, shared: Shared):
        super().__init__()
        config = model.config
        body = model.base_model
        self._embeddings = body.embeddings
        self._pooler = _in_fp32(body.pooler)
        self._head = _in_fp32(model.classifier)
        self._heads = config.num_attention_heads
        self._eps = config.layer_norm_eps
        self._dtype = model.compute_dtype
        self._gelu_inside = _has_fast_gelu(self._dtype)
        self._first_position = first_position(config)
        self._shared = shared
        self.nbytes = 0
        """Size of the weights that are not shared with other adapters."""
        *layers, last = body.encoder.layer
        self._layers = [self._fuse_layer(layer) for layer in layers]
        self._layers.append(self._fuse_layer(last, is_last=True))

    def _fuse_layer(self, layer: nn.Module, is_last: bool = False) -> Layer:
        attention = layer.attention.self
        query = None
        if is_last:
            query = self._fuse([attention.query])
            inputs = self._fuse([attention.key, attention.value])
        else:
            inputs = self._fuse([attention.query, attention.key, attention.value])
        attention_output = self._fuse([layer.attention.output.dense])
        attention_norm = _active_norm(layer.attention.output.LayerNorm)
        up = self._fuse([layer.intermediate.dense])
        down = self._fuse([layer.output.dense])
        output_norm = _active_norm(layer.output.LayerNorm)
        return Layer(
            inputs_weight=inputs.weight,
            inputs_bias=inputs.bias,
            attention_weight=attention_output.weight,
            attention_bias=attention_output.bias,
            attention_norm_weight=attention_norm.weight,
            attention_norm_bias=attention_norm.bias,
            up_weight=up.weight,
            up_bias=up.bias,
            down_weight=down.weight,
            down_bias=down.bias,
            output_norm_weight=output_norm.weight,
            output_norm_bias=output_norm.bias,
            query_weight=query.weight if query else None,
            query_bias=query.bias if query else None,
        )

    def _fuse(self, layers: list[nn.Linear]) -> Linear:
        """Return the layers as one; if all of them are the base model's, it is shared with other adapters."""
        key = tuple(map(id, layers))
        if key in self._shared:
            return self._shared[key]
        fused = Linear(layers, self._dtype)
        if all(getattr(layer, "is_base", False) for layer in layers):
            self._shared[key] = fused
        else:
            self.nbytes += fused.nbytes
        return fused

    def forward(self, ids: list[list[int]], types: list[list[int]] | None = None) -> torch.Tensor:
        """Return logits of shape (rows, labels) for the token ids of each text, and their token types if not all are 0."""
        lengths = [len(row) for row in ids]
        packed = torch.tensor([list(itertools.chain.from_iterable(ids))])
        packed_types = torch.zeros_like(packed)
        if types is not None:
            packed_types = torch.tensor([list(itertools.chain.from_iterable(types))])
        positions: list[int] = []
        for length in lengths:
            positions.extend(range(self._first_position, self._first_position + length))
        x = self._embeddings(packed, packed_types, torch.tensor([positions]))[0].to(self._dtype)
        x = _compiled_encode()(x, lengths, self._heads, self._eps, self._gelu_inside, self._layers)
        x = x.float().unsqueeze(1)  # the head takes the first token of each text itself
        if self._pooler is not None:
            x = self._pooler(x)
        return self._head(x)


def _has_packed_products(weight: torch.Tensor) -> bool:
    """Return whether oneDNN has a memory order of its own for such a weight."""
    if not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _has_fast_gelu(dtype: torch.dtype) -> bool:
    """Return whether GELU inside oneDNN's product is faster than after it; on AVX2 the layer takes 12 % longer."""
    return dtype == torch.bfloat16 or torch.backends.cpu.get_cpu_capability() == "AVX512"


def _in_fp32(module: nn.Module | None) -> nn.Module | None:
    """Return the adapter's own pooler or head in fp32: it costs nothing, and bf16 would round the logits to a 256th."""
    if isinstance(module, ModulesToSaveWrapper) and module.active_adapters:
        module = module.modules_to_save[module.active_adapters[0]]
    if module is None or all(parameter.dtype == torch.float32 for parameter in module.parameters()):
        return module
    return copy.deepcopy(module).float()


def _active_norm(module: nn.Module) -> nn.LayerNorm:
    """Return the norm, or the adapter's own if it has one (LN tuning)."""
    own = getattr(module, "ln_tuning_layers", None)
    if isinstance(module, BaseTunerLayer) and own:
        return own[module.active_adapters[0]]
    return module


@functools.cache
def _compiled_encode():
    """Return `_encode`, compiled if TorchScript and oneDNN's products are available."""
    if sys.version_info >= (3, 14) or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return _encode
    torch._C._jit_set_profiling_executor(False)  # it would compile again for the first sizes it sees
    return torch.jit.script(_encode)


def _encode(
    x: torch.Tensor,
    lengths: List[int],  # noqa: UP006
    heads: int,
    eps: float,
    gelu_inside: bool,
    layers: List[Layer],  # noqa: UP006
) -> torch.Tensor:
    """Compute the layers: (all tokens, width) -> (rows, width), the first token of each text."""
    rows = len(lengths)
    width = [x.shape[1]]
    first = torch.zeros(rows, dtype=torch.long)
    start = 0
    for row in range(rows):
        first[row] = start
        start += lengths[row]
    x = _padded(x)
    for layer in layers:
        inputs = _linear(x, layer.inputs_weight, layer.inputs_bias, False)
        query_weight = layer.query_weight
        query_bias = layer.query_bias
        if query_weight is not None and query_bias is not None:
            x = _padded(x[first])
            attended = attend(_linear(x, query_weight, query_bias, False), inputs, lengths, heads, True)
        else:
            query = inputs[:, : width[0]]
            attended = attend(query, inputs[:, width[0] :], lengths, heads, False)
        x = _linear(attended, layer.attention_weight, layer.attention_bias, False) + x
        x = torch.layer_norm(x, width, layer.attention_norm_weight, layer.attention_norm_bias, eps)
        up = _linear(x, layer.up_weight, layer.up_bias, gelu_inside)
        if not gelu_inside:
            up = functional.gelu(up)
        x = _linear(up, layer.down_weight, layer.down_bias, False) + x
        x = torch.layer_norm(x, width, layer.output_norm_weight, layer.output_norm_bias, eps)
    return x[:rows]


def attend(
    query: torch.Tensor,
    keys_values: torch.Tensor,
    lengths: List[int],  # noqa: UP006
    heads: int,
    is_last: bool,
) -> torch.Tensor:
    """Return the attention of packed texts, in which each token attends to the tokens of its own text.

    `query` is (all tokens, width), or with `is_last` (rows, width) for the first token of each text; `keys_values` is
    (all tokens, 2 * width); the result has the shape of `query`. It is zero for padding after the last text.
    """
    size = query.shape[1] // heads
    query = query * size**-0.5
    out = torch.zeros_like(query)
    row = 0
    token = 0
    while row < len(lengths):
        # Neighbours of the same length are computed together. Long texts are computed singly: that is as fast, and
        # every number of rows is one more size to compile for.
        length = lengths[row]
        rows = 1
        while length < 64 and row + rows < len(lengths) and lengths[row + rows] == length:
            rows += 1
        end = token + rows * length
        query_start = token
        query_end = end
        if is_last:
            query_start = row
            query_end = row + rows
        q = query[query_start:query_end].view(rows, -1, heads, size).transpose(1, 2)
        both = keys_values[token:end].view(rows, length, 2, heads, size).permute(2, 0, 3, 1, 4)
        if query.dtype == torch.float32:
            attended = functional.scaled_dot_product_attention(q, both[0], both[1], scale=1.0)
        else:  # in bf16, scaled_dot_product_attention is slower
            scores = q @ both[0].transpose(2, 3)
            torch.softmax(scores, -1, out=scores)
            attended = scores @ both[1]
        out[query_start:query_end].view(rows, -1, heads, size).copy_(attended.transpose(1, 2))
        row += rows
        token = end
    return out


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, gelu: bool) -> torch.Tensor:
    """Compute a linear layer, (rows, in) -> (rows, out), and GELU if `gelu`."""
    if weight.is_mkldnn:
        if gelu:
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "none")
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    x = functional.linear(x, weight, bias)
    return functional.gelu(x) if gelu else x


def _padded(x: torch.Tensor) -> torch.Tensor:
    """Add zero rows up to a multiple of 16, above 256 rows of 64: oneDNN compiles for each new size, 0.6 to 2 ms a layer."""
    step = 16 if x.shape[0] <= 256 else 64
    return functional.pad(x, [0, 0, 0, (step - x.shape[0] % step) % step])


def fuse(model: nn.Module, shared: Shared) -> Classifier | None:
    """Return the model as a Classifier, which uses and adds to `shared`; None for other architectures and on a GPU.

    A GPU computes a padded batch faster than one text after the other, and has no layer norm for mixed types.
    """
    if model.config.model_type not in MODEL_TYPES or model.config.hidden_act != "gelu" or model.device.type != "cpu":
        return None
    return Classifier(model, shared)


def first_position(config: PretrainedConfig) -> int:
    """Return the position of a text's first token."""
    return 0 if config.model_type == "bert" else config.pad_token_id + 1
