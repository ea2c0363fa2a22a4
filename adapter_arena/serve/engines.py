"""The engines of the app: that of its own base model, and those of further ones, loaded on demand within a budget."""

import threading

import torch

from adapter_arena import settings
from adapter_arena.errors import BaseModelError
from adapter_arena.lru import LRUCache
from adapter_arena.models import base_names, bases, compute, memory
from adapter_arena.serve.engine import Engine


class Engines:
    """One engine for each base model in memory; every method may be called from any thread.

    Further base models share ARENA_MORE_BASES; the least recently used is unloaded.
    """

    def __init__(self, own: Engine):
        self.own = own
        """The engine of the app's base model, which is never unloaded."""
        self._others: LRUCache[Engine] = LRUCache(0)
        self._loading = threading.Lock()
        self._megabytes: dict[str, float] = {}
        """Sizes of base models by id, counted once."""

    @property
    def all(self) -> list[Engine]:
        """The app's own engine first."""
        return [self.own, *self._others.values()]

    def holding(self, adapter: str) -> Engine | None:
        """Return the engine that has the adapter of that name, if one has."""
        for engine in self.all:
            if any(served.name == adapter for served in engine.adapters):
                self._others.get(engine.base.id)  # it is the most recently used one now
                return engine
        return None

    def is_own_base(self, base_model: str | None) -> bool:
        """Return whether something for that base model may be served by the app's own engine."""
        return base_names.relation(base_model, self.own.base) is not base_names.Relation.OTHER

    def for_base(self, base: bases.Base) -> Engine:
        """Return the engine of a base model, which is loaded if it is not in memory. Raises BaseModelError."""
        if base.id == self.own.base.id:
            return self.own
        with self._loading:
            engine = self._others.get(base.id)
            if engine is None:
                nbytes = self.check_budget(base)
                self._others.budget = 1e6 * settings.get("ARENA_MORE_BASES")
                for evicted in self._others.make_room(nbytes):
                    evicted.close()
                engine = Engine(base, self.own.precision)
                self._others.put(base.id, engine, nbytes)
            return engine

    def check_budget(self, base: bases.Base) -> int:
        """Return the memory of a further base model in bytes. Raises BaseModelError if ARENA_MORE_BASES is less."""
        budget = 1e6 * settings.get("ARENA_MORE_BASES")
        nbytes = round(1e6 * self.megabytes(base))
        if nbytes > budget:
            raise BaseModelError(_over_budget(base, nbytes, budget))
        return nbytes

    def megabytes(self, base: bases.Base) -> float:
        """Return the memory that loading the base model takes, in MB of 10^6 bytes, without merged adapters."""
        if base.id not in self._megabytes:
            in_fp32 = compute.type_for(base, self.own.precision) == torch.float32
            size = memory.estimate(base.full_config, base.architecture, self.own.precision, in_fp32)
            self._megabytes[base.id] = size.megabytes
        return self._megabytes[base.id]

    def known_megabytes(self, base_model: str) -> float | None:
        """Return the same by id, without a request to the Hub; None if the model was not looked up yet."""
        base_id = bases.ALIASES.get(base_model, base_model)
        if base_id in bases.BASES:
            return self.megabytes(bases.BASES[base_id])
        return self._megabytes.get(base_id)

    def is_loaded(self, base_model: str | None) -> bool:
        """Return whether the base model is in memory, or nothing says that it is another than the app's."""
        base_id = bases.ALIASES.get(base_model, base_model)
        return self.is_own_base(base_model) or any(engine.base.id == base_id for engine in self._others.values())


def _over_budget(base: bases.Base, nbytes: int, budget: float) -> str:
    needed = f"Base model {base.label} takes {nbytes / 1e6:,.0f} MB"
    if budget <= 0:
        return f"{needed}, and this app loads no further base model (ARENA_MORE_BASES is 0): start it with that base."
    return f"{needed}, and this app has {budget / 1e6:,.0f} MB for further base models (ARENA_MORE_BASES)."
