"""What is kept of each session of the page and of the API."""

import json
import urllib.request

import gradio as gr
import pytest
from conftest import HANG_SECONDS, free_port
from gradio.blocks import BlocksConfig
from gradio.state_holder import SessionState

from adapter_arena import ui
from adapter_arena.ui.service import Service
from adapter_arena.ui.sessions import Session, Sessions


def shout(text: str) -> str:
    return text.upper()


class NoCatalogue:
    entries = ()
    has_sources = False
    engine = None


@pytest.fixture(scope="module")
def launched():
    """Our Blocks with an endpoint, a counter that a page keeps and a box; launched."""
    with ui._Blocks() as blocks:
        blocks.service = Service(NoCatalogue())
        box, count = gr.Textbox("first"), gr.State(0)
        gr.api(shout, api_name="shout")
        box.submit(lambda n: n + 1, count, count, api_visibility="private", api_name="count")
    blocks.queue().launch(server_port=free_port(), prevent_thread_lock=True, quiet=True, ssr_mode=False)
    Sessions.take_over(blocks)
    yield blocks
    blocks.close()


@pytest.fixture
def demo(launched):
    """The launched Blocks without a session."""
    launched.app.state_holder.session_data.clear()
    return launched


def ask(demo: gr.Blocks, path: str, body: dict | None = None) -> bytes:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{demo.local_url}gradio_api/{path}", content, {"content-type": "application/json"}
    )
    return urllib.request.urlopen(request, timeout=HANG_SECONDS).read()


def test_a_caller_leaves_no_session_and_no_text_behind(demo):
    event = json.loads(ask(demo, "call/shout", {"data": ["a secret"]}))["event_id"]
    assert b"A SECRET" in ask(demo, f"call/shout/{event}")
    assert len(demo.app.state_holder.session_data) == 0


@pytest.mark.parametrize("body", [{"data": ["loud"]}, {"data": ["loud"], "session_hash": "page"}])
def test_no_caller_has_the_page_written_down(demo, monkeypatch, body):
    written, write = [], BlocksConfig.config_for_block
    monkeypatch.setattr(BlocksConfig, "config_for_block", staticmethod(lambda *a: written.append(a[0]) or write(*a)))
    assert json.loads(ask(demo, "run/shout", body))["data"] == ["LOUD"]
    endpoint = next(fn for fn in demo.fns.values() if fn.api_name == "shout")
    assert set(written) <= {block._id for block in endpoint.inputs + endpoint.outputs}


def test_a_page_keeps_what_it_has_counted(demo):
    number = next(i for i, fn in demo.fns.items() if fn.api_name == "count")
    for _ in range(3):
        ask(demo, "queue/join", {"data": [None], "fn_index": number, "session_hash": "page"})
        ask(demo, "queue/data?session_hash=page")
    ask(demo, "run/shout", {"data": ["loud"], "session_hash": "page"})
    assert list(demo.app.state_holder.session_data["page"].state_data.values()) == [3]


def test_a_link_to_a_page_has_every_component(demo):
    assert list(Session(demo).components) == list(SessionState(demo).components)
    changed, gradios = Session(demo), SessionState(demo)
    box = next(key for key, block in demo.blocks.items() if isinstance(block, gr.Textbox))
    for session in (changed, gradios):
        session._update_value_in_config(box, "second")
    assert list(changed.components) == list(gradios.components)
    assert list(Session(demo).components) != list(changed.components)
