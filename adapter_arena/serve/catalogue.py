"""What can be asked: local adapters, those of the Hub, and any that a user names; each loaded on first use.

Local adapters are loaded at the start. Those of the Hub are listed in the background, kept on disk
for starts without a network, and fetched when someone asks for one. An adapter for another base
gets a second engine, made on demand for the bases of bases.BASES only.
"""

import dataclasses
import json
import math
import os
import statistics
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from adapter_arena import files, hub, network, settings
from adapter_arena.adapters.store import Adapter
from adapter_arena.errors import (
    AdapterError,
    ArenaError,
    BaseModelError,
    BusyError,
    HubError,
    RequestError,
    some,
    unknown,
)
from adapter_arena.hub import Remote
from adapter_arena.models import bases, methods
from adapter_arena.results import Results
from adapter_arena.serve import zero
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.served import Prediction

UNTRAINED = "untrained"
"""Name of the base with a random head, which stands beside the adapters in a comparison."""
REFRESH_SECONDS = 3600.0
LISTING_SECONDS = 20.0
RETRY_SECONDS = 60.0
"""How long a commit that could not be had is not fetched again."""
_TIMED = 9
_TIMED_TEXT = " ".join(["The film takes its time, but what it has to say about growing old stays with you."] * 3)


@dataclass(frozen=True)
class Entry:
    """An adapter that can be asked. `adapter` is None until it is fetched; `remote` is None for a local one."""

    name: str
    adapter: Adapter | None = None
    remote: Remote | None = None
    latency_ms: float | None = None
    """For one text of about 64 tokens on this machine, once measured."""

    @property
    def source(self) -> str:
        return "hub" if self.remote else "local"

    @property
    def revision(self) -> str | None:
        """The Hub commit that is served, or that would be."""
        return self.adapter.revision if self.adapter else self.remote.revision

    @property
    def is_stale(self) -> bool:
        """Whether what is loaded is not the commit last seen on the Hub, or its files are gone."""
        if not (self.adapter and self.remote):
            return False
        return self.adapter.revision != self.remote.revision or not self.adapter.folder.is_dir()

    @property
    def method(self) -> str:
        return self.adapter.method if self.adapter else self.remote.method

    @property
    def title(self) -> str:
        """The method's name as people write it."""
        return methods.METHODS[self.method].title if self.method in methods.METHODS else self.method

    @property
    def base_model(self) -> str | None:
        return self.adapter.base_model if self.adapter else self.remote.base_model

    @property
    def results(self) -> Results | None:
        """The adapter's results.json, once it is fetched and if it has one."""
        return self.adapter and self.adapter.results

    @property
    def dataset(self) -> str | None:
        return self.results.dataset.id if self.results else self.remote and self.remote.dataset

    @property
    def accuracy(self) -> float | None:
        """From results.json, else from the card's model-index, else None."""
        return self.results.evaluation.accuracy if self.results else self.remote and self.remote.accuracy

    @property
    def accuracy_ci95(self) -> list[float] | None:
        return self.results.evaluation.accuracy_ci95 if self.results else self.remote and self.remote.accuracy_ci95

    @property
    def megabytes(self) -> float | None:
        return self.adapter and self.adapter.size / 1e6

    def to_dict(self) -> dict:
        """As `/list_adapters` returns it; None for what is not known."""
        found = self.results
        return {
            "name": self.name,
            "method": self.method,
            "base_model": self.base_model,
            "source": self.source,
            "revision": self.revision,
            "labels": self.adapter and self.adapter.labels,
            "dataset": self.dataset,
            "accuracy": self.accuracy,
            "accuracy_ci95": self.accuracy_ci95,
            "f1": found and found.evaluation.f1,
            "ece": found and found.evaluation.ece,
            "trainable_params": found and found.training.trainable_params,
            "megabytes": self.megabytes,
            "latency_ms": self.latency_ms,
        }


@dataclass(frozen=True)
class Answer:
    """One adapter's answer in a comparison, with what that adapter cost; `error` where it has none."""

    name: str
    title: str
    method: str
    prediction: Prediction | None
    error: str | None
    milliseconds: float
    accuracy: float | None
    trainable_params: int | None
    megabytes: float | None

    def to_dict(self) -> dict:
        """As `/compare` returns it."""
        facts = {"method": self.method, "accuracy": self.accuracy, "milliseconds": self.milliseconds}
        if self.prediction is None:
            return {"adapter": self.name, "error": self.error} | facts
        return self.prediction.to_dict() | facts


@dataclass
class Status:
    """How the last look at the Hub went; `reached` is None when there was none."""

    reached: bool | None = None
    at: float = 0.0
    problems: list[str] = field(default_factory=list)

    def ago(self) -> str:
        """How long ago that was."""
        minutes = (time.time() - self.at) / 60
        return "just now" if minutes < 1.5 else f"{minutes:.0f} minutes ago"


class Catalogue:
    """The adapters on offer and the engines that serve them; every method may be called from any thread."""

    def __init__(self, engine: Engine, repos: list[str] | None = None, namespace: str | None = None):
        self.engine = engine
        self.status = Status()
        self.latency: dict[str, float] = {}
        """Milliseconds for one text of about 64 tokens, by adapter; filled by time_adapters."""
        self._repos, self._namespace = repos or [], namespace
        self._listed: dict[str, Remote] = {}
        self._others: dict[str, Engine] = {}
        self._fetched: list[str] = []
        self._failed: dict[tuple[str, str], tuple[float, ArenaError]] = {}
        """When and why a commit, of a repo, could not be had."""
        self._lock = threading.Lock()  # of these tables; nobody waits while it is held
        self._adding = threading.Lock()  # while an adapter is put into an engine, which takes no download
        self._making = threading.Lock()  # while another base is loaded
        self._fetching: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
        self._wake = threading.Event()
        if self.has_sources:
            self._listed = self._kept()

    @property
    def has_sources(self) -> bool:
        """Whether any Hub repo or namespace is to be offered beside the local adapters."""
        return bool(self._repos or self._namespace)

    @property
    def entries(self) -> list[Entry]:
        """Local adapters first, in the engine's order; then those of the Hub."""
        entries: dict[str, Entry] = {}
        for engine in (self.engine, *list(self._others.values())):
            for a in engine.adapters:
                if a.name != UNTRAINED:
                    entries[a.name] = Entry(a.name, a, self._listed.get(a.name), self.latency.get(a.name))
        for name, remote in list(self._listed.items()):
            entries.setdefault(name, Entry(name, None, remote))
        return sorted(entries.values(), key=lambda entry: entry.remote is not None)

    def find(self, name: str | None) -> Entry:
        """The entry of that name, the first when None or empty. Raises RequestError."""
        entries = {entry.name: entry for entry in self.entries}
        if not entries:
            raise RequestError("No adapter is loaded: train one with `python train_space.py --dataset sample`.")
        if name in (None, ""):
            return next(iter(entries.values()))
        if not isinstance(name, str) or name not in entries:
            raise RequestError(unknown("adapter", str(name)[:100], entries))
        return entries[name]

    def predict(
        self,
        texts: list[str],
        name: str | None = None,
        whole_text: bool = False,
        watch: Callable[[int, int], None] | None = None,
    ) -> list[Prediction | ArenaError]:
        """Answers in the order of `texts`, as Engine.predict; the adapter is fetched if need be. Raises ArenaError."""
        engine, entry = self.serving(self.find(name)), self.find(name)
        found = zero.predict(engine, entry.adapter, texts, whole_text)
        return engine.predict(texts, entry.name, whole_text, watch) if found is None else found

    def compare(self, text: str) -> list[Answer]:
        """The text's answer by the untrained base and by every adapter that is loaded, as it is, timed one by one."""
        loaded = [entry for entry in self.entries if entry.adapter]
        if not loaded:
            self.find(None)  # says what to do
        self._add_untrained(loaded[0].adapter)
        return [self._timed(text, UNTRAINED, None), *(self._timed(text, entry.name, entry) for entry in loaded)]

    def _add_untrained(self, like: Adapter) -> None:
        """The base with the random head that the adapters' baselines were measured with, once."""
        if self._holder(UNTRAINED):
            return
        with self._adding:
            if self._holder(UNTRAINED) is None:
                recipe = like.results.recipe if like.results else {}
                self.engine.add_untrained(UNTRAINED, like.labels, recipe.get("seed", 42), like.max_length or 512)

    def _timed(self, text: str, name: str, entry: Entry | None) -> Answer:
        start = time.perf_counter()
        try:
            found = (self._holder(name) or self.engine).predict([text], name)[0]
        except BusyError:
            raise
        except ArenaError as error:  # it, or its folder, has been taken away since: the others answer
            found = error
        milliseconds = 1000 * (time.perf_counter() - start)
        said, error = (None, str(found)) if isinstance(found, ArenaError) else (found, None)
        if entry is None:
            return Answer(name, "Untrained base", UNTRAINED, said, error, milliseconds, None, 0, None)
        title = " · ".join(part for part in (entry.title, entry.dataset or entry.name) if part)
        trained = entry.results and entry.results.training.trainable_params
        return Answer(name, title, entry.method, said, error, milliseconds, entry.accuracy, trained, entry.megabytes)

    def serving(self, entry: Entry) -> Engine:
        """The engine that holds the entry's adapter, fetched and loaded first if it is not. Raises ArenaError.

        While a new commit is fetched, and for RETRY_SECONDS when it cannot be had, the one that is loaded goes on.
        """
        holder = self._holder(entry.name)
        if holder and not entry.is_stale:
            return holder
        lock = self._lock_of(entry.name)
        if not lock.acquire(blocking=holder is None):
            return holder
        try:
            return self._fetch(entry)
        finally:
            lock.release()

    def _fetch(self, entry: Entry) -> Engine:
        """Fetch and load the entry's adapter, in its lock; where another caller has done so before, that is found."""
        holder = self._holder(entry.name)
        if holder:
            entry = self.find(entry.name)
        elif entry.adapter:
            raise RequestError(f"Adapter {entry.name} has just been taken out: ask another, or load it again.")
        if holder and not entry.is_stale:
            return holder
        remote = entry.remote
        if failure := self._failure(remote):
            if holder:
                return holder
            raise type(failure)(str(failure))
        try:
            engine = self._engine_for(remote)
            adapter = hub.read(remote, engine.base)
            with self._adding:
                engine.add(adapter)
        except ArenaError as error:
            self._note_failure(remote, error, holder and entry.revision)
            if holder:
                return holder
            raise
        hub.forget(remote.repo_id, keep=remote.revision)
        return engine

    def _failure(self, remote: Remote) -> ArenaError | None:
        """Why the commit could not be had less than RETRY_SECONDS ago, if it could not."""
        at, failure = self._failed.get((remote.repo_id, remote.revision), (-math.inf, None))
        return failure if time.monotonic() - at < RETRY_SECONDS else None

    def _note_failure(self, remote: Remote, error: ArenaError, loaded: str | None) -> None:
        """Remove a commit that was refused, and do not fetch it again at once; `loaded` is the commit that goes on."""
        if isinstance(error, AdapterError):
            hub.forget(remote.repo_id, keep=loaded)
        elif loaded is None:
            return  # who asked may try again
        now = time.monotonic()
        recent = {key: (at, why) for key, (at, why) in self._failed.items() if now - at < RETRY_SECONDS}
        self._failed = recent | {(remote.repo_id, remote.revision): (now, error)}

    def _lock_of(self, name: str) -> threading.Lock:
        """What is held while that adapter is fetched or withdrawn; others are not held up."""
        with self._lock:
            return self._fetching.setdefault(name, threading.Lock())

    def _holder(self, name: str) -> Engine | None:
        engines = (self.engine, *list(self._others.values()))
        return next((engine for engine in engines if name in (a.name for a in engine.adapters)), None)

    def load(self, name: str) -> Entry:
        """Offer and load the Hub adapter `user/name[@commit]`, pinned to its present commit. Raises ArenaError.

        ARENA_ALLOW_LOADING says which; beyond ARENA_MAX_FETCHED the one loaded first is no longer offered. One that
        is on offer here already stays at the commit it is offered at: a visitor chooses for nobody else.
        """
        self._check_allowed(name.strip().partition("@")[0])
        if not network.hub_reachable():
            raise HubError(
                f"The Hub cannot be reached, so {name.strip()[:100]} cannot be fetched: local adapters go on."
            )
        remote = hub.look_up(name)
        offered = remote.repo_id not in self._fetched and self._listed.get(remote.repo_id)
        if offered and "@" in name and offered.revision != remote.revision:
            raise HubError(f"{remote.repo_id} is offered here at commit {offered.revision[:12]} alone: ask that one.")
        if offered:
            self.serving(self.find(remote.repo_id))
            return self.find(remote.repo_id)
        self.serving(Entry(remote.repo_id, None, remote))
        with self._lock:
            if remote.repo_id not in self._listed:
                self._fetched.append(remote.repo_id)
            self._listed[remote.repo_id] = remote
            most = int(max(1, settings.number("ARENA_MAX_FETCHED")))
            old, self._fetched = self._fetched[:-most], self._fetched[-most:]
        for name in old:
            self._withdraw(name)
        return self.find(remote.repo_id)

    def _check_allowed(self, repo_id: str) -> None:
        """Raise HubError unless visitors may load this repo by its id."""
        allowed = [name.strip() for name in (os.environ.get("ARENA_ALLOW_LOADING") or "all").split(",")]
        if "all" in allowed or repo_id in allowed or repo_id.partition("/")[0] in allowed:
            return
        if allowed == ["none"]:
            raise HubError("Loading adapters by id is switched off here (ARENA_ALLOW_LOADING): ask those on offer.")
        raise HubError(
            f"{repo_id[:100]} may not be loaded here, only those of {some(allowed)} (ARENA_ALLOW_LOADING): "
            "ask those on offer."
        )

    def _withdraw(self, name: str) -> None:
        """Take an adapter that a visitor loaded off the catalogue and off the disk again."""
        with self._lock_of(name):  # nobody is in the middle of fetching it
            with self._lock:
                self._listed.pop(name, None)
            if holder := self._holder(name):
                holder.remove(name)
            hub.forget(name)

    def _engine_for(self, remote: Remote) -> Engine:
        """The main engine, or for an adapter of another supported base a second one; the oldest makes room."""
        base_id = bases.ALIASES.get(remote.base_model, remote.base_model)
        if base_id in (None, self.engine.base.id, self.engine.base.label):
            return self.engine  # a card may not say; the adapter's own config is checked after the download
        room = settings.number("ARENA_MORE_BASES")
        if base_id not in bases.BASES or room < 1:
            allowed = [self.engine.base.label, *(bases.BASES if room else [])]
            raise BaseModelError(
                f"Adapter {remote.repo_id} is for base model {base_id}, which is not served here; served: {', '.join(allowed)}."
            )
        with self._making:
            if base_id not in self._others:
                engine = Engine(bases.find(base_id), self.engine.precision)
                while len(self._others) >= room:
                    self._others.pop(next(iter(self._others))).close()
                self._others[base_id] = engine
            return self._others[base_id]

    # ------------------------------------------------------------ listing

    def start(self) -> None:
        """List the Hub's adapters now and every hour, beside the app; what visitors had fetched long ago is removed."""
        hub.tidy(self._listed, int(settings.number("ARENA_MAX_FETCHED")))
        if self.has_sources:
            threading.Thread(target=self._keep_listing, name="listing", daemon=True).start()

    def refresh(self) -> Status:
        """Look at the Hub now, LISTING_SECONDS at most; what was listed before stays where it cannot be seen."""
        network.ask_again()
        worker = threading.Thread(target=self._list, name="refresh", daemon=True)
        worker.start()
        worker.join(LISTING_SECONDS)
        return self.status

    def _keep_listing(self) -> None:
        while True:
            self._list()
            self._wake.wait(REFRESH_SECONDS if self.status.reached else REFRESH_SECONDS / 60)

    def _list(self) -> None:
        if not network.hub_reachable():
            self.status = Status(False, time.time(), [])
            return
        found, problems = {}, []
        if self._namespace:
            problems += _try(lambda: found.update(_by_name(hub.discover(self._namespace, self.engine.base))))
        for repo in self._repos:
            problems += _try(lambda repo=repo: found.update(_by_name([hub.look_up(repo)])))
        with self._lock:  # what a visitor loads meanwhile is not lost
            seen = set(found)
            if problems:  # what could not be seen this time is kept as it was
                found = self._listed | found
            else:
                loaded = {entry.name for entry in self.entries if entry.adapter and entry.remote}
                found = {name: remote for name, remote in self._listed.items() if name in loaded} | found
            self._fetched = [name for name in self._fetched if name not in seen]
            self._listed = found
        self._keep(found)
        self.status = Status(True, time.time(), problems)

    # ------------------------------------------------------------ latency

    def time_adapters(self) -> None:
        """Measure, beside the app, how long one text takes with each loaded adapter on this machine."""
        threading.Thread(target=self._time_adapters, name="latency", daemon=True).start()

    def _time_adapters(self) -> None:
        seconds: dict[str, list[float]] = {}
        for _ in range(_TIMED + 1):  # in turns, so that what else a start does is not counted against the first ones
            for name in [entry.name for entry in self.entries if entry.adapter]:
                _try(lambda name=name: seconds.setdefault(name, []).append(self._seconds(name)))
        for name, found in seconds.items():
            self.latency[name] = 1000 * statistics.median(found[1:] or found)  # the first one warms caches up

    def _seconds(self, name: str) -> float:
        start = time.perf_counter()
        self.predict([_TIMED_TEXT], name)
        return time.perf_counter() - start

    # ------------------------------------------------------------ what was listed, on disk

    @property
    def _file(self) -> Path:
        return files.cache_folder() / "listing.json"

    @property
    def _key(self) -> list:
        return [self._namespace, self._repos, self.engine.base.id, os.environ.get("HF_ENDPOINT")]

    def _keep(self, found: dict[str, Remote]) -> None:
        """Write the listing down, whole or not at all."""
        content = {"of": self._key, "adapters": [dataclasses.asdict(remote) for remote in found.values()]}
        files.write_cache(self._file, json.dumps(content))

    def _kept(self) -> dict[str, Remote]:
        """The last good listing of these sources; none when there is none or it cannot be read."""
        try:
            content = json.loads(self._file.read_text())
            if content["of"] != self._key:
                return {}
            return {row["repo_id"]: Remote(**row) for row in content["adapters"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def _by_name(remotes: list[Remote]) -> dict[str, Remote]:
    return {remote.repo_id: remote for remote in remotes}


def _try(do: Callable[[], None]) -> list[str]:
    """Nothing when `do` went well, else its reason in a list."""
    try:
        do()
    except ArenaError as error:
        return [str(error)]
    return []
