"""Linear layers in the compute type in place of 4-bit layers: the base model's own, or merged with an adapter.

From 4 bits an adapter costs only its own bytes, but each pass dequantises the base model's weights and computes the
adapter's products in addition. A merged adapter has one weight for both.
"""

from types import MethodType
from typing import NamedTuple

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn import functional

from adapter_arena.models.fast import fused

_TOLERANCE = 1e-3
"""Largest error of a merged layer on random input, relative to its output; fp32 rounding alone leaves 1e-6."""


class Merged(NamedTuple):
    """A merged model, and the size of its weights that are not shared with other adapters."""

    model: nn.Module
    nbytes: int


def widen(model: nn.Module, room_mb: float) -> float:
    """Store the model's 4-bit weights in the compute type too if they fit in `room_mb`; return their size in MB.

    No pass dequantises them then, so every adapter that is not merged gains. Call it before any skeleton of the model
    is made. fp32 takes twice as much memory as bf16.
    """
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    nbytes = sum(layer.in_features * layer.out_features * layer.compute_dtype.itemsize for layer in layers)
    size_mb = nbytes / 1e6
    if not layers or size_mb > room_mb:
        return 0.0
    for layer in layers:
        wide = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(layer.compute_dtype)
        layer.register_buffer("wide", wide, persistent=False)  # skeletons share buffers
        layer.forward = MethodType(_forward_wide, layer)
    return size_mb


def _forward_wide(layer: Linear4bit, x: torch.Tensor) -> torch.Tensor:
    """Compute what Linear4bit does: the product in the compute type, the result in the type of `x`."""
    wide = layer.wide
    bias = None if layer.bias is None else layer.bias.to(wide.dtype)
    return functional.linear(x.to(wide.dtype), wide, bias).to(x.dtype)


class SharedLayers:
    """Dequantised layers of a base model, shared by the merged adapters that leave them unchanged."""

    def __init__(self, base: nn.Module):
        self._layers: dict[tuple[int, int], nn.Linear | None] = {}
        """By `_key`; None until an adapter needs the layer."""
        for module in base.modules():
            if isinstance(module, Linear4bit):
                self._layers[_key(module)] = None
        self.fused: fused.Shared = {}

    def get(self, layer: Linear4bit) -> nn.Linear | None:
        """Return the layer in the compute type, or None if its weight or bias is not the base model's."""
        key = _key(layer)
        if key not in self._layers:
            return None
        shared = self._layers[key]
        if shared is None:
            shared = _dequantise(layer).to(layer.compute_dtype)
            shared.is_base = True
            self._layers[key] = shared
        return shared


def _key(layer: Linear4bit) -> tuple[int, int]:
    """Return the ids of the layer's weight and bias; an adapter may bring biases of its own."""
    return id(layer.weight), id(layer.bias)


@torch.inference_mode()
def merge(model: nn.Module, shared_layers: SharedLayers) -> Merged | None:
    """Replace the 4-bit layers of `model`, a skeleton that is changed, by merged layers in the compute type.

    Return the model, fused if its architecture allows it, or None if a layer cannot be merged. Every adapter whose
    layers stay linear can be merged, whatever its type.
    """
    nbytes = 0
    for name, layer in _quantised_layers(model).items():
        if isinstance(layer, BaseTunerLayer):
            new = _merge_layer(layer)
            if new is None:
                return None
            is_shared = False
        else:
            new = shared_layers.get(layer)
            is_shared = new is not None
            if new is None:
                new = _dequantise(layer).to(layer.compute_dtype)
        if not is_shared:
            nbytes += sum(parameter.nbytes for parameter in new.parameters())
        model.set_submodule(name, new)
    if isinstance(model, PeftModel):
        if model.active_peft_config.is_prompt_learning:  # PEFT puts the virtual tokens in front of each text
            return Merged(model, nbytes)
        plain = model.get_base_model()
    else:
        plain = model
    classifier = fused.fuse(plain, shared_layers.fused)
    if classifier is None:
        return Merged(model, nbytes)
    return Merged(classifier, classifier.nbytes)


def _quantised_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the adapter's layers around 4-bit layers, and the 4-bit layers without an adapter, by name."""
    layers: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if any(name.startswith(f"{outer}.") for outer in layers):
            continue
        inner = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        if isinstance(inner, Linear4bit):
            layers[name] = module
    return layers


def _merge_layer(layer: BaseTunerLayer) -> nn.Linear | None:
    """Return the linear layer that computes what `layer` and its adapter do, or None if they are not linear.

    The columns of its weight are the outputs of `layer` for the unit vectors.

    PEFT's own `merge` rounds the result to 4 bits if the base layer is in 4 bits. Loading the adapter again on a
    dequantised base model and merging it there takes 127 ms of one core instead of 189 ms (LoRA on MiniLM, DoRA: 200
    instead of 348), but it needs the complete base model in fp32 and the adapter's files, and it does not detect a
    layer that is not linear.
    """
    quantised = layer.get_base_layer()
    base = _dequantise(quantised, _UnitVectorLinear)
    # The type is given: while transformers loads a model in another thread, the default type of all threads is bf16.
    like = {"device": base.weight.device, "dtype": torch.float32}
    base.units = torch.eye(base.in_features, **like)
    innermost = layer
    while isinstance(innermost.base_layer, BaseTunerLayer):
        innermost = innermost.base_layer
    innermost.base_layer = base
    bias = layer(torch.zeros(1, base.in_features, **like))
    weight = (layer(base.units) - bias).T
    probe = torch.randn(4, base.in_features, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    probe = probe.to(base.weight.device)
    expected = layer(probe)
    error = (expected - probe @ weight.T - bias).abs().max()
    if not error <= _TOLERANCE * expected.abs().max():  # also if the error is NaN
        return None
    return _linear(weight, bias[0]).to(quantised.compute_dtype)


class _UnitVectorLinear(nn.Linear):
    """A layer that returns its product with `units`, the unit vectors, without computing it.

    This product would be most of the work of merging.
    """

    units: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute what Linear does."""
        if x is not self.units:
            return super().forward(x)
        return self.weight.T.clone() if self.bias is None else self.weight.T + self.bias


def _dequantise(layer: Linear4bit, kind: type[nn.Linear] = nn.Linear) -> nn.Linear:
    """Return the layer in fp32, as a layer of class `kind`."""
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    return _linear(weight, layer.bias, kind)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, kind: type[nn.Linear] = nn.Linear) -> nn.Linear:
    with torch.device("meta"):  # the random weights of a new layer would be drawn for nothing
        layer = kind(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().float(), requires_grad=False)
    return layer
