"""app.py as a process, called as a program calls it."""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from conftest import ROOT, serve
from gradio_client import Client
from gradio_client.exceptions import AppError

from peft_arena import store


@pytest.fixture(scope="module")
def app(trained, tmp_path_factory):
    """The app on the shipped adapters and, beside them, broken folders."""
    place = tmp_path_factory.mktemp("app")
    adapter = next(path for path in store.folders(ROOT / "adapters"))
    cut = shutil.copytree(adapter, place / "cut")
    weights = next(cut.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-99])
    with serve(f"{cut},{trained},{place / 'nowhere'}") as running:
        yield running


@pytest.fixture(scope="module")
def client(app):
    return Client(app.url, verbose=False)


def test_broken_adapters_are_named_and_left_out(app, client):
    said = app.log.read_text()
    assert "left out: Adapter cut: " in said
    assert "is damaged" in said
    assert "left out: Adapter tiny-lora is for base model tiny-bert" in said
    assert "left out: There is no adapter folder" in said
    assert len(client.predict(api_name="/list_adapters")) == len(store.folders(ROOT / "adapters"))


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
    ],
)
def test_wrong_settings_end_in_one_line(setting, says):
    done = subprocess.run(
        [sys.executable, "app.py"], capture_output=True, text=True, cwd=ROOT, env=os.environ | setting
    )
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
