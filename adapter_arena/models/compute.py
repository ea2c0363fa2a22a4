"""The type in which a device computes, bf16 or fp32: whichever it is faster in, found by timing it once.

Storage is another matter: the base is held in 4 bits either way and dequantised into this type.
"""

import functools
import time

import torch

from adapter_arena import machine, settings
from adapter_arena.errors import RecipeError, unknown

TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.float16: "fp16"}
_ROWS, _WIDTH, _REPEATS = 128, 768, 5
"""Of the product that is timed: the linear layers of a base of BERT's width on a text of 128 tokens."""


def choose(wanted: str | None = None) -> torch.dtype:
    """Return the type that `wanted` names, or for `auto` the faster one of this machine.

    `wanted` is `auto`, `bf16` or `fp32`; `ARENA_COMPUTE` when None. Raises RecipeError, SettingError.
    """
    name = settings.choice("ARENA_COMPUTE") if wanted is None else wanted
    if name == "auto":
        name = _fastest()
    if name not in TYPES:
        raise RecipeError(unknown("compute type", name, ["auto", *TYPES]))
    return TYPES[name]


def name_of(dtype: torch.dtype) -> str:
    """Return `bf16`, `fp32` or `fp16`, as settings and results write it."""
    return _NAMES[dtype]


def describe(dtype: torch.dtype) -> str:
    """Return one line for the terminal: the type and, on a CPU, what the same product takes in the other one."""
    if torch.cuda.is_available() or torch.backends.mps.is_available() or dtype not in TYPES.values():
        return f"computes in {name_of(dtype)}"
    seconds = cpu_seconds()
    other = next(each for each in TYPES.values() if each != dtype)
    ratio = seconds[name_of(other)] / seconds[name_of(dtype)]
    return f"computes in {name_of(dtype)}: {name_of(other)} takes {ratio:.1f} times as long on this CPU"


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

    Instruction sets do not tell: of two CPUs with bf16 instructions, fp32 is 1.7 times as fast on one (Xeon without
    AMX) and half as fast on the other (EPYC); without them bf16 takes 4 to 7 times as long. The product runs on one
    core and is timed by that thread's own clock, the least of five, so other work on the machine does not count.
    It takes 20 to 100 ms.
    """
    return machine.run_in_fresh_thread(_time_products)


@torch.inference_mode()
def _time_products() -> dict[str, float]:
    machine.compute_alone()
    seconds = {}
    for name, dtype in TYPES.items():
        rows = torch.ones(_ROWS, _WIDTH, dtype=dtype)
        weight = torch.ones(_WIDTH, _WIDTH, dtype=dtype)
        torch.nn.functional.linear(rows, weight)  # the first one sets up its kernel
        times = []
        for _ in range(_REPEATS):
            start = time.thread_time()
            torch.nn.functional.linear(rows, weight)
            times.append(time.thread_time() - start)
        seconds[name] = min(times)
    return seconds
