"""The cache with a budget in bytes evicts what was used least recently."""

from adapter_arena.lru import LRUCache


def test_the_least_recently_used_values_are_evicted():
    cache = LRUCache(budget=10)
    cache.put("a", "first", 4)
    cache.put("b", "second", 4)
    assert cache.get("a") == "first"
    assert cache.put("c", "third", 5) == ["second"]
    assert cache.get("b") is None
    assert cache.nbytes == 9


def test_a_replaced_or_removed_value_does_not_count():
    cache = LRUCache(budget=10)
    cache.put("a", "old", 8)
    assert cache.put("a", "new", 9) == []
    assert cache.get("a") == "new"
    cache.remove("a")
    cache.remove("missing")
    assert cache.nbytes == 0


def test_the_newest_value_stays_even_if_it_is_larger_than_the_budget():
    cache = LRUCache(budget=10)
    cache.put("a", "small", 1)
    assert cache.put("b", "large", 11) == ["small"]
    assert cache.get("b") == "large"
