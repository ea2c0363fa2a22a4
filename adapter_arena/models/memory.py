"""Memory that a base model takes, counted from its config before anything is downloaded."""

import re
from dataclasses import dataclass

from torch import nn

from adapter_arena import machine
from adapter_arena.errors import BaseModelError
from adapter_arena.models import inspect
from adapter_arena.models.architecture import Architecture, is_quantisable

_NF4_BYTES = 0.5 + (1 + 4 / 256) / 64
"""Bytes of a weight in NF4 with double quantisation: 4 bits, and for each 64 weights a scale of 8 bits."""


_ADAMW_BYTES = 12
"""Bytes for each trained parameter: its gradient and two moments in fp32."""


@dataclass(frozen=True)
class Estimate:
    """Size of a base model with its head."""

    parameters: int
    megabytes: float
    """Memory of its weights, in MB of 10^6 bytes; what a forward pass needs comes on top."""


def estimate(
    config: dict, architecture: Architecture, precision: str = "nf4", computes_in_fp32: bool = False
) -> Estimate:
    """Return the size of the model with this config in a precision: `nf4`, `bf16` or `fp32`.

    `computes_in_fp32` is for machines and models that compute in fp32: there `bf16` takes 32 bits.
    """
    model = inspect.meta_model(config)
    head = re.compile(architecture.outside_encoder)
    parameters = 0
    nbytes = 0.0
    seen: set[int] = set()
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) in seen:  # shared with another layer
                continue
            seen.add(id(parameter))
            parameters += parameter.numel()
            is_quantised = is_quantisable(module) and parameter.ndim == 2 and not head.fullmatch(name)
            if precision == "nf4" and is_quantised:
                nbytes += parameter.numel() * _NF4_BYTES
            elif (
                precision == "fp32"
                or (precision == "bf16" and computes_in_fp32)
                or head.fullmatch(name)
                or "norm" in type(module).__name__.lower()
            ):
                nbytes += parameter.numel() * 4
            elif isinstance(module, nn.Embedding) and architecture.autocast:
                nbytes += parameter.numel() * 2
            else:
                nbytes += parameter.numel() * (4 if computes_in_fp32 or not architecture.autocast else 2)
    return Estimate(parameters, nbytes / 1e6)


def training_megabytes(config: dict, rows: int, tokens: int, trained: int, computes_in_fp32: bool) -> float:
    """Return about how much a training step takes besides the base model, in MB of 10^6 bytes.

    The activations are those of Korthikanti et al. 2022 (arXiv 2205.05198) for `rows` texts of `tokens` tokens. They
    are an upper bound: attention that keeps no scores needs less. `trained` is the number of trained parameters.
    """
    text_config = inspect.make_config(config).get_text_config()
    width = text_config.hidden_size
    heads = getattr(text_config, "num_attention_heads", 0)
    bytes_per_token = text_config.num_hidden_layers * (34 * width + 5 * heads * tokens)
    activations = rows * tokens * bytes_per_token * (2 if computes_in_fp32 else 1)
    return (activations + _ADAMW_BYTES * trained) / 1e6


def check(base_id: str, found: Estimate, precision: str = "nf4") -> None:
    """Raise BaseModelError if the machine has less memory than the model takes."""
    available = machine.total_memory_mb()
    if found.megabytes > available:
        raise BaseModelError(
            f"Base model {base_id} takes {found.megabytes:,.0f} MB ({found.parameters:,} parameters, {precision}), and "
            f"this machine has {available:,.0f} MB: use a smaller one."
        )
