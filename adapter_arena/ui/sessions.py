"""What Gradio keeps of each session, made when it is needed: a caller by HTTP is a new session with every request."""

import time
from types import SimpleNamespace

import gradio as gr
from gradio import route_utils
from gradio.state_holder import SessionState, StateHolder


class Session(SessionState):
    """A session without a copy of the whole page.

    Gradio writes down every component's configuration for each new one, for links that bring a page's state back:
    16 ms and 190 KB with our 124, of 43 ms that a request takes with everything else.
    """

    def __init__(self, blocks: gr.Blocks):
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks=()))
        self._page = blocks.blocks

    @property
    def components(self):
        """The configuration of every component, of those that are as they were at first too."""
        config = self.blocks_config
        found = (
            self.config_values.get(key) or config.config_for_block(key, [], block)
            for key, block in config.blocks.items()
            if key in self._page
        )
        return filter(None, found)


UNFETCHED_SECONDS = 300.0
_SWEEP_SECONDS = 30.0


class Unfetched:
    """Answers that nobody comes for: Gradio keeps those of 2,000 sessions, however large they are."""

    def __init__(self):
        self._since: dict[str, float] = {}
        self._swept = time.monotonic()

    def sweep(self, demo: gr.Blocks | None) -> None:
        """Now and then, forget the answers that have waited for UNFETCHED_SECONDS; for the server's own thread."""
        now = time.monotonic()
        if demo is None or now - self._swept < _SWEEP_SECONDS:
            return
        self._swept, queue = now, demo._queue
        running = {event.session_hash for event in queue.event_ids_to_events.values()}
        ready = [key for key, events in queue.pending_event_ids_session.items() if events and key not in running]
        self._since = {key: self._since.get(key, now) for key in ready}
        for key in [key for key, since in self._since.items() if now - since > UNFETCHED_SECONDS]:
            queue.pending_messages_per_session.pop(key, None)
            queue.pending_event_ids_session.pop(key, None)
            del self._since[key]


class Sessions(StateHolder):
    """The sessions of one running app."""

    @classmethod
    def take_over(cls, demo: gr.Blocks) -> None:
        """Hold the sessions of a launched app from now on."""
        demo.app.state_holder = cls()
        demo.app.state_holder.set_blocks(demo)
        route_utils.SessionState = Session  # for a caller of /run, who names no session

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = Session(self.blocks)
        return super().__getitem__(session_id)

    def drop(self, session_id: str | None) -> None:
        """Forget a session, the text it asked about and all, unless a page keeps something in it."""
        session = self.session_data.get(session_id)
        if session is not None and not session.state_data:
            self.session_data.pop(session_id, None)
            self.time_last_used.pop(session_id, None)
