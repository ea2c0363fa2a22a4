"""The Space: settings -> engine -> page -> launch.

    python app.py

Settings are environment variables: adapter_arena/settings.py and Gradio's own (GRADIO_SERVER_PORT, …).
"""

import re
import sys
from pathlib import Path

from adapter_arena import runtime

runtime.configure()

from adapter_arena import network
from adapter_arena.serve import zero

zero.setup()
network.probe_in_background()  # finished by the time the slow imports below are

from adapter_arena import settings, ui
from adapter_arena.adapters import store
from adapter_arena.errors import AdapterError, ArenaError, one_line
from adapter_arena.models import bases
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(@\w+)?")


def load() -> Catalogue:
    """Return the catalogue of all adapters: local ones, and those of the Hub as the settings say."""
    settings.check()
    base = bases.find(settings.get("ARENA_BASE_MODEL"))
    engine = Engine(base, settings.get("ARENA_PRECISION"))
    named_folders, repos = named_adapters()
    folders = [*store.folders(Path(__file__).parent / store.FOLDER), *named_folders]
    adapters, left_out = read_adapters(folders, base)
    for adapter in sorted(adapters, key=best_measured_first):
        engine.register(adapter)
    return Catalogue(engine, repos, settings.get("ARENA_NAMESPACE"), left_out)


def named_adapters() -> tuple[list[Path], list[str]]:
    """Return the folders and the Hub repos of ARENA_ADAPTERS."""
    folders = []
    repos = []
    for entry in settings.get("ARENA_ADAPTERS").split(","):
        name = entry.strip()
        if not name:
            continue
        if HUB_ID.fullmatch(name) and not Path(name).exists():
            repos.append(name)
        else:
            folders.append(Path(name))
    return folders, repos


def read_adapters(folders: list[Path], base: bases.Base) -> tuple[list[store.Adapter], list[str]]:
    """Return the valid adapters of the folders, and why the others are left out; both are reported on stderr."""
    adapters: dict[str, store.Adapter] = {}
    left_out = []
    for folder in folders:
        try:
            adapter = store.read(folder, base)
            if adapter.name in adapters:
                raise AdapterError(f"Adapter {folder}: another one has the same name. Rename the folder.")
        except ArenaError as error:
            print(f"left out: {error}", file=sys.stderr)
            left_out.append(f"left out: {one_line(error)}")
            continue
        for note in adapter.notes:
            print(f"note: Adapter {adapter.name}: {note}", file=sys.stderr)
        adapters[adapter.name] = adapter
    return list(adapters.values()), left_out


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
