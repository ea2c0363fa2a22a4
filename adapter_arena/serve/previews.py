"""What loading an adapter takes, before it is loaded: its download, and the price of another base model."""

from dataclasses import dataclass

from adapter_arena import hub
from adapter_arena.adapters import store
from adapter_arena.adapters.store import Adapter
from adapter_arena.errors import AdapterError, BaseModelError
from adapter_arena.hub import RemoteAdapter
from adapter_arena.models import base_names, bases, methods, servable
from adapter_arena.serve.engines import Engines


@dataclass(frozen=True)
class BasePrice:
    """What a base model that is not in memory takes, in MB of 10^6 bytes."""

    name: str
    download_mb: float
    """0 if it is on this machine."""
    memory_mb: float


@dataclass(frozen=True)
class Preview:
    """An adapter that is not loaded yet, and what loading it takes."""

    name: str
    revision: str | None
    """The Hub commit that would be loaded; None for a local adapter."""
    method: str
    """A name in `methods.METHODS`, or PEFT's name of another method in lower case."""
    title: str
    """The method's name as it is written in prose."""
    base_model: str
    download_mb: float
    """Of the adapter alone, in MB of 10^6 bytes; 0 if it is on this machine."""
    base: BasePrice | None
    """Of its base model; None if that is in memory."""


def of_remote(remote: RemoteAdapter, engines: Engines) -> Preview:
    """Return the preview of an adapter on the Hub; only configs are downloaded. Raises ArenaError.

    What its weights decide, such as a missing head, is only found when it is loaded.
    """
    found = hub.preview(remote.repo_id, remote.revision)
    try:
        base, price = _base(remote.base_model, engines)
    except BaseModelError as error:
        raise BaseModelError(f"Adapter {remote.repo_id} needs another base model. {error}") from error
    problem = _problem(found, base, is_on_machine=price is None or price.download_mb == 0)
    if problem:
        raise AdapterError(f"Adapter {remote.repo_id} {problem}.")
    method = remote.method
    if method == "unknown":
        method = "full" if found.is_full else str(found.config.get("peft_type")).lower()
    return Preview(remote.repo_id, remote.revision, method, _title(method), base.label, found.megabytes, price)


def of_local(adapter: Adapter, base: bases.Base, engines: Engines) -> Preview:
    """Return the preview of a local adapter for another base model than the app's. Raises BaseModelError."""
    _, price = _base(base.id, engines)
    return Preview(adapter.name, None, adapter.method, _title(adapter.method), base.label, 0.0, price)


def _base(name: str | None, engines: Engines) -> tuple[bases.Base, BasePrice | None]:
    """Return the base model of that name and its price, None if it is in memory. Raises BaseModelError."""
    if engines.is_own_base(name):
        return engines.own.base, None
    base = bases.find(name)
    if engines.is_loaded(base.id):
        return base, None
    memory = engines.check_budget(base)
    return base, BasePrice(base.label, bases.download_megabytes(base), memory / 1e6)


def _problem(found: hub.Preview, base: bases.Base, is_on_machine: bool) -> str | None:
    """Return why an adapter with this config cannot be served on the base, as far as its config tells."""
    if found.is_full:
        return base_names.problem(found.config.get("_name_or_path"), base, "_name_or_path in config.json", True)
    named = found.config.get("base_model_name_or_path")
    # The sizes of prompts are compared with the config of the base, for which the base is downloaded.
    has_prompt = "num_virtual_tokens" in found.config
    problem = None
    if is_on_machine or not has_prompt:
        problem = servable.adapter_problem(found.config, base)
    return problem or base_names.problem(named, base, f"base_model_name_or_path in {store.ADAPTER_CONFIG}")


def _title(method: str) -> str:
    return methods.METHODS[method].title if method in methods.METHODS else method
