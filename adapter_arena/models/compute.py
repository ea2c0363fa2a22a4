"""The type a model computes in, bf16 or fp32: choosing the faster one of this machine, and applying it to a model.

Storage is independent of it: the base model is stored in 4 bits in both cases and dequantised into this type.
"""

import functools
import time

import bitsandbytes
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from adapter_arena import machine, settings
from adapter_arena.models.bases import Base

TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.float16: "fp16"}
_CHANGES_RESULTS = ("longformer", "roc_bert")
"""Model types that change the results of linear layers in place, which bitsandbytes' autograd function forbids."""

# The matrix product that is timed: a linear layer of BERT's width on a text of 128 tokens.
_TOKENS = 128
_WIDTH = 768
_REPEATS = 5


def choose(name: str | None = None) -> torch.dtype:
    """Return the type for `bf16` or `fp32`, or for `auto` the faster one of this machine.

    If `name` is None, `ARENA_COMPUTE` decides. Raises SettingError.
    """
    if name is None:
        name = settings.get("ARENA_COMPUTE")
    if name == "auto":
        name = _fastest()
    return TYPES[name]


def type_for(base: Base, precision: str, dtype: torch.dtype | None = None) -> torch.dtype:
    """Return the type that the base model computes in: `dtype`, or this machine's if it is None.

    It is fp32 if `precision` is, and for architectures that cannot run in bf16.
    """
    if precision == "fp32" or not base.architecture.autocast:
        return torch.float32
    return choose() if dtype is None else dtype


def name_of(dtype: torch.dtype) -> str:
    """Return `bf16`, `fp32` or `fp16`, as settings and results write it."""
    return _NAMES[dtype]


def describe(dtype: torch.dtype) -> str:
    """Return one line for the terminal: the type and, on a CPU, how much slower the other type is."""
    if torch.cuda.is_available() or torch.backends.mps.is_available() or dtype not in TYPES.values():
        return f"computes in {name_of(dtype)}"
    seconds = cpu_seconds()
    other = "bf16" if dtype == torch.float32 else "fp32"
    ratio = seconds[other] / seconds[name_of(dtype)]
    return f"computes in {name_of(dtype)}: {other} takes {ratio:.1f} times as long on this CPU"


def _fastest() -> str:
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if torch.backends.mps.is_available():
        return "fp32"  # bf16 autocast has not been tried there
    seconds = cpu_seconds()
    return min(seconds, key=seconds.get)


@functools.cache
def cpu_seconds() -> dict[str, float]:
    """Return the processor seconds of one matrix product in each type, by its name.

    Instruction sets do not predict it: of two CPUs with bf16 instructions, fp32 is 1.7 times as fast on one (Xeon
    without AMX) and half as fast on the other (EPYC); without them bf16 takes 4 to 7 times as long. The product runs on
    one core and is timed by that thread's own clock, the minimum of five, so that other work on the machine does not
    count. It takes 20 to 100 ms.
    """
    return machine.run_in_fresh_thread(_time_products)


@torch.inference_mode()
def _time_products() -> dict[str, float]:
    machine.use_one_core()
    seconds = {}
    for name, dtype in TYPES.items():
        rows = torch.ones(_TOKENS, _WIDTH, dtype=dtype)
        weight = torch.ones(_WIDTH, _WIDTH, dtype=dtype)
        torch.nn.functional.linear(rows, weight)  # the first product sets up its kernel
        times = []
        for _ in range(_REPEATS):
            start = time.thread_time()
            torch.nn.functional.linear(rows, weight)
            times.append(time.thread_time() - start)
        seconds[name] = min(times)
    return seconds


def prepare(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Make a loaded model compute in `dtype`, move it to the device and set eval mode; return it."""
    model.compute_dtype = dtype
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.weight.dtype == torch.bfloat16:
            if dtype == torch.float32:  # its rows are widened when they are read: half the memory, the same numbers
                module.register_forward_hook(_widen_output)
        elif dtype == torch.float32 or "norm" in type(module).__name__.lower():
            _widen_weights(module)
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.compute_dtype = dtype
            module.weight.quant_state.dtype = dtype
            # The CPU kernel of bitsandbytes repacks the shared weights in place and takes 1817 ms for 32x256 tokens;
            # without it the weights are dequantised in every forward pass: 423 ms.
            module.support_avx512bf16_for_cpu = False
            if model.config.model_type in _CHANGES_RESULTS:
                module.register_forward_hook(_copy_output)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _copy_output(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    return output.clone()


def _widen_weights(module: nn.Module) -> None:
    """Convert the module's own floating-point parameters and buffers to fp32."""
    for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.float()


def _widen_output(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    return output.float()


def autocast(model: nn.Module) -> torch.autocast:
    """Return the context to run a prepared model in, also one that PEFT has wrapped: bf16 autocast, or none."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return torch.autocast(base.device.type, torch.bfloat16, enabled=base.compute_dtype == torch.bfloat16)
