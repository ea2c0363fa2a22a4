"""Merged copies of the adapters in demand, in a cache with a memory budget."""

import logging
import threading
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from adapter_arena import settings
from adapter_arena.lru import LRUCache
from adapter_arena.models import bases, peft_patches
from adapter_arena.models.fast import merging

if TYPE_CHECKING:
    from adapter_arena.serve.served import Served

_LOG = logging.getLogger(__name__)


def budget_mb() -> float:
    """Return the memory for merged copies in MB (10^6 bytes): ARENA_HOT_MB, 512 by default; 0 disables merging."""
    return settings.get("ARENA_HOT_MB")


class _Entry(NamedTuple):
    served: "Served"
    model: nn.Module


class MergedCache:
    """Merged copies of the most recently used adapters; every method may be called from any thread."""

    def __init__(self, base: nn.Module, megabytes: float):
        self._cache: LRUCache[_Entry] = LRUCache(megabytes * 1e6)
        self._shared_layers = merging.SharedLayers(base)
        self._merge_lock = threading.Lock()

    @property
    def megabytes(self) -> float:
        """Size of the copies in MB, without the base model's layers that they share."""
        return self._cache.nbytes / 1e6

    def get(self, served: "Served") -> nn.Module | None:
        """Return the adapter's merged model, which becomes the most recently used, or None."""
        entry = self._cache.get(served.adapter.name)
        if entry is None or entry.served is not served:
            return None
        return entry.model

    def remove(self, name: str) -> None:
        """Remove the merged model of the adapter with that name, if there is one."""
        self._cache.remove(name)

    def merge(self, served: "Served") -> bool:
        """Merge the adapter and evict the least recently used ones beyond the budget; return whether it is merged.

        An adapter that cannot be merged is served unmerged.
        """
        with self._merge_lock:
            if self.get(served) is not None:  # another thread merged it while this one waited
                return True
            budget = self._cache.budget
            if budget <= 0 or not served.merges_left:
                return False
            try:
                copy = peft_patches.clear_dora_norms(bases.skeleton(served.model))
                merged = merging.merge(copy, self._shared_layers)
            except Exception as error:  # noqa: BLE001 - whatever a PEFT type raises, it can be served unmerged
                _LOG.warning("adapter %s is served unmerged: %s", served.adapter.name, error)
                served.merges_left -= 1
                return False
            if merged is None or merged.nbytes > budget:
                served.merges_left = 0
                return False
            entry = _Entry(served, merged.model)
            for evicted in self._cache.put(served.adapter.name, entry, merged.nbytes):
                evicted.served.rows = 0
            return True
