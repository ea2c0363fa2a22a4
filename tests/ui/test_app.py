"""app.py as a process, called through gradio_client, curl and MCP."""

import asyncio
import json
import re
import runpy
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from conftest import HANG_SECONDS, ROOT, wait_until
from gradio_client import Client
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

from adapter_arena.adapters import store
from adapter_arena.serve.listing import Listing
from app import load


@pytest.fixture(scope="module")
def client(app):
    return Client(app.url, verbose=False, httpx_kwargs={"timeout": HANG_SECONDS})


def test_broken_adapters_are_named_and_left_out(app, client):
    log = app.log.read_text()
    assert "left out: Adapter cut: " in log
    assert "is damaged" in log
    assert "left out: Adapter tiny-lora is for another base model. Base model tiny-bert is not on this machine" in log
    assert "left out: There is no adapter folder" in log
    names = {row["name"] for row in client.predict(api_name="/list_adapters")}
    assert names == {path.name for path in store.folders(ROOT / "adapters")} | {"hostile"}


def test_every_shipped_adapter_classifies_clear_reviews(client):
    adapters = client.predict(api_name="/list_adapters")
    keys = {"name", "method", "base_model", "source", "labels", "accuracy", "accuracy_ci95", "trainable_params"}
    assert keys <= set(adapters[0])
    for adapter in adapters:
        if adapter["labels"] != ["negative", "positive"]:
            continue
        good = client.predict("A wonderful film, I loved every minute of it.", adapter["name"], api_name="/predict")
        bad = client.predict("A terrible waste of money. It broke and I hate it.", adapter["name"], api_name="/predict")
        assert (good["label"], bad["label"]) == ("positive", "negative"), adapter["name"]
        assert good["adapter"] == adapter["name"]
        assert good["confidence"] == max(good["scores"].values())
        assert good["truncated"] is False


def test_default_adapter_is_the_first(client):
    first = client.predict(api_name="/list_adapters")[0]["name"]
    assert client.predict("Fine.", api_name="/predict")["adapter"] == first


def test_a_long_text_can_be_read_in_pieces(client):
    text = "The acting is superb. " * 200 + "And yet the plot is awful. " * 50
    cut = client.predict(text, "", api_name="/predict")
    whole = client.predict(text, "", True, api_name="/predict")
    assert (cut["truncated"], whole["truncated"]) == (True, False)
    assert whole["tokens"] > cut["tokens"]
    first, _ = client.predict([text, ""], "", True, api_name="/predict_batch")
    assert first["tokens"] == whole["tokens"]
    assert first["scores"] == pytest.approx(whole["scores"], abs=0.01)  # it may have been merged in between


def test_predict_batch_reports_its_progress(client):
    job = client.submit(["A joy to watch, all in all. " * 6] * 300, "", api_name="/predict_batch")
    seen = []
    while not job.done():
        seen += job.status().progress_data or []
        time.sleep(0.01)
    assert len(job.result()) == 300
    assert any(0 < unit.index < unit.length == 300 for unit in seen)


def test_predict_batch_keeps_the_order_and_reports_errors_in_place(client):
    answers = client.predict(["A joy.", "", 5, "Awful, simply awful."], "", api_name="/predict_batch")
    assert ["error" in answer for answer in answers] == [False, True, True, False]
    assert answers[3]["label"] == "negative"


@pytest.mark.parametrize(
    ("endpoint", "data", "message"),
    [
        ("predict", ["", ""], "The text is empty"),
        ("predict", [["a", "list"], ""], "must be a string, not list"),
        ("predict", [None, ""], "must be a string, not NoneType"),
        ("predict", [], "must be a string, not NoneType"),
        (
            "predict",
            ["fine", "minilm-imdb-lroa"],
            "Unknown adapter 'minilm-imdb-lroa': did you mean 'minilm-imdb-lora'",
        ),
        ("predict", ["fine", {"a": 1}], "Unknown adapter"),
        ("predict_batch", ["one text", ""], "texts must be a list"),
        ("predict_batch", [["x"] * 10_001, ""], "10,001 texts are over the limit of 10,000"),
    ],
)
def test_invalid_requests_get_one_line_and_the_app_continues(app, client, endpoint, data, message):
    request = urllib.request.Request(
        f"{app.url}/gradio_api/run/{endpoint}",
        json.dumps({"data": data}).encode(),
        {"content-type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    body = caught.value.read().decode()
    assert message in json.loads(body)["error"]
    assert "Traceback" not in body
    assert client.predict("Fine.", api_name="/predict")["label"]


def test_a_client_receives_the_reason(client):
    with pytest.raises(AppError, match="The text is empty"):
        client.predict("", api_name="/predict")


@pytest.mark.parametrize("text", ["🎬👍🍿 " * 5, "فيلم رائع جدا أحببته", "word " * 200_000])
def test_strange_and_huge_texts_are_answered(client, text):
    answer = client.predict(text, api_name="/predict")
    assert answer["label"]
    assert answer["truncated"] == (len(text) > 10_000)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"ARENA_BASE_MODEL": "bert"}, "Base model bert is not on this machine and the Hub cannot be reached"),
        ({"ARENA_PRECISION": "int4"}, "ARENA_PRECISION should be 'nf4', 'bf16' or 'fp32', not 'int4'"),
        ({"ARENA_HOT_MB": "lots"}, "ARENA_HOT_MB should be a valid number, not 'lots'"),
    ],
)
def test_invalid_settings_end_the_app_with_one_line(setting, message, monkeypatch, capsys):
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
    assert exit_info.value.code == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_an_adapter_from_a_namespace_answers_like_the_same_local_adapter(hub_server, tmp_path, monkeypatch):
    name = "minilm-imdb-ia3"
    hub_server.add_repo("alice/mine", {path.name: path.read_bytes() for path in (ROOT / "adapters" / name).iterdir()})
    monkeypatch.setenv("ARENA_NAMESPACE", "alice")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(Listing, "_refresh_forever", Listing._refresh)  # once, not every hour
    catalogue = load()
    catalogue.start()
    wait_until(lambda: catalogue.status.reached)
    entries = {entry.name: entry for entry in catalogue.entries}
    assert entries["alice/mine"].source == "hub"
    assert entries["alice/mine"].accuracy == pytest.approx(entries[name].accuracy, abs=1e-4)
    text = "Not bad at all, and the ending is a joy."
    [remote] = catalogue.predict([text], "alice/mine")
    [local] = catalogue.predict([text], name)
    catalogue.engine.close()
    assert remote.scores == local.scores


def test_every_loaded_adapter_is_timed(client):
    def times() -> list[float | None]:
        return [row["latency_ms"] for row in client.predict(api_name="/list_adapters")]

    wait_until(lambda: all(times()))
    assert all(0 < milliseconds < 60_000 for milliseconds in times())


def test_compare_returns_every_adapter_and_the_untrained_base(client):
    answers = client.predict("A wonderful film.", api_name="/compare")
    names = [row["name"] for row in client.predict(api_name="/list_adapters")]
    assert [row["adapter"] for row in answers] == ["untrained", *names]
    assert all(row["milliseconds"] > 0 for row in answers)
    one = client.predict("A wonderful film.", names[0], api_name="/predict")
    assert answers[1]["scores"] == pytest.approx(one["scores"], abs=0.01)  # it may have been merged in between


def test_explain_returns_every_word_of_the_text_with_a_weight(client):
    text = "A wonderful film, though the sound is dreadful."
    explanation = client.predict(text, "minilm-imdb-lora", api_name="/explain")
    words = explanation["words"]
    assert "".join(word for word, _ in words) == text
    find_strongest = max if explanation["label"] == "positive" else min
    strongest, _ = find_strongest(words, key=lambda pair: pair[1])
    assert strongest.strip() == "wonderful"


def test_every_endpoint_with_curl(app):
    def curl(endpoint: str, *data) -> object:
        request = ["curl", "-sS", f"{app.url}/gradio_api/run/{endpoint}", "-H", "content-type: application/json"]
        done = subprocess.run([*request, "-d", json.dumps({"data": data})], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["data"][0]

    assert curl("predict", "I loved it.", "minilm-imdb-lora")["label"] == "positive"
    assert [row["label"] for row in curl("predict_batch", ["A joy.", "A bore."], "minilm-imdb-lora")]
    assert curl("compare", "I loved it.")[0]["adapter"] == "untrained"
    assert curl("explain", "I loved it.", "minilm-imdb-lora")["label"] == "positive"
    assert curl("list_adapters")[0]["name"]


def test_an_agent_lists_and_calls_the_tools(app):
    """Call the tools with an MCP client over HTTP."""

    async def call_tools() -> tuple[set[str], dict]:
        async with (
            streamablehttp_client(f"{app.url}/gradio_api/mcp/", timeout=HANG_SECONDS) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            assert "Classify one text" in tools["predict"].description
            replies = {}
            for name, given in (
                ("predict", {"text": "I loved it."}),
                ("compare", {"text": "I loved it."}),
                ("explain", {"text": "I loved it."}),
            ):
                reply = await session.call_tool(name, given)
                assert not reply.isError, reply
                replies[name] = reply.content[0].text
            return set(tools), replies

    tools, replies = asyncio.run(call_tools())
    assert tools == {"predict", "predict_batch", "compare", "explain", "list_adapters"}
    assert all("positive" in reply for reply in replies.values())


def test_the_examples_of_the_readme_run(app):
    """Run the examples in README's section `Call it` against this test's app."""
    section = (ROOT / "README.md").read_text().split("## Call it")[1].split("## ")[0]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    shell = re.search(r"```\n(curl.*?)```", section, re.DOTALL)[1]
    scope: dict = {}
    exec(code.replace("http://127.0.0.1:7860", app.url), scope)
    assert scope["client"].predict("A joy.", api_name="/predict")["label"]
    done = subprocess.run(shell.replace("http://127.0.0.1:7860", app.url), shell=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["data"][0]["label"] == "positive"
