"""The Space: settings -> engine -> UI -> launch.

    python app.py

Settings are environment variables: adapter_arena/settings.py and Gradio's own (GRADIO_SERVER_PORT, …).
"""

import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path

from adapter_arena import runtime

runtime.configure()

from adapter_arena import network
from adapter_arena.recipe import DEFAULT_BASE
from adapter_arena.serve import zero

zero.arrive()
network.probe_in_background()  # its answer is there by the time the slow imports below are done

from adapter_arena import settings, ui
from adapter_arena.adapters import store
from adapter_arena.errors import AdapterError, ArenaError
from adapter_arena.models import bases
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine


def load() -> Catalogue:
    """Every valid local adapter (one that is not is named on stderr), and the Hub's to come."""
    settings.check()
    engine = Engine(
        bases.find(os.environ.get("ARENA_BASE_MODEL") or DEFAULT_BASE),
        os.environ.get("ARENA_PRECISION") or "nf4",
    )
    named = [name.strip() for name in os.environ.get("ARENA_ADAPTERS", "").split(",") if name.strip()]
    repos = [name for name in named if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@\w+)?", name) and not Path(name).exists()]
    extra = [Path(name) for name in named if name not in repos]
    adapters: dict[str, store.Adapter] = {}
    for folder in [*store.folders(Path(__file__).parent / store.FOLDER), *extra]:
        with leaving_out():
            adapter = store.read(folder, engine.base)
            if adapter.name in adapters:
                raise AdapterError(f"Adapter {folder}: another of that name is loaded; rename the folder.")
            adapters[adapter.name] = adapter
    for adapter in sorted(adapters.values(), key=best_measured_first):
        engine.offer(adapter)
    return Catalogue(engine, repos, os.environ.get("ARENA_NAMESPACE") or None)


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
        catalogue = load()
    except ArenaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    ui.launch(catalogue)
    return 0


if __name__ == "__main__":
    sys.exit(main())
