"""Sessions of Gradio that cost little: a client of the API is a new session with every request."""

from types import SimpleNamespace

import gradio as gr
from gradio import route_utils, state_holder
from gradio.state_holder import SessionState


class LightSession(SessionState):
    """A session that does not store the configuration of every component of the page.

    Gradio stores it for deep links, which this app does not have: 16 ms and 190 KB with our 124 components, of 43 ms
    for a complete request.
    """

    def __init__(self, blocks: gr.Blocks):
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks=()))


def use_light_sessions() -> None:
    """Have Gradio create light sessions; it has no setting for the class."""
    state_holder.SessionState = LightSession  # for requests that name a session, and those through the queue
    route_utils.SessionState = LightSession  # for the others


def forget(demo: gr.Blocks, session_id: str | None) -> None:
    """Delete a session, with the texts of its request, unless a page stores state in it.

    Gradio would keep the last 10,000 sessions, and limits their number for pages and clients together.
    """
    sessions = demo.state_holder
    session = sessions.session_data.get(session_id)
    if session is not None and not session.state_data:
        sessions.session_data.pop(session_id, None)
        sessions.time_last_used.pop(session_id, None)
