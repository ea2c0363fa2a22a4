"""LoRA layers in fewer passes over memory, for training.

PEFT computes a layer as base(x) + B(A(x)) * scaling: a sum and a scaling of full-size tensors in the forward pass, and
two more sums in the backward pass. Here the low-rank product is accumulated into the base layer's result, by the
addend of BLAS's matrix product. The numbers are the same up to rounding.
"""

from types import MethodType

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional

_NAME = "default"
"""The one adapter of a model in training, as `get_peft_model` names it."""


class _Product(torch.autograd.Function):
    """A frozen layer with a low-rank update: x W^T + bias + scaling * x A^T B^T; (rows, in) -> (rows, out)."""

    @staticmethod
    def forward(ctx, x, down, up, base, scaling):
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        rows = x.to(dtype)
        down_cast = down.to(dtype)
        up_cast = up.to(dtype)
        narrow = rows @ down_cast.T
        bias = None if base.bias is None else base.bias.to(dtype)
        result = functional.linear(rows, _weight(base, dtype), bias)
        result.addmm_(narrow, up_cast.T, alpha=scaling)
        ctx.save_for_backward(rows, narrow, down_cast, up_cast)
        ctx.base = base
        ctx.scaling = scaling
        ctx.types = x.dtype, down.dtype
        return result

    @staticmethod
    def backward(ctx, gradient):
        rows, narrow, down, up = ctx.saved_tensors
        x_type, adapter_type = ctx.types
        gradient_rows = gradient.to(rows.dtype)
        narrow_gradient = (gradient_rows @ up) * ctx.scaling
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = gradient_rows @ _weight(ctx.base, rows.dtype)
            to_x.addmm_(narrow_gradient, down)
            to_x = to_x.to(x_type)
        to_down = (narrow_gradient.T @ rows).to(adapter_type)
        to_up = (gradient_rows.T @ narrow).to(adapter_type) * ctx.scaling
        return to_x, to_down, to_up, None, None


def _weight(base: nn.Linear, dtype: torch.dtype) -> torch.Tensor:
    """Return the layer's weight, dequantised if it is in 4 bits."""
    if isinstance(base, Linear4bit):
        return dequantize_4bit(base.weight.data, base.weight.quant_state).to(dtype)
    return base.weight.to(dtype)


def accelerate(model: PeftModel) -> PeftModel:
    """Make the plain LoRA layers of a model in training use this computation; return the model.

    Layers with dropout or of another kind (DoRA, AdaLoRA, embeddings) are unchanged.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer) and _is_plain(module):
            module.forward = MethodType(_forward, module)
    return model


def _is_plain(layer: LoraLayer) -> bool:
    base = layer.get_base_layer()
    if type(base) not in (nn.Linear, Linear4bit) or base.weight.requires_grad:
        return False
    has_matrices = set(getattr(layer, "lora_A", ())) == {_NAME} and isinstance(layer.lora_A[_NAME], nn.Linear)
    return has_matrices and not layer.lora_variant and isinstance(layer.lora_dropout[_NAME], nn.Identity)


def _forward(layer: LoraLayer, x: torch.Tensor) -> torch.Tensor:
    if not layer.training:  # validation must give exactly the numbers of the reloaded adapter
        return type(layer).forward(layer, x)
    down = layer.lora_A[_NAME].weight
    up = layer.lora_B[_NAME].weight
    # Reshaped outside of the function: Longformer changes the result in place, which a view made inside forbids.
    result = _Product.apply(x.flatten(0, -2), down, up, layer.base_layer, layer.scaling[_NAME])
    return result.unflatten(0, x.shape[:-1])
