"""The Space: settings -> engine -> page -> launch.

    python app.py

Settings are environment variables: adapter_arena/settings.py and Gradio's own (GRADIO_SERVER_PORT, …).
"""

import os
import re
import sys
from pathlib import Path

from adapter_arena import runtime

runtime.configure()

from adapter_arena import network
from adapter_arena.recipe import DEFAULT_BASE
from adapter_arena.serve import zero

zero.setup()
network.probe_in_background()  # finished by the time the slow imports below are

from adapter_arena import settings, ui
from adapter_arena.adapters import store
from adapter_arena.errors import ArenaError
from adapter_arena.models import bases
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(@\w+)?")


def load() -> Catalogue:
    """Return the catalogue of all adapters: local ones, and those of the Hub as the settings say."""
    settings.check()
    base = bases.find(os.environ.get("ARENA_BASE_MODEL") or DEFAULT_BASE)
    engine = Engine(base, os.environ.get("ARENA_PRECISION") or "nf4")
    named_folders, repos = named_adapters()
    folders = [*store.folders(Path(__file__).parent / store.FOLDER), *named_folders]
    for adapter in sorted(read_adapters(folders, base), key=best_measured_first):
        engine.register(adapter)
    return Catalogue(engine, repos, os.environ.get("ARENA_NAMESPACE") or None)


def named_adapters() -> tuple[list[Path], list[str]]:
    """Return the folders and the Hub repos of ARENA_ADAPTERS."""
    folders = []
    repos = []
    for entry in os.environ.get("ARENA_ADAPTERS", "").split(","):
        name = entry.strip()
        if not name:
            continue
        if HUB_ID.fullmatch(name) and not Path(name).exists():
            repos.append(name)
        else:
            folders.append(Path(name))
    return folders, repos


def read_adapters(folders: list[Path], base: bases.Base) -> list[store.Adapter]:
    """Return the valid adapters of the folders; report the others on stderr."""
    adapters: dict[str, store.Adapter] = {}
    for folder in folders:
        try:
            adapter = store.read(folder, base)
        except ArenaError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if adapter.name in adapters:
            print(f"left out: Adapter {folder}: another one has the same name. Rename the folder.", file=sys.stderr)
            continue
        adapters[adapter.name] = adapter
    return list(adapters.values())


def best_measured_first(adapter: store.Adapter) -> tuple:
    """Return the sort key: most test texts, then highest accuracy, then name. The first adapter is the default."""
    if adapter.results is None:
        return 0, 0.0, adapter.name
    return -adapter.results.evaluation.n, -adapter.results.evaluation.accuracy, adapter.name


def main() -> int:
    """Start the app; return the exit status."""
    try:
        catalogue = load()
    except ArenaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    ui.launch(catalogue)
    return 0


if __name__ == "__main__":
    sys.exit(main())
