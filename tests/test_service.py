"""What the app is to those who run it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import gradio as gr
import pytest
from conftest import ROOT, serve
from gradio_client import Client

from peft_arena.ui import service
from peft_arena.ui.service import Service


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with serve(ARENA_MAX_PER_MINUTE="200", ARENA_MAX_CHARACTERS="5000") as running:
        yield running


@pytest.fixture(scope="module")
def plain():
    with serve() as running:
        yield running


def get(url: str):
    with urllib.request.urlopen(url, timeout=30) as reply:
        return reply.status, reply.headers, reply.read().decode()


def counter() -> Service:
    return Service(SimpleNamespace(entries=[], engine=SimpleNamespace(in_memory=0, waiting=0, merged_mb=0.0)))


def test_a_visitor_has_a_share_of_each_minute_and_others_have_theirs(monkeypatch):
    monkeypatch.setenv("ARENA_MAX_PER_MINUTE", "3")
    now = [1000.0]
    monkeypatch.setattr(service.time, "monotonic", lambda: now[0])
    one = counter()
    for _ in range(3):
        with one.request("predict", "10.0.0.1"):
            pass
    with pytest.raises(gr.Error, match=r"ARENA_MAX_PER_MINUTE.*in 60 s"), one.request("predict", "10.0.0.1"):
        raise AssertionError
    with one.request("predict", "10.0.0.2"):
        assert one.under_way == 1
    now[0] += 60.1
    with one.request("predict", "10.0.0.1"):
        pass
    assert one.under_way == 0


def test_visitors_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setenv("ARENA_MAX_PER_MINUTE", "3")
    one = counter()
    for number in range(service._MAX_VISITORS + 50):
        one._check_share(str(number))
    assert len(one._visits) == service._MAX_VISITORS


def test_the_clock_of_the_wall_may_jump(monkeypatch):
    monkeypatch.setenv("ARENA_MAX_PER_MINUTE", "1")
    one = counter()
    one._check_share("a")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with pytest.raises(gr.Error, match="in 60 s"):
        one._check_share("a")


def test_health_metrics_and_headers(app):
    Client(app.url, verbose=False).predict("A joy.", api_name="/predict")
    status, headers, body = get(f"{app.url}/health")
    facts = json.loads(body)
    assert status == 200
    assert facts["ready"] is True
    assert facts["adapters"] >= facts["adapters_in_memory"] >= 1
    assert facts["texts_waiting"] == 0
    for name, value in service.HEADERS.items():
        assert headers[name] == value
    _, _, metrics = get(f"{app.url}/metrics")
    assert 'arena_requests_total{endpoint="predict",outcome="answered"} 1.0' in metrics
    assert "process_resident_memory_bytes" in metrics
    assert f"arena_adapters {facts['adapters']:.1f}" in metrics
    _, headers, _ = get(app.url)
    assert "frame-ancestors 'self' https://huggingface.co" in headers["content-security-policy"]
    assert "x-frame-options" not in headers


def test_a_limit_that_is_met_is_named(app):
    client = Client(app.url, verbose=False)
    with pytest.raises(Exception, match=r"over the limit of 5,000 \(ARENA_MAX_CHARACTERS\)"):
        client.predict("a" * 5001, api_name="/predict")
    with pytest.raises(Exception, match="ARENA_MAX_PER_MINUTE"):
        [client.predict(api_name="/list_adapters") for _ in range(220)]
    assert get(f"{app.url}/health")[0] == 200


def post(url: str, name: str, arguments: list) -> str:
    """The event of a call."""
    request = urllib.request.Request(
        f"{url}/gradio_api/call/{name}", json.dumps({"data": arguments}).encode(), {"content-type": "application/json"}
    )
    return json.load(urllib.request.urlopen(request, timeout=30))["event_id"]


@pytest.mark.parametrize(
    ("path", "kind", "body", "status", "words"),
    [
        ("call/v2/predict", "application/json", "{}", 422, "No value provided for required argument: text"),
        ("call/v2/list_adapters", "application/json", '{"\\ud83c": 1}', 422, "is not a valid key-word argument"),
        ("call/v2/nothing", "application/json", "{}", 404, "no endpoint of that name"),
        ("call/nothing", "application/json", '{"data": []}', 404, "no endpoint of that name"),
        ("run/nothing", "application/json", '{"data": []}', 404, "no endpoint of that name"),
        ("upload", "multipart/form-data; boundary=x", "", 422, "not an instance"),
        ("upload?upload_id=a", "multipart/form-data; boundary=x", "", 422, "a part of it is no file"),
    ],
)
def test_a_request_that_cannot_be_read_is_answered_with_the_reason_and_leaves_no_trace(
    plain, path, kind, body, status, words
):
    body = body or '--x\r\nContent-Disposition: form-data; name="files"\r\n\r\nabc\r\n--x--\r\n'
    request = urllib.request.Request(f"{plain.url}/gradio_api/{path}", body.encode(), {"content-type": kind})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    assert caught.value.code == status
    reason = json.loads(caught.value.read())["error"]
    assert words in reason
    assert "/gradio_api/openapi.json" in reason
    assert "content-security-policy" in caught.value.headers
    assert "Traceback" not in plain.log.read_text()


def test_an_event_that_is_not_there_ends_in_an_error_and_leaves_no_trace(plain):
    status, _, reply = get(f"{plain.url}/gradio_api/call/predict/gone")
    assert status == 200
    assert reply.startswith("event: error\ndata: ")
    assert "Traceback" not in plain.log.read_text()


def test_a_client_who_leaves_in_the_middle_of_a_batch_harms_nobody(plain):
    event = post(plain.url, "predict_batch", [["A joy to watch. " * 30] * 400])
    with contextlib.suppress(TimeoutError):
        urllib.request.urlopen(f"{plain.url}/gradio_api/call/predict_batch/{event}", timeout=0.3).read()
    asked = time.monotonic()
    assert Client(plain.url, verbose=False).predict("A joy.", api_name="/predict")["label"] == "positive"
    assert time.monotonic() - asked < 10
    while json.loads(get(f"{plain.url}/health")[2])["texts_waiting"]:
        assert time.monotonic() - asked < 60
        time.sleep(0.2)


def test_500_clients_at_once_are_all_answered_as_if_alone(plain, tmp_path):
    texts = [f"{'A joy' if i % 2 else 'Dull'} {word}." for i in range(10) for word in ("film", "story", "cast")]
    (tmp_path / "asked.json").write_text(json.dumps([[text] for text in texts]))
    client = Client(plain.url, verbose=False)
    alone = [client.predict(text, api_name="/predict") for text in texts]
    flags = ["--clients", "500", "--seconds", "1"]
    command = [sys.executable, "benchmarks/clients.py", plain.url, "predict", tmp_path / "asked.json", *flags]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert len(found["asked"]) >= 500
    for number, _, answer in found["asked"]:
        assert answer["label"] == alone[number]["label"]
        assert abs(answer["confidence"] - alone[number]["confidence"]) < 0.01
    facts = json.loads(get(f"{plain.url}/health")[2])
    assert (facts["texts_waiting"], facts["requests_under_way"]) == (0, 0)


def test_what_was_asked_before_the_end_is_answered(tmp_path):
    shutil.copytree(ROOT / "adapters" / "minilm-imdb-lora", tmp_path / "mine")
    with serve(str(tmp_path / "mine")) as running:
        client = Client(running.url, verbose=False)
        client.predict("A joy.", "mine", api_name="/predict")
        answers = []
        job = client.submit(["A joy to watch. " * 20] * 60, "mine", api_name="/predict_batch")
        waiter = threading.Thread(target=lambda: answers.extend(job.result()))
        waiter.start()
        while json.loads(get(f"{running.url}/health")[2])["requests_under_way"] == 0:
            time.sleep(0.01)
        told = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        request = urllib.request.Request(
            f"{running.url}/gradio_api/call/predict", b'{"data": ["a"]}', {"content-type": "application/json"}
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        assert caught.value.code == 503
        assert "about to start again" in caught.value.read().decode()
        waiter.join(15)
        assert len(answers) == 60
        assert running.process.wait(10) == 0
        assert time.monotonic() - told < 10


def test_a_setting_that_is_no_number_ends_the_start_with_one_line(tmp_path):
    run = subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=os.environ | {"ARENA_HOT_MB": "lots"}, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr.strip().splitlines()[-1].startswith("error: ARENA_HOT_MB='lots' is not a number")
