from adapter_arena.lru import LRUCache


def test_the_least_recently_used_values_are_evicted():
    cache = LRUCache(budget=30)
    assert cache.put("a", "A", 10) == []
    assert cache.put("b", "B", 10) == []
    assert cache.put("c", "C", 10) == []
    assert cache.get("a") == "A"
    assert cache.put("d", "D", 15) == ["B", "C"]
    assert (cache.get("a"), cache.get("b"), cache.get("d")) == ("A", None, "D")
    assert cache.nbytes == 25


def test_a_replaced_or_removed_value_no_longer_counts():
    cache = LRUCache(budget=30)
    cache.put("a", "old", 30)
    assert cache.put("a", "new", 20) == []
    assert cache.nbytes == 20
    cache.remove("a")
    cache.remove("a")
    assert cache.get("a") is None
    assert cache.nbytes == 0


def test_the_newest_value_is_cached_even_if_it_exceeds_the_budget():
    cache = LRUCache(budget=30)
    cache.put("a", "A", 10)
    assert cache.put("b", "B", 100) == ["A"]
    assert cache.get("b") == "B"


def test_the_budget_can_be_lowered_for_the_next_value():
    cache = LRUCache(budget=30)
    cache.put("a", "A", 10)
    cache.budget = 10
    assert cache.put("b", "B", 5) == ["A"]
