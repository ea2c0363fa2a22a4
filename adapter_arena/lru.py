"""A cache with a budget in bytes that evicts the least recently used values."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """Values with their sizes in bytes, together at most `budget`; safe to use from any thread.

    A value that is larger than the budget evicts all others and is cached itself: check its size first if it must not.
    """

    def __init__(self, budget: float):
        self.budget = budget
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Size of all cached values."""
        with self._lock:
            return self._total()

    def get(self, key: K) -> V | None:
        """Return the value, which becomes the most recently used one, or None if it is not cached."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: K, value: V, size: int) -> list[V]:
        """Cache a value of `size` bytes as the most recently used one; return the values that were evicted for it.

        A value that had the same key is replaced and is not among them.
        """
        evicted = []
        with self._lock:
            self._entries.pop(key, None)
            self._entries[key] = (value, size)
            while len(self._entries) > 1 and self._total() > self.budget:
                _, (oldest, _) = self._entries.popitem(last=False)
                evicted.append(oldest)
        return evicted

    def pop(self, key: K) -> V | None:
        """Remove and return the value, or return None if it is not cached."""
        with self._lock:
            value, _ = self._entries.pop(key, (None, 0))
            return value

    def _total(self) -> int:
        return sum(size for _, size in self._entries.values())
