"""The adapters that can be requested: local ones, those of the Hub, and any that a visitor names.

Local adapters are known from the start, those of the Hub by a listing; each is loaded by the first request for it. An
adapter for another base model loads that base, see `engines.Engines`.
"""

import dataclasses
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from adapter_arena import hub, settings
from adapter_arena.adapters import store
from adapter_arena.adapters.store import Adapter
from adapter_arena.errors import (
    AdapterError,
    ArenaError,
    BaseModelError,
    BusyError,
    HubError,
    RequestError,
    one_line,
    shortened_list,
)
from adapter_arena.hub import RemoteAdapter
from adapter_arena.models import base_names, bases
from adapter_arena.serve import previews, timing, zero
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.engines import Engines
from adapter_arena.serve.entries import Answer, Entry
from adapter_arena.serve.listing import Listing, Status
from adapter_arena.serve.previews import Preview
from adapter_arena.serve.served import Prediction, choose
from adapter_arena.texts import Text

UNTRAINED = "untrained"
"""Name of the base model with a random head, which is part of every comparison."""
RETRY_SECONDS = 60.0
"""Seconds until a commit that could not be loaded is fetched again."""


@dataclass(frozen=True)
class _Failure:
    """Why and when a commit could not be loaded."""

    error: ArenaError
    at: float

    @property
    def is_recent(self) -> bool:
        return time.monotonic() - self.at < RETRY_SECONDS


@dataclass(frozen=True)
class _Local:
    """A local adapter for another base model than the app's."""

    adapter: Adapter
    base: bases.Base
    base_mb: float


class Catalogue:
    """The adapters and the engines that serve them; every method may be called from any thread."""

    def __init__(
        self,
        engine: Engine,
        repos: list[str] | None = None,
        namespace: str | None = None,
        left_out: list[str] | None = None,
    ):
        self.engine = engine
        self._engines = Engines(engine)
        self._of_other_bases: dict[str, _Local] = {}
        """Local adapters for other base models, by name."""
        self.left_out = left_out or []
        """Why local folders are not served, one line for each."""
        self.listing = Listing(engine.base, repos or [], namespace, is_served=self._is_served)
        self.latency: dict[str, float] = {}
        """Milliseconds for one text of about 64 tokens, by adapter."""
        self._fetched: dict[str, RemoteAdapter] = {}
        """Adapters that visitors loaded, in that order."""
        self._failures: dict[tuple[str, str], _Failure] = {}
        """By repo and commit."""
        self._fetching: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
        """A lock for each adapter that is being fetched or removed."""
        self._lock = threading.Lock()  # guards the two tables above; never held for long
        self._adding = threading.Lock()  # held while an adapter is added to an engine, but not while it is downloaded

    # ------------------------------------------------------------ the Hub's adapters

    @property
    def has_sources(self) -> bool:
        """Whether the Hub's adapters are listed: a namespace or repos are set."""
        return self.listing.has_sources

    @property
    def status(self) -> Status:
        """The result of the last listing."""
        return self.listing.status

    def start(self) -> None:
        """Evict old downloads, and list the Hub's adapters in the background."""
        hub.evict(self.listing.adapters, int(settings.get("ARENA_MAX_FETCHED")))
        self.listing.start()

    def refresh(self) -> Status:
        """List the Hub's adapters now."""
        return self.listing.refresh()

    # ------------------------------------------------------------ entries

    @property
    def entries(self) -> list[Entry]:
        """Local adapters first, in the engine's order; then those of the Hub."""
        remotes = self._fetched | self.listing.adapters
        entries: dict[str, Entry] = {}
        for engine in self._engines.all:
            for adapter in engine.adapters:
                name = adapter.name
                if name != UNTRAINED:
                    entries[name] = Entry(name, adapter, remotes.get(name), self.latency.get(name))
        for name, local in self._of_other_bases.items():
            entries.setdefault(name, Entry(name, local.adapter, loads_base=True, base_to_load_mb=local.base_mb))
        for name, remote in remotes.items():
            if name not in entries:
                entries[name] = self._entry_of_remote(name, remote)
        return sorted(entries.values(), key=lambda entry: entry.remote is not None)

    def _entry_of_remote(self, name: str, remote: RemoteAdapter) -> Entry:
        """Return the entry of an adapter that no engine has."""
        if self._engines.is_loaded(remote.base_model):
            return Entry(name, None, remote)
        megabytes = self._engines.known_megabytes(remote.base_model)
        return Entry(name, None, remote, loads_base=True, base_to_load_mb=megabytes)

    def find(self, name: str | None) -> Entry:
        """Return the entry of that name, or the first one if it is None or empty. Raises RequestError."""
        return choose({entry.name: entry for entry in self.entries}, name)

    def _is_served(self, name: str) -> bool:
        return self._engines.holding(name) is not None

    # ------------------------------------------------------------ predictions

    def predict(
        self,
        texts: list[Text],
        name: str | None = None,
        whole_text: bool = False,
        watch: Callable[[int, int], None] | None = None,
    ) -> list[Prediction | ArenaError]:
        """Return what `Engine.predict` does, after fetching the adapter if necessary. Raises ArenaError."""
        engine = self.engine_for(self.find(name))
        entry = self.find(name)  # again, since it may have been fetched
        answers = zero.predict(engine, entry.adapter, texts, whole_text)
        if answers is None:
            answers = engine.predict(texts, entry.name, whole_text, watch)
        return answers

    def compare(self, text: Text, names: list[str] | None = None, whole_text: bool = False) -> list[Answer]:
        """Return the answers of the untrained base and of every loaded adapter, timed one after the other.

        Args:
            text: the text, or both texts of a pair.
            names: the adapters that answer, by default all; those that are not loaded are left out.
            whole_text: as in `Engine.predict`.

        Raises RequestError if no adapter is loaded.
        """
        loaded = {entry.name: entry for entry in self.entries if self._is_served(entry.name)}
        self._add_untrained(choose(loaded, None).adapter)
        answers = [self._answer(text, UNTRAINED, None, whole_text)]
        for name, entry in loaded.items():
            if names is None or name in names:
                answers.append(self._answer(text, name, entry, whole_text))
        return answers

    def _add_untrained(self, like: Adapter) -> None:
        """Add, once, the base with the random head that the adapters' baselines were measured with."""
        if self._is_served(UNTRAINED):
            return
        with self._adding:
            if not self._is_served(UNTRAINED):
                seed = like.results.recipe.get("seed", 42) if like.results else 42
                self.engine.add_untrained(UNTRAINED, like.labels, seed, like.max_length or 512, like.task, like.scale)

    def _answer(self, text: Text, name: str, entry: Entry | None, whole_text: bool) -> Answer:
        start = time.perf_counter()
        try:
            engine = self._engines.holding(name) or self.engine
            answer = engine.predict([text], name, whole_text)[0]
        except BusyError:
            raise
        except ArenaError as reason:  # it was removed meanwhile, or its folder was: the others still answer
            answer = reason
        milliseconds = 1000 * (time.perf_counter() - start)
        is_error = isinstance(answer, ArenaError)
        prediction = None if is_error else answer
        error = str(answer) if is_error else None
        if entry is None:
            return Answer(name, "Untrained base", UNTRAINED, prediction, error, milliseconds, None, 0, None)
        return Answer(
            name=name,
            title=f"{entry.title} · {entry.dataset or entry.name}",
            method=entry.method,
            prediction=prediction,
            error=error,
            milliseconds=milliseconds,
            accuracy=entry.accuracy,
            trainable_params=entry.trainable_params,
            megabytes=entry.megabytes,
        )

    def time_adapters(self) -> None:
        """Measure in the background how long one text takes with each fetched adapter."""
        threading.Thread(target=self._time_adapters, name="latency", daemon=True).start()

    def _time_adapters(self) -> None:
        served = [entry for entry in self.entries if self._is_served(entry.name)]
        texts = {entry.name: timing.text_for(entry.adapter) for entry in served}
        self.latency.update(timing.measure_latency(lambda name: self.predict([texts[name]], name), texts))

    # ------------------------------------------------------------ loading from the Hub

    def engine_for(self, entry: Entry) -> Engine:
        """Return the engine that has the entry's adapter; fetch and load it first if necessary. Raises ArenaError.

        While a newer commit is fetched, and for RETRY_SECONDS if it cannot be, the loaded one is served.
        """
        engine = self._engines.holding(entry.name)
        if engine and not entry.is_stale:
            return engine
        lock = self._lock_of(entry.name)
        if not lock.acquire(blocking=engine is None):
            return engine
        try:
            return self._fetch(entry)
        finally:
            lock.release()

    def _lock_of(self, name: str) -> threading.Lock:
        with self._lock:
            return self._fetching.setdefault(name, threading.Lock())

    def _fetch(self, entry: Entry) -> Engine:
        """Fetch and load the entry's adapter unless another caller has done so; its lock is held."""
        engine = self._engines.holding(entry.name)
        if engine is None:
            if entry.name in self._of_other_bases:
                return self._load_local(self._of_other_bases[entry.name])
            if entry.adapter:
                raise RequestError(f"Adapter {entry.name} was just removed. Choose another one, or load it again.")
            return self._load_remote(entry.remote, loaded_revision=None)
        entry = self.find(entry.name)
        if not entry.is_stale:
            return engine
        try:
            return self._load_remote(entry.remote, loaded_revision=entry.revision)
        except ArenaError:  # remembered by _load_remote
            return engine

    def _load_remote(self, remote: RemoteAdapter, loaded_revision: str | None) -> Engine:
        """Fetch an adapter and add it to an engine; `loaded_revision` is the commit that is served now, if any."""
        failure = self._failures.get((remote.repo_id, remote.revision))
        if failure and failure.is_recent:
            raise type(failure.error)(str(failure.error))
        try:
            engine = self._engine_for_base(remote)
            adapter = hub.read(remote, engine.base)
            with self._adding:
                engine.add(adapter)
        except ArenaError as error:
            if isinstance(error, AdapterError):
                hub.remove(remote.repo_id, keep=loaded_revision)
                self._remember_failure(remote, error)
            elif loaded_revision:  # without it, the caller may try again immediately
                self._remember_failure(remote, error)
            raise
        hub.remove(remote.repo_id, keep=remote.revision)
        return engine

    def _remember_failure(self, remote: RemoteAdapter, error: ArenaError) -> None:
        failures = {key: failure for key, failure in self._failures.items() if failure.is_recent}
        failures[remote.repo_id, remote.revision] = _Failure(error, time.monotonic())
        self._failures = failures

    def load(self, name: str) -> Entry:
        """Load the Hub adapter `user/name[@revision]`, pinned to its present commit. Raises ArenaError.

        ARENA_ALLOW_LOADING limits which. Beyond ARENA_MAX_FETCHED, the one that was loaded first is removed. An adapter
        of the listing stays at its commit: a visitor does not choose for others.
        """
        name = name.strip()
        _check_allowed(name.partition("@")[0])
        remote = hub.look_up(name)
        repo_id = remote.repo_id
        listed = self.listing.adapters.get(repo_id)
        if listed is None:
            self.engine_for(Entry(repo_id, None, remote))
            self._add_fetched(remote)
            return self.find(repo_id)
        if "@" in name and listed.revision != remote.revision:
            raise HubError(f"{repo_id} is available only at commit {listed.revision[:12]}. Please load that one.")
        self.engine_for(self.find(repo_id))
        return self.find(repo_id)

    def preview(self, name: str) -> Preview:
        """Return what loading an adapter takes: one of the catalogue, or the Hub's `user/name[@revision]`.

        Nothing is loaded. Raises ArenaError with the reason if the adapter cannot be served.
        """
        name = name.strip()
        if name in self._of_other_bases:
            local = self._of_other_bases[name]
            return previews.of_local(local.adapter, local.base, self._engines)
        remote = self.listing.adapters.get(name)
        if remote is None:
            _check_allowed(name.partition("@")[0])
            remote = hub.look_up(name)
        return previews.of_remote(remote, self._engines)

    def _add_fetched(self, remote: RemoteAdapter) -> None:
        """Add an adapter that a visitor loaded, and remove the first ones that exceed ARENA_MAX_FETCHED."""
        limit = int(max(1, settings.get("ARENA_MAX_FETCHED")))
        with self._lock:
            fetched = self._fetched | {remote.repo_id: remote}
            # A refresh of the listing may have found some of them: these stay.
            names = [name for name in fetched if name not in self.listing.adapters]
            self._fetched = {name: fetched[name] for name in names[-limit:]}
        for name in names[:-limit]:
            self._remove(name)

    def _remove(self, name: str) -> None:
        """Remove an adapter that a visitor loaded from its engine and from the disk."""
        with self._lock_of(name):  # it is not being fetched
            if engine := self._engines.holding(name):
                engine.remove(name)
            hub.remove(name)

    def _engine_for_base(self, remote: RemoteAdapter) -> Engine:
        """Return the engine of the adapter's base model, which is loaded if necessary. Raises BaseModelError."""
        if self._engines.is_own_base(remote.base_model):
            return self.engine  # a card need not say: the adapter's own config is checked after the download
        try:
            return self._engines.for_base(bases.find(remote.base_model))
        except BaseModelError as error:
            raise BaseModelError(f"Adapter {remote.repo_id} needs another base model. {error}") from error

    # ------------------------------------------------------------ local adapters for other base models

    def register(self, adapter: Adapter, base: bases.Base) -> None:
        """Add a local adapter for another base model than the app's, which its first request loads."""
        self._of_other_bases[adapter.name] = _Local(adapter, base, self._engines.megabytes(base))

    def add_folders(self, folders: list[Path]) -> list[str]:
        """List the adapters of local folders, last, for whichever base model they are; return their names.

        An adapter whose name is taken gets a number; one that is listed stays as it is. One that cannot be served is
        reported in `left_out`.
        """
        added = []
        for folder in folders:
            taken = {entry.name: entry.adapter and entry.adapter.folder for entry in self.entries}
            if folder in taken.values():
                continue
            try:
                adapter, base = read_local(folder, self.engine.base)
            except ArenaError as error:
                line = f"left out: {one_line(error)}"
                if line not in self.left_out:
                    self.left_out.append(line)
                continue
            adapter = dataclasses.replace(adapter, name=_free_name(adapter.name, taken))
            if base is self.engine.base:
                self.engine.register(adapter)
            else:
                self.register(adapter, base)
            added.append(adapter.name)
        return added

    def remove_folders(self, folders: list[Path]) -> None:
        """Remove the adapters of local folders that are about to be deleted."""
        for entry in self.entries:
            if entry.adapter and entry.adapter.folder in folders:
                self._of_other_bases.pop(entry.name, None)
                if engine := self._engines.holding(entry.name):
                    engine.remove(entry.name)

    def _load_local(self, local: "_Local") -> Engine:
        """Load the adapter's base model, and register all local adapters for it."""
        engine = self._engines.for_base(local.base)
        for other in self._of_other_bases.values():
            if other.base.id == local.base.id and self._engines.holding(other.adapter.name) is None:
                engine.register(other.adapter)
        return engine


def read_local(folder: Path, base: bases.Base) -> tuple[Adapter, bases.Base]:
    """Return the adapter of a folder and its base model: `base`, or the one it names. Raises ArenaError."""
    try:
        return store.read(folder, base), base
    except AdapterError:
        name = store.named_base(folder)
        if settings.get("ARENA_MORE_BASES") <= 0 or base_names.relation(name, base) is not base_names.Relation.OTHER:
            raise
    try:
        other = bases.find(name)
    except BaseModelError as error:
        raise AdapterError(f"Adapter {folder.name} is for another base model. {error}") from error
    return store.read(folder, other), other


def _free_name(name: str, taken: Iterable[str]) -> str:
    """Return the name, or the first of `name-2`, `name-3`, … that is not taken."""
    free = name
    number = 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _check_allowed(repo_id: str) -> None:
    """Raise HubError unless visitors may load this repo by its id."""
    allowed = [name.strip() for name in settings.get("ARENA_ALLOW_LOADING").split(",")]
    parts = repo_id.split("/")
    if "all" in allowed or parts[0] in allowed or "/".join(parts[:2]) in allowed:  # also for a folder of the repo
        return
    problem = f"{repo_id[:100]} may not be loaded here, only those of {shortened_list(allowed)}"
    if allowed == ["none"]:
        problem = "Loading adapters by id is switched off here"
    raise HubError(f"{problem} (ARENA_ALLOW_LOADING). Please use one of the list.")
