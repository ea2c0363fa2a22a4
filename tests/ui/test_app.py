"""app.py as a process, called as a program calls it."""

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
from adapter_arena.serve.catalogue import Catalogue
from app import load


@pytest.fixture(scope="module")
def client(app):
    return Client(app.url, verbose=False, httpx_kwargs={"timeout": HANG_SECONDS})


def test_broken_adapters_are_named_and_left_out(app, client):
    said = app.log.read_text()
    assert "left out: Adapter cut: " in said
    assert "is damaged" in said
    assert "left out: Adapter tiny-lora is for base model tiny-bert" in said
    assert "left out: There is no adapter folder" in said
    shown = {row["name"] for row in client.predict(api_name="/list_adapters")}
    assert shown == {path.name for path in store.folders(ROOT / "adapters")} | {"hostile"}


def test_every_shipped_adapter_tells_praise_from_scorn(client):
    shown = client.predict(api_name="/list_adapters")
    assert {"name", "method", "base_model", "source", "labels", "accuracy", "accuracy_ci95", "trainable_params"} <= set(
        shown[0]
    )
    for adapter in shown:
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


def test_a_long_text_can_be_read_whole(client):
    text = "The acting is superb. " * 200 + "And yet the plot is awful. " * 50
    cut = client.predict(text, "", api_name="/predict")
    whole = client.predict(text, "", True, api_name="/predict")
    assert (cut["truncated"], whole["truncated"]) == (True, False)
    assert whole["tokens"] > cut["tokens"]
    first, _ = client.predict([text, ""], "", True, api_name="/predict_batch")
    assert first["tokens"] == whole["tokens"]
    assert first["scores"] == pytest.approx(whole["scores"], abs=0.01)  # it may have been merged in between


def test_predict_batch_tells_a_client_its_progress(client):
    job = client.submit(["A joy to watch, all in all. " * 6] * 300, "", api_name="/predict_batch")
    seen = []
    while not job.done():
        seen += job.status().progress_data or []
        time.sleep(0.01)
    assert len(job.result()) == 300
    assert any(0 < unit.index < unit.length == 300 for unit in seen)


def test_batch_keeps_order_and_answers_bad_rows_in_place(client):
    answers = client.predict(["A joy.", "", 5, "Awful, simply awful."], "", api_name="/predict_batch")
    assert [list(a) == ["error"] for a in answers] == [False, True, True, False]
    assert answers[3]["label"] == "negative"


@pytest.mark.parametrize(
    ("endpoint", "data", "says"),
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
def test_bad_requests_get_one_clear_line_and_the_app_serves_on(app, client, endpoint, data, says):
    request = urllib.request.Request(
        f"{app.url}/gradio_api/run/{endpoint}",
        json.dumps({"data": data}).encode(),
        {"content-type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    body = caught.value.read().decode()
    assert says in json.loads(body)["error"]
    assert "Traceback" not in body
    assert client.predict("Fine.", api_name="/predict")["label"]


def test_client_sees_the_reason(client):
    with pytest.raises(AppError, match="The text is empty"):
        client.predict("", api_name="/predict")


@pytest.mark.parametrize("text", ["🎬👍🍿 " * 5, "فيلم رائع جدا أحببته", "word " * 200_000])
def test_strange_and_huge_texts_are_answered(client, text):
    answer = client.predict(text, api_name="/predict")
    assert answer["label"]
    assert answer["truncated"] == (len(text) > 10_000)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"ARENA_BASE_MODEL": "bert"}, "Unknown base model 'bert'"),
        ({"ARENA_PRECISION": "int4"}, "Unknown precision 'int4'"),
        ({"ARENA_HOT_MB": "lots"}, "ARENA_HOT_MB should be a valid number, not 'lots'"),
    ],
)
def test_wrong_settings_end_in_one_line(setting, says, monkeypatch, capsys):
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
    assert ended.value.code == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert says in line


def test_app_offers_a_namespace_and_answers_as_the_local_adapter_does(hub_server, tmp_path, monkeypatch):
    name = "minilm-imdb-ia3"
    hub_server.add_repo("alice/mine", {path.name: path.read_bytes() for path in (ROOT / "adapters" / name).iterdir()})
    monkeypatch.setenv("ARENA_NAMESPACE", "alice")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(Catalogue, "_keep_listing", Catalogue._list)  # once, not every hour
    catalogue = load()
    catalogue.start()
    shown = wait_until(lambda: {entry.name: entry for entry in catalogue.entries if catalogue.status.reached})
    assert shown["alice/mine"].source == "hub"
    assert shown["alice/mine"].accuracy == pytest.approx(shown[name].accuracy, abs=1e-4)
    text = "Not bad at all, and the ending is a joy."
    [there], [here] = catalogue.predict([text], "alice/mine"), catalogue.predict([text], name)
    catalogue.engine.close()
    assert there.scores == here.scores


def test_every_loaded_adapter_is_timed(client):
    def times() -> list[float | None]:
        return [row["latency_ms"] for row in client.predict(api_name="/list_adapters")]

    wait_until(lambda: all(times()))
    assert all(0 < milliseconds < 60_000 for milliseconds in times())


def test_compare_asks_every_adapter_and_the_untrained_base(client):
    answers = client.predict("A wonderful film.", api_name="/compare")
    names = [row["name"] for row in client.predict(api_name="/list_adapters")]
    assert [row["adapter"] for row in answers] == ["untrained", *names]
    assert all(row["milliseconds"] > 0 for row in answers)
    one = client.predict("A wonderful film.", names[0], api_name="/predict")
    assert answers[1]["scores"] == pytest.approx(one["scores"], abs=0.01)  # it may have been merged in between


def test_explain_gives_the_text_back_with_weights(client):
    text = "A wonderful film, though the sound is dreadful."
    found = client.predict(text, "minilm-imdb-lora", api_name="/explain")
    assert "".join(word for word, _ in found["words"]) == text
    best = max(found["words"], key=lambda pair: pair[1] * (1 if found["label"] == "positive" else -1))
    assert best[0].strip() == "wonderful"


def test_every_endpoint_by_curl(app):
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
    """A real MCP client over HTTP, as an agent's is."""

    async def ask() -> tuple[set[str], dict]:
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

    tools, replies = asyncio.run(ask())
    assert tools == {"predict", "predict_batch", "compare", "explain", "list_adapters"}
    assert all("positive" in reply for reply in replies.values())


def test_the_readmes_own_lines_run(app):
    """The snippets of README's `Call it`, with the address of this test's app."""
    section = (ROOT / "README.md").read_text().split("## Call it")[1].split("## ")[0]
    code, shell = (
        re.search(r"```python\n(.*?)```", section, re.DOTALL)[1],
        re.search(r"```\n(curl.*?)```", section, re.DOTALL)[1],
    )
    scope: dict = {}
    exec(code.replace("http://127.0.0.1:7860", app.url), scope)
    assert scope["client"].predict("A joy.", api_name="/predict")["label"]
    done = subprocess.run(shell.replace("http://127.0.0.1:7860", app.url), shell=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["data"][0]["label"] == "positive"
