"""The adapters of a Hub namespace and of named Hub repos: listed every hour, and cached on disk for offline starts."""

import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from adapter_arena import files, hub, network, settings
from adapter_arena.errors import ArenaError
from adapter_arena.hub import RemoteAdapter
from adapter_arena.models import bases

REFRESH_SECONDS = 3600.0
RETRY_SECONDS = 60.0
"""Seconds until the next attempt after the Hub was not reachable."""
TIMEOUT_SECONDS = 20.0
"""Seconds that a visitor waits for a refresh."""


@dataclass
class Status:
    """The result of the last attempt to list the Hub's adapters; `reached` is None if there was none."""

    reached: bool | None = None
    at: float = 0.0
    problems: list[str] = field(default_factory=list)

    def ago(self) -> str:
        """Return how long ago that was, in words."""
        minutes = (time.time() - self.at) / 60
        if minutes < 1.5:
            return "just now"
        return f"{minutes:.0f} minutes ago"


class Listing:
    """The adapters that the Hub has for a base model, and for others if the app may load them; every method may be called from any thread."""

    def __init__(self, base: bases.Base, repos: list[str], namespace: str | None, is_served: Callable[[str], bool]):
        """Read the cached listing.

        `is_served` returns whether an engine has the adapter; such an adapter stays in the listing after it has
        disappeared from the Hub.
        """
        self.status = Status()
        self.adapters: dict[str, RemoteAdapter] = {}
        """By repo id; replaced as one object by each refresh."""
        self._base = base
        self._repos = repos
        self._namespace = namespace
        self._is_served = is_served
        if self.has_sources:
            self.adapters = self._read_cache()

    @property
    def has_sources(self) -> bool:
        """Whether there is a Hub repo or namespace to list."""
        return bool(self._repos or self._namespace)

    def start(self) -> None:
        """Refresh the listing now and every hour, in a thread."""
        if self.has_sources:
            threading.Thread(target=self._refresh_forever, name="listing", daemon=True).start()

    def refresh(self) -> Status:
        """List the Hub's adapters now, and return after TIMEOUT_SECONDS at most; unreachable ones keep their entry."""
        network.forget_probe()
        worker = threading.Thread(target=self._refresh, name="refresh", daemon=True)
        worker.start()
        worker.join(TIMEOUT_SECONDS)
        return self.status

    def _refresh_forever(self) -> None:
        while True:
            self._refresh()
            time.sleep(REFRESH_SECONDS if self.status.reached else RETRY_SECONDS)

    def _refresh(self) -> None:
        if not network.hub_reachable():
            self.status = Status(False, time.time())
            return
        found, problems = self._list()
        if problems:  # keep the entries of what could not be listed this time
            found = self.adapters | found
        else:
            for name, remote in self.adapters.items():
                if self._is_served(name):
                    found.setdefault(name, remote)
        self.adapters = found
        rows = [dataclasses.asdict(remote) for remote in found.values()]
        files.write_cache(self._cache_file, json.dumps({"of": self._cache_key, "adapters": rows}))
        self.status = Status(True, time.time(), problems)

    def _list(self) -> tuple[dict[str, RemoteAdapter], list[str]]:
        """Return the adapters that the Hub has now, and a message for each source that cannot be listed."""
        found: list[RemoteAdapter] = []
        problems = []
        if self._namespace:
            try:
                other_bases = settings.get("ARENA_MORE_BASES") > 0
                found.extend(hub.discover(self._namespace, self._base, other_bases))
            except ArenaError as error:
                problems.append(str(error))
        for repo in self._repos:
            try:
                found.append(hub.look_up(repo))
            except ArenaError as error:
                problems.append(str(error))
        return {remote.repo_id: remote for remote in found}, problems

    # ------------------------------------------------------------ cache on disk

    @property
    def _cache_file(self) -> Path:
        return files.cache_folder() / "listing.json"

    @property
    def _cache_key(self) -> list:
        return [self._namespace, self._repos, self._base.id, os.environ.get("HF_ENDPOINT")]

    def _read_cache(self) -> dict[str, RemoteAdapter]:
        """Return the last listing of the same sources; empty if there is no readable one."""
        try:
            content = json.loads(self._cache_file.read_text())
            if content["of"] != self._cache_key:
                return {}
            return {row["repo_id"]: RemoteAdapter(**row) for row in content["adapters"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
