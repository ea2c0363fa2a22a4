"""The Space: settings -> engine -> UI -> launch.

    python app.py

Settings are environment variables: ARENA_BASE_MODEL, ARENA_ADAPTERS (comma-separated folders to
offer beside adapters/), ARENA_PRECISION (nf4, bf16, fp32) and Gradio's own (GRADIO_SERVER_PORT, …).
"""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # start-up and clicks reach no network

from peft_arena import bases, store, ui
from peft_arena.engine import Engine
from peft_arena.errors import AdapterError, ArenaError


def load() -> Engine:
    """The engine with every adapter that can be served; one that cannot is named on stderr and left out."""
    bases.quiet_libraries()
    engine = Engine(
        bases.find(os.environ.get("ARENA_BASE_MODEL") or bases.DEFAULT_BASE), os.environ.get("ARENA_PRECISION") or "nf4"
    )
    extra = [Path(name.strip()) for name in os.environ.get("ARENA_ADAPTERS", "").split(",") if name.strip()]
    adapters: dict[str, store.Adapter] = {}
    for folder in [*store.folders(Path(__file__).parent / store.FOLDER), *extra]:
        with leaving_out():
            adapter = store.read(folder, engine.base)
            if adapter.name in adapters:
                raise AdapterError(f"Adapter {folder}: another of that name is loaded; rename the folder.")
            adapters[adapter.name] = adapter
    for adapter in sorted(adapters.values(), key=best_measured_first):
        with leaving_out():
            engine.add(adapter)
    return engine


@contextmanager
def leaving_out():
    """Name an adapter that cannot be served on stderr, and go on without it."""
    try:
        yield
    except ArenaError as error:
        print(f"left out: {error}", file=sys.stderr)


def best_measured_first(adapter: store.Adapter) -> tuple:
    """Sort key: most test texts, then highest accuracy, then name; the first is the default adapter."""
    if adapter.results is None:
        return 0, 0.0, adapter.name
    return -adapter.results.evaluation.n, -adapter.results.evaluation.accuracy, adapter.name


def main() -> int:
    """Start the app; returns the exit status."""
    try:
        engine = load()
    except ArenaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    ui.launch(engine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
