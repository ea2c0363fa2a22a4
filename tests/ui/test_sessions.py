"""What is stored of each session of the page and of the API."""

import json
import urllib.request

import gradio as gr
import pytest
from conftest import HANG_SECONDS, free_port
from gradio.blocks import BlocksConfig

from adapter_arena.ui import sessions
from adapter_arena.ui.blocks import ArenaBlocks
from adapter_arena.ui.limits import RateLimiter
from adapter_arena.ui.metrics import Metrics


def shout(text: str) -> str:
    return text.upper()


@pytest.fixture(scope="module")
def launched():
    """Our Blocks with an endpoint, a box, and a counter in the page's state; launched."""
    with ArenaBlocks(Metrics(None), RateLimiter()) as blocks:
        box = gr.Textbox("first")
        count = gr.State(0)
        gr.api(shout, api_name="shout")
        box.submit(lambda n: n + 1, count, count, api_visibility="private", api_name="count")
    sessions.use_light_sessions()
    blocks.queue().launch(server_port=free_port(), prevent_thread_lock=True, quiet=True, ssr_mode=False)
    yield blocks
    blocks.close()


@pytest.fixture
def demo(launched):
    """The launched Blocks without sessions."""
    launched.state_holder.session_data.clear()
    return launched


def request(demo: gr.Blocks, path: str, body: dict | None = None) -> bytes:
    content = None if body is None else json.dumps(body).encode()
    http_request = urllib.request.Request(
        f"{demo.local_url}gradio_api/{path}", content, {"content-type": "application/json"}
    )
    return urllib.request.urlopen(http_request, timeout=HANG_SECONDS).read()


def test_an_api_call_leaves_no_session_and_no_text(demo):
    event = json.loads(request(demo, "call/shout", {"data": ["a secret"]}))["event_id"]
    assert b"A SECRET" in request(demo, f"call/shout/{event}")
    assert len(demo.state_holder.session_data) == 0


@pytest.mark.parametrize("body", [{"data": ["loud"]}, {"data": ["loud"], "session_hash": "page"}])
def test_an_api_call_stores_no_configuration_of_the_page(demo, monkeypatch, body):
    configured = []
    config_for_block = BlocksConfig.config_for_block

    def record(block_id: int, *rest):
        configured.append(block_id)
        return config_for_block(block_id, *rest)

    monkeypatch.setattr(BlocksConfig, "config_for_block", staticmethod(record))
    assert json.loads(request(demo, "run/shout", body))["data"] == ["LOUD"]
    endpoint = next(fn for fn in demo.fns.values() if fn.api_name == "shout")
    assert set(configured) <= {block._id for block in endpoint.inputs + endpoint.outputs}


def test_the_state_of_a_page_stays(demo):
    number = next(i for i, fn in demo.fns.items() if fn.api_name == "count")
    for _ in range(3):
        request(demo, "queue/join", {"data": [None], "fn_index": number, "session_hash": "page"})
        request(demo, "queue/data?session_hash=page")
    request(demo, "run/shout", {"data": ["loud"], "session_hash": "page"})
    assert list(demo.state_holder.session_data["page"].state_data.values()) == [3]
