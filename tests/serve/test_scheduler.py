"""The scheduler with items that only note when they run."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import HANG_SECONDS, wait_until

from adapter_arena.errors import BusyError, RequestError
from adapter_arena.serve import scheduler
from adapter_arena.serve.scheduler import Scheduler, WorkItem

CORES = 2


class Item(WorkItem):
    """Its result is its number of tokens."""

    splits = False

    def __init__(self, key: object, tokens: int, batches: list[list["Item"]]):
        super().__init__(key, tokens)
        self.batches = batches

    def run(self, batch: list["Item"]) -> None:
        self.batches.append(batch)
        for item in batch:
            item.succeed(item.tokens)


class Failing(Item):
    """An item that fails the batch it is in."""

    def run(self, batch: list[Item]) -> None:
        raise SystemExit("no room")


class Blocking(Item):
    """An item that runs until the test says so."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.started = threading.Event()
        self.go_on = threading.Event()

    def run(self, batch: list[Item]) -> None:
        self.started.set()
        assert self.go_on.wait(HANG_SECONDS)
        super().run(batch)


@pytest.fixture
def one():
    running = Scheduler(CORES, max_waiting=1000)
    yield running
    running.close()


@contextmanager
def paused(one: Scheduler) -> Iterator[None]:
    """Keep the scheduler from running anything until the block ends."""
    started = threading.Event()
    go_on = threading.Event()

    def block() -> None:
        started.set()
        go_on.wait(HANG_SECONDS)

    one.call(block)
    assert started.wait(HANG_SECONDS)
    try:
        yield
    finally:
        go_on.set()


def results(items: list[Item]) -> list[int]:
    return [item.future.result(HANG_SECONDS) for item in items]


def test_every_item_gets_its_own_result(one):
    batches = []
    items = [Item(key, tokens, batches) for key in ("a", "b") for tokens in range(1, 200)]
    one.submit(items)
    assert results(items) == [item.tokens for item in items]
    assert one.waiting == 0
    for batch in batches:
        assert len({item.key for item in batch}) == 1


def test_batches_have_one_key_and_a_limited_number_of_tokens():
    a = object()
    b = object()
    items = [Item(key, tokens, []) for tokens in range(1, 400) for key in (a, b)]
    batches = scheduler.group(items)
    assert sum(len(batch) for batch in batches) == len(items)
    for batch in batches:
        assert len({id(item.key) for item in batch}) == 1
        assert len(batch) * max(item.tokens for item in batch) <= scheduler.MAX_BATCH_TOKENS


def test_items_that_split_are_spread_over_the_cores(one, monkeypatch):
    monkeypatch.setattr(Item, "splits", True)
    batches = []
    items = [Item("a", 100, batches) for _ in range(20)]
    one.submit(items)
    assert results(items) == [100] * 20
    assert [len(batch) for batch in batches] == [10, 10]


def test_each_request_gets_a_share_and_those_without_one_are_first_the_next_time():
    one = Scheduler(CORES, max_waiting=1000)
    one.close()
    long = scheduler._Request(Item("a", 500, []) for _ in range(100))
    short = scheduler._Request([Item("b", 10, [])])
    one._requests.extend([long, short])
    assert [item.tokens for item in one._take_shares()] == [500] * 4 + [10]
    assert list(one._requests) == [long]

    one._requests.clear()
    requests = [scheduler._Request(Item("a", 500, []) for _ in range(100)) for _ in range(6)]
    one._requests.extend(requests)
    assert len(one._take_shares()) == 17
    assert list(one._requests) == [requests[5], *requests[:5]]


def test_cancelled_items_do_not_run(one):
    batches = []
    items = [Item("a", 10, batches) for _ in range(3)]
    with paused(one):
        one.submit(items)
        items[1].future.cancel()
    assert results([items[0], items[2]]) == [10, 10]
    assert sum(len(batch) for batch in batches) == 2


def test_too_many_waiting_items_are_refused_and_later_accepted():
    one = Scheduler(CORES, max_waiting=50)
    many = [Item("a", 10, []) for _ in range(60)]
    with paused(one):
        one.submit(many)  # over the limit, but nothing waits before them
        with pytest.raises(BusyError, match=r"\(60, the limit is 50, ARENA_MAX_WAITING\). Please try again"):
            one.submit([Item("a", 10, [])])
    assert len(results(many)) == 60
    late = Item("a", 10, [])
    one.submit([late])
    assert results([late]) == [10]
    one.close()


def test_an_item_that_fails_affects_no_other(one):
    items = [Item("a", 10, []), Failing("a", 5, []), Item("a", 20, [])]
    one.submit(items)
    assert isinstance(items[1].future.exception(HANG_SECONDS), SystemExit)
    assert results([items[0], items[2]]) == [10, 20]


def test_a_call_runs_alone(one):
    block = Blocking("a", 10, [])
    one.submit([block])
    assert block.started.wait(HANG_SECONDS)
    call = one.call(lambda: "done")
    time.sleep(0.1)
    assert not call.done()
    block.go_on.set()
    assert call.result(HANG_SECONDS) == "done"


def test_a_failing_call_reports_its_error(one):
    def fail() -> None:
        raise SystemExit("no room")

    assert isinstance(one.call(fail).exception(HANG_SECONDS), SystemExit)
    assert one.call(lambda: "next").result(HANG_SECONDS) == "next"


def test_what_waits_is_finished_after_close_and_nothing_more_is_accepted(one):
    items = [Item("a", 100, []) for _ in range(100)]
    with paused(one):
        one.submit(items)
        one.close()
        with pytest.raises(RequestError, match="was just unloaded"):
            one.submit([Item("a", 10, [])])
        with pytest.raises(RequestError, match="was just unloaded"):
            one.call(lambda: None)
    assert results(items) == [100] * 100


def test_an_unexpected_failure_is_reported_to_those_who_wait_and_the_scheduler_continues(one, monkeypatch):
    def broken(items, max_tokens=0):
        monkeypatch.undo()
        raise SystemExit("the worker ends")

    with paused(one):
        monkeypatch.setattr(scheduler, "group", broken)
        items = [Item("a", 100, []) for _ in range(100)]
        one.submit(items)
    for item in items:
        assert "the worker ends" in str(item.future.exception(HANG_SECONDS))
    late = Item("a", 10, [])
    one.submit([late])
    assert results([late]) == [10]
    assert one.waiting == 0


def test_a_thread_that_cannot_be_started_costs_no_core(one, monkeypatch):
    monkeypatch.setattr(one._lanes, "acquire_all", lambda wait: False)  # as if other batches were running

    def no_thread(*_):
        raise RuntimeError("can't start new thread")

    for _ in range(2 * CORES):
        one._lanes._pool.submit = no_thread
        failed = Item("a", 10, [])
        one.submit([failed])
        assert isinstance(failed.future.exception(HANG_SECONDS), RuntimeError)
        late = Item("a", 10, [])
        one.submit([late])
        assert results([late]) == [10]
    wait_until(lambda: one._lanes._idle._value == CORES)
