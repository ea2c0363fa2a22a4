"""The Space: settings -> engine -> page -> launch.

    python app.py

Settings are environment variables: adapter_arena/settings.py and Gradio's own (GRADIO_SERVER_PORT, …).
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from adapter_arena import runtime

runtime.configure()

from adapter_arena import network
from adapter_arena.serve import zero

zero.setup()
network.probe_in_background()  # finished by the time the slow imports below are

from adapter_arena import results, settings, tasks, ui
from adapter_arena.adapters import store
from adapter_arena.errors import AdapterError, ArenaError, one_line
from adapter_arena.jobs.manager import Jobs
from adapter_arena.models import bases
from adapter_arena.serve.catalogue import Catalogue, read_local
from adapter_arena.serve.engine import Engine

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(@\w+)?")


def load() -> Catalogue:
    """Return the catalogue of all adapters: local ones, and those of the Hub as the settings say."""
    settings.check()
    base = bases.find(settings.get("ARENA_BASE_MODEL"))
    engine = Engine(base, settings.get("ARENA_PRECISION"))
    named_folders, repos = named_adapters()
    folders = [*store.folders(Path(__file__).parent / store.FOLDER), *named_folders]
    found = read_adapters(folders, base)
    catalogue = Catalogue(engine, repos, settings.get("ARENA_NAMESPACE"), found.left_out)
    for adapter in sorted(found.adapters, key=best_measured_first):
        engine.register(adapter)
    for adapter, other_base in found.of_other_bases:
        catalogue.register(adapter, other_base)
    for job in reversed(Jobs().all()):
        catalogue.add_folders(job.adapters)
    return catalogue


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


@dataclass
class Found:
    """The adapters of some folders."""

    adapters: list[store.Adapter] = field(default_factory=list)
    of_other_bases: list[tuple[store.Adapter, bases.Base]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Why the other folders are not served, one line for each."""


def read_adapters(folders: list[Path], base: bases.Base) -> Found:
    """Return the valid adapters of the folders, for `base` and for others; notes and problems go to stderr too."""
    found = Found()
    names: set[str] = set()
    for folder in folders:
        try:
            adapter, its_base = read_local(folder, base)
            if adapter.name in names:
                raise AdapterError(f"Adapter {folder}: another one has the same name. Rename the folder.")
        except ArenaError as error:
            print(f"left out: {error}", file=sys.stderr)
            found.left_out.append(f"left out: {one_line(error)}")
            continue
        names.add(adapter.name)
        for note in adapter.notes:
            print(f"note: Adapter {adapter.name}: {note}", file=sys.stderr)
        if its_base is base:
            found.adapters.append(adapter)
        else:
            found.of_other_bases.append((adapter, its_base))
    return found


def best_measured_first(adapter: store.Adapter) -> tuple:
    """Return the sort key: most test texts, then highest accuracy, then name. The first adapter is the default.

    Of an adapter of another task than single-label the metric that ranks its task counts as accuracy.
    """
    if adapter.results is None:
        return 0, 0.0, adapter.name
    score, _ = results.score_of(adapter.results, tasks.of(adapter.results).objective)
    return -adapter.results.evaluation.n, -score, adapter.name


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
