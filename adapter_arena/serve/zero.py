"""ZeroGPU: a Space's GPU, which a process has for as long as one call of a decorated function takes.

The app itself computes on the CPU: a text takes milliseconds there and nothing of the visitor's GPU time, and getting
the GPU alone takes a second. Many texts at once go to the GPU, in a process that `spaces` forks for it and keeps for
later calls; it loads the base and the adapter there. So nothing rests on the CUDA that `spaces` pretends to have in
the app's own process.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapter_arena.adapters.store import Adapter
    from adapter_arena.errors import ArenaError
    from adapter_arena.models.bases import Base
    from adapter_arena.serve.engine import Engine
    from adapter_arena.serve.served import Prediction

LEAST_TEXTS = 512
"""What the GPU is asked for: some ten seconds on two cores."""
MOST_SECONDS = 120
_call: Callable | None = None
_engines: dict[str, "Engine"] = {}


def is_here() -> bool:
    """Whether this is a ZeroGPU Space."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def arrive() -> None:
    """On a ZeroGPU Space, import `spaces`, which has to come before torch; elsewhere nothing happens."""
    global _call
    if not is_here():
        return
    spaces = importlib.import_module("spaces")
    importlib.import_module("bitsandbytes")  # takes its CUDA library only while torch says that there is a GPU
    import torch

    # `spaces` says that there is one; the process it forks gets torch's own functions back.
    torch.cuda.is_available, torch.cuda.device_count = lambda: False, lambda: 0
    _call = spaces.GPU(duration=_seconds)(_predict)


def predict(
    engine: "Engine", adapter: "Adapter", texts: list[str], whole_text: bool
) -> "list[Prediction | ArenaError] | None":
    """As Engine.predict, on the GPU; None for few texts, and, with a line on stderr, where none can be had."""
    if _call is None or len(texts) < LEAST_TEXTS:
        return None
    import gradio
    import httpx

    try:
        return _call(engine.base, engine.precision, adapter, texts, whole_text)
    except (gradio.Error, RuntimeError, httpx.HTTPError) as error:  # none is free, the visitor's time is used up, …
        print(f"no GPU for {len(texts):,} texts, which the CPU computes: {error}", file=sys.stderr)
        return None


def _seconds(base: "Base", precision: str, adapter: "Adapter", texts: list[str], whole_text: bool) -> int:
    """Of GPU time that are asked for: the first call loads the base."""
    return min(MOST_SECONDS, 20 + len(texts) // 200)


def _predict(
    base: "Base", precision: str, adapter: "Adapter", texts: list[str], whole_text: bool
) -> "list[Prediction | ArenaError]":
    """In the forked process, which keeps its engines."""
    import torch

    from adapter_arena.serve.engine import Engine

    torch.set_num_threads(1)  # OpenMP's threads are the app's, and did not come along
    if base.id not in _engines:
        _engines[base.id] = Engine(base, precision)
    engine = _engines[base.id]
    if adapter not in engine.adapters:
        engine.offer(adapter)
    return engine.predict(texts, adapter.name, whole_text)
