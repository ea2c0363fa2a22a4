"""Gradio's event queue: how many calls wait in it, and responses that no client fetches.

A client calls an endpoint with one request and fetches the response with another. Gradio has no public way to see
what it stores in between, so `Blocks._queue` is read here, and only here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import gradio as gr

UNFETCHED_SECONDS = 300.0
"""Shortest time for which a response is stored that no client fetches; the longest is twice that."""


class EventQueue:
    """The event queue of one app.

    Gradio stores the unfetched responses of 2,000 sessions whatever their size; one of /predict_batch takes megabytes.
    """

    def __init__(self, demo: gr.Blocks):
        self._demo = demo
        self._unfetched: set[str] = set()

    @property
    def waiting(self) -> int:
        """Number of calls that wait for their processing."""
        return len(self._demo._queue)

    @property
    def has_pending_responses(self) -> bool:
        """Whether the response to any call has not been fetched yet."""
        return any(list(self._demo._queue.pending_event_ids_session.values()))  # a copy: the server may add some

    def evict_unfetched(self) -> None:
        """Evict responses that were complete at the last call of this method and have not been fetched since."""
        queue = self._demo._queue
        running_sessions = {event.session_hash for event in queue.event_ids_to_events.values()}
        unfetched = set()
        for session, events in list(queue.pending_event_ids_session.items()):  # a copy: some are deleted
            if session in running_sessions:
                continue
            if events & self._unfetched:
                queue.pending_messages_per_session.pop(session, None)
                queue.pending_event_ids_session.pop(session, None)
            else:
                unfetched |= events
        self._unfetched = unfetched

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Evict unfetched responses every UNFETCHED_SECONDS while the server runs."""

        async def evict_regularly() -> None:
            while True:
                await asyncio.sleep(UNFETCHED_SECONDS)
                self.evict_unfetched()

        task = asyncio.create_task(evict_regularly())
        yield
        task.cancel()
