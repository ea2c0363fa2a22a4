"""One queue for all callers: fair shares, batches by key and length, one worker thread per core.

The scheduler knows neither models nor adapters. A `WorkItem` says which items it may share a batch with, how long it is
and how a batch runs.
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import Self, TypeVar

from adapter_arena import machine
from adapter_arena.errors import BusyError, RequestError

MAX_BATCH_TOKENS = 8192
"""Tokens (rows x longest row) in one batch: more is no faster on two cores and takes more memory."""
SHARE_TOKENS = 2048
"""Tokens that a request gets before the next one is served: about a quarter of a second on two cores."""
MIN_LANE_TOKENS = 512
"""Tokens in a batch for a core that computes alone: its matrix products are slow with fewer."""
T = TypeVar("T")
_LOG = logging.getLogger(__name__)


class _Pending:
    """Something that waits to run; its caller waits for `future`."""

    def __init__(self) -> None:
        self.future: Future = Future()

    def start(self) -> bool:
        """Mark it as running; return False if its caller cancelled it."""
        return self.future.set_running_or_notify_cancel()

    def succeed(self, result: object) -> None:
        """Give the caller the result, unless a failure of the scheduler was reported before."""
        with suppress(InvalidStateError):
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Give the caller the error, unless there is a result or an error already."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


class WorkItem(_Pending, ABC):
    """One row of a batch. Items with the same `key`, compared by identity, may share a batch."""

    def __init__(self, key: object, tokens: int):
        super().__init__()
        self.key = key
        self.tokens = tokens

    @property
    @abstractmethod
    def splits(self) -> bool:
        """Whether items of this key are spread over the cores; False if every further batch has a cost of its own."""

    @abstractmethod
    def run(self, batch: list[Self]) -> None:
        """Compute a batch, which contains this item, and call `succeed` or `fail` on each of its items."""


class _Call(_Pending):
    """A function that runs while nothing else does."""

    def __init__(self, function: Callable[[], object]):
        super().__init__()
        self.function = function

    @property
    def pending(self) -> list[_Pending]:
        return [self]


class _Request:
    """The items of one caller, which are served in shares so that other callers need not wait for all of them."""

    def __init__(self, items: Iterable[WorkItem]):
        self.pending = list(items)
        self.waiting = deque(sorted(self.pending, key=lambda item: -item.tokens))

    def take(self, room: int) -> list[WorkItem]:
        """Take the longest waiting items, at most `room` tokens with padding but at least one item."""
        longest = self.waiting[0].tokens
        count = min(len(self.waiting), max(1, room // longest))
        return [self.waiting.popleft() for _ in range(count)]


class _Lanes:
    """Runs batches: one on all cores, or several with one core each.

    Cores that compute together wait for each other after every product, which takes longer than separate batches do,
    and far longer if something else runs on the machine.
    """

    def __init__(self, cores: int):
        self._cores = cores
        self._idle = threading.Semaphore(cores)
        self._pool = self._new_pool()

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._cores, "lane", machine.use_one_core)

    def acquire_all(self, wait: bool) -> bool:
        """Reserve all cores; return False if one is busy and `wait` is False."""
        for acquired in range(self._cores):
            if not self._idle.acquire(blocking=wait):
                if acquired:
                    self._idle.release(acquired)
                return False
        return True

    def release_all(self) -> None:
        """Release all cores."""
        self._idle.release(self._cores)

    def submit(self, batch: list[WorkItem]) -> None:
        """Run the batch on one core, as soon as there is an idle one. Raises RuntimeError if no thread can be started."""
        self._idle.acquire()
        try:
            lane = self._pool.submit(_run_batch, batch)
        except RuntimeError:
            self._idle.release()
            self._pool.shutdown(wait=False)  # a pool that failed once accepts nothing more
            self._pool = self._new_pool()
            raise
        lane.add_done_callback(lambda _: self._idle.release())

    def shutdown(self) -> None:
        """Wait for the running batches and end the threads."""
        self._pool.shutdown()


class Scheduler:
    """Runs the work of all callers; every method may be called from any thread."""

    def __init__(self, cores: int, max_waiting: float):
        """Start the worker thread.

        `cores` is the number of batches that run at the same time, `max_waiting` the number of items that may wait.
        """
        self._cores = cores
        self._max_waiting = max_waiting
        self._lanes = _Lanes(cores)
        self._requests: deque[_Request] = deque()
        self._calls: list[_Call] = []
        self._is_closed = False
        self._changed = threading.Condition()  # guards the three above
        threading.Thread(target=self._work, name="scheduler", daemon=True).start()

    @property
    def waiting(self) -> int:
        """Number of items that wait to run."""
        with self._changed:
            return self._count_waiting()

    def submit(self, items: list[WorkItem]) -> None:
        """Queue the items of one caller. Raises RequestError if the scheduler is closed, BusyError if too many wait."""
        # Queued together: batches, and with them rounding in bf16, must not depend on how fast the worker is.
        with self._changed:
            self._check_open()
            self._check_room(len(items))
            self._requests.append(_Request(items))
            self._changed.notify()

    def check_room(self, items: int) -> None:
        """Raise BusyError if that many more items may not wait now."""
        with self._changed:
            self._check_room(items)

    def call(self, function: Callable[[], T]) -> "Future[T]":
        """Queue a function that runs between batches, while nothing else runs; raises the errors of `submit`."""
        call = _Call(function)
        with self._changed:
            self._check_open()
            self._check_room(0)
            self._calls.append(call)
            self._changed.notify()
        return call.future

    def close(self) -> None:
        """Accept nothing more; the worker finishes what waits and ends."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _count_waiting(self) -> int:
        return sum(len(request.waiting) for request in self._requests)

    def _check_open(self) -> None:
        if self._is_closed:
            raise RequestError("This base model was just unloaded to make room for another. Please try again.")

    def _check_room(self, items: int) -> None:
        waiting = self._count_waiting()
        if waiting and waiting + items > self._max_waiting:
            raise BusyError(
                f"Too many texts are waiting ({waiting:,}, the limit is {self._max_waiting:,.0f}, ARENA_MAX_WAITING). "
                "Please try again in a few seconds."
            )

    def _work(self) -> None:
        """Serve the queue until it is empty and the scheduler is closed."""
        while queued := self._wait_for_work():
            try:
                self._serve_once()
            except BaseException as error:  # noqa: BLE001 - an unexpected failure must not leave callers waiting
                _LOG.exception("the scheduler failed and continues")
                self._fail(queued, error)
        self._lanes.shutdown()

    def _wait_for_work(self) -> list[_Request | _Call]:
        """Return what is queued, once there is something; an empty list if the scheduler was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._requests or self._calls or self._is_closed)
            return [*self._requests, *self._calls]

    def _fail(self, queued: list[_Request | _Call], error: BaseException) -> None:
        """Remove requests and calls from the queue and report the error to their callers."""
        with self._changed:
            self._requests = deque(request for request in self._requests if request not in queued)
            self._calls = [call for call in self._calls if call not in queued]
        for entry in queued:
            for pending in entry.pending:
                pending.fail(error)

    def _serve_once(self) -> None:
        """Run a share of the waiting requests, then the waiting calls."""
        with self._changed:
            shares = self._take_shares()
            calls = self._calls
            self._calls = []
        self._run_items([item for item in shares if item.start()])
        for call in calls:
            if call.start():
                self._run_call(call)

    def _take_shares(self) -> list[WorkItem]:
        """Take a share of each request in the order of arrival, as long as one batch has room.

        What is left of these requests is queued behind those that got no share.
        """
        shares = []
        unfinished = []
        room = MAX_BATCH_TOKENS
        while self._requests and room > 0:
            request = self._requests.popleft()
            share = request.take(min(room, SHARE_TOKENS))
            room -= len(share) * share[0].tokens
            shares.extend(share)
            if request.waiting:
                unfinished.append(request)
        self._requests.extend(unfinished)
        return shares

    def _run_items(self, items: list[WorkItem]) -> None:
        """Run the items; return when the last batch has started, so that the next share fills the cores that get idle."""
        batches = self._batches(items)
        if len(batches) == 1 and self._lanes.acquire_all(wait=False):
            _run_batch(batches[0])
            self._lanes.release_all()
            return
        for batch in sorted(batches, key=lambda batch: -_total_tokens(batch)):
            self._lanes.submit(batch)

    def _batches(self, items: list[WorkItem]) -> list[list[WorkItem]]:
        """Return batches, small enough for all cores where they may be split."""
        split = []
        together = []
        for item in items:
            if item.splits:
                split.append(item)
            else:
                together.append(item)
        tokens_per_core = max(MIN_LANE_TOKENS, _total_tokens(items) // self._cores)
        return group(split, tokens_per_core) + group(together)

    def _run_call(self, call: _Call) -> None:
        self._lanes.acquire_all(wait=True)
        try:
            call.succeed(call.function())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets it and the worker continues
            call.fail(error)
        self._lanes.release_all()


def group(items: list[WorkItem], max_tokens: int = MAX_BATCH_TOKENS) -> list[list[WorkItem]]:
    """Return batches of one key each, rows of similar length together, at most `max_tokens` tokens with padding."""
    batches: list[list[WorkItem]] = []
    for item in sorted(items, key=lambda item: (id(item.key), item.tokens)):
        if batches:
            last = batches[-1]
            if last[0].key is item.key and (len(last) + 1) * item.tokens <= max_tokens:
                last.append(item)
                continue
        batches.append([item])
    return batches


def _total_tokens(items: list[WorkItem]) -> int:
    return sum(item.tokens for item in items)


def _run_batch(batch: list[WorkItem]) -> None:
    """Run a batch; if it fails, run each item alone, so that an item that cannot be computed affects no other."""
    try:
        batch[0].run(batch)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the callers get it and the thread continues
        if len(batch) == 1:
            batch[0].fail(error)
            return
        for item in batch:
            _run_batch([item])
