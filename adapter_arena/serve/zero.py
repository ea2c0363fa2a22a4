"""ZeroGPU: the GPU of a Hugging Face Space, which a process has only during a call of a decorated function.

The app computes on the CPU: a text takes milliseconds there and none of the visitor's GPU time, while acquiring the GPU
alone takes a second. Many texts at a time go to the GPU, in a process that `spaces` forks and reuses for later calls; it
loads the base and the adapter itself, so nothing relies on the CUDA that `spaces` emulates in the app's own process.
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
    from adapter_arena.texts import Text

MIN_TEXTS = 512
"""Fewer texts stay on the CPU: these take about ten seconds on two cores."""
MAX_SECONDS = 120
_call: Callable | None = None
_engines: dict[str, "Engine"] = {}
"""Those of the forked process, by base model."""


def is_zero_gpu() -> bool:
    """Return whether this is a ZeroGPU Space."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def setup() -> None:
    """Import `spaces` on a ZeroGPU Space, which must come before torch; do nothing elsewhere."""
    global _call
    if not is_zero_gpu():
        return
    spaces = importlib.import_module("spaces")
    importlib.import_module("bitsandbytes")  # loads its CUDA library only while torch reports a GPU
    import torch

    # `spaces` has torch report a GPU; the forked process gets torch's own functions back.
    torch.cuda.is_available = lambda: False
    torch.cuda.device_count = lambda: 0
    _call = spaces.GPU(duration=_gpu_seconds)(_predict)


def predict(
    engine: "Engine", adapter: "Adapter", texts: "list[Text]", whole_text: bool
) -> "list[Prediction | ArenaError] | None":
    """Return what `Engine.predict` does, computed on the GPU; None for few texts, or if no GPU is available."""
    if _call is None or len(texts) < MIN_TEXTS:
        return None
    import gradio
    import httpx

    try:
        return _call(engine.base, engine.precision, adapter, texts, whole_text)
    except (gradio.Error, RuntimeError, httpx.HTTPError) as error:  # no idle GPU, the visitor's quota is used up, …
        print(f"no GPU for {len(texts):,} texts, so the CPU computes them: {error}", file=sys.stderr)
        return None


def _gpu_seconds(base: "Base", precision: str, adapter: "Adapter", texts: "list[Text]", whole_text: bool) -> int:
    """Return the GPU time to request; it includes loading the base."""
    return min(MAX_SECONDS, 20 + len(texts) // 200)


def _predict(
    base: "Base", precision: str, adapter: "Adapter", texts: "list[Text]", whole_text: bool
) -> "list[Prediction | ArenaError]":
    """Compute the answers in the forked process, which keeps its engines."""
    import torch

    from adapter_arena.serve.engine import Engine

    torch.set_num_threads(1)  # the threads of OpenMP were not forked
    if base.id not in _engines:
        _engines[base.id] = Engine(base, precision)
    engine = _engines[base.id]
    if adapter not in engine.adapters:
        engine.register(adapter)
    return engine.predict(texts, adapter.name, whole_text)
