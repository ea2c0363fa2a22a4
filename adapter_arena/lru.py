"""A thread-safe least-recently-used cache with a budget in bytes."""

import threading
from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")


class _Entry(NamedTuple, Generic[V]):
    value: V
    nbytes: int


class LRUCache(Generic[V]):
    """Values by name, whose sizes add up to at most `budget` bytes; the newest value always stays.

    `budget` may be changed at any time and applies to the next `put`.
    """

    def __init__(self, budget: float):
        self.budget = budget
        self._entries: OrderedDict[str, _Entry[V]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Size of all values in bytes."""
        with self._lock:
            return self._total()

    def get(self, name: str) -> V | None:
        """Return the value of that name, which becomes the most recently used, or None."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                return None
            self._entries.move_to_end(name)
            return entry.value

    def put(self, name: str, value: V, nbytes: int) -> list[V]:
        """Add or replace a value of that size; return the values that were evicted, least recently used first."""
        evicted = []
        with self._lock:
            self._entries.pop(name, None)
            self._entries[name] = _Entry(value, nbytes)
            while len(self._entries) > 1 and self._total() > self.budget:
                _, entry = self._entries.popitem(last=False)
                evicted.append(entry.value)
        return evicted

    def make_room(self, nbytes: int) -> list[V]:
        """Evict values until `nbytes` more fit in the budget; return them, least recently used first."""
        evicted = []
        with self._lock:
            while self._entries and self._total() + nbytes > self.budget:
                _, entry = self._entries.popitem(last=False)
                evicted.append(entry.value)
        return evicted

    def values(self) -> list[V]:
        """Return all values, least recently used first."""
        with self._lock:
            return [entry.value for entry in self._entries.values()]

    def remove(self, name: str) -> None:
        """Remove the value of that name, if there is one."""
        with self._lock:
            self._entries.pop(name, None)

    def _total(self) -> int:
        return sum(entry.nbytes for entry in self._entries.values())
