"""What the app is to those who run it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pandas
import pytest
from conftest import ROOT, serve
from gradio.utils import get_upload_folder
from gradio_client import Client

from peft_arena.ui import service, sessions, uploads
from peft_arena.ui.service import Service


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with serve(ARENA_MAX_PER_MINUTE="200", ARENA_MAX_CHARACTERS="5000", ARENA_MAX_BODY_MB="1") as running:
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


@pytest.mark.parametrize(("space", "client", "forwarded", "who"), [
    ("", "10.16.2.3", "8.8.8.8", "10.16.2.3"),  # a peer that is not trusted says what it likes
    ("me/arena", "10.16.2.3", "8.8.8.8", "8.8.8.8"),
    ("me/arena", "10.16.2.3", "1.1.1.1, 8.8.8.8, 10.0.0.7", "8.8.8.8"),  # the proxies' own entry is the last public one
    ("me/arena", "10.16.2.3", "nonsense, 10.0.0.7", "10.16.2.3"),
    ("me/arena", "10.16.2.3", None, "10.16.2.3"),
    ("me/arena", "10.16.2.3", "2a00:1450:4001:82a::200e", "2a00:1450:4001:82a::/64"),
])  # fmt: skip
def test_who_asks_is_told_by_the_proxies_of_a_space_alone(monkeypatch, space, client, forwarded, who):
    monkeypatch.setenv("SPACE_ID", space)
    assert service.visitor(client, forwarded) == who


def test_calls_that_wait_are_bounded(monkeypatch):
    monkeypatch.setenv("ARENA_MAX_QUEUE", "3")
    one = counter()
    one.demo = SimpleNamespace(_queue=[1, 2])
    one.check_queue()
    with one.request("predict", None), pytest.raises(gr.Error, match=r"3 calls wait.*\(ARENA_MAX_QUEUE\): ask again"):
        one.check_queue()


def test_answers_that_nobody_fetches_are_forgotten_and_others_are_not(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(sessions.time, "monotonic", lambda: now[0])
    queue = SimpleNamespace(
        event_ids_to_events={"e1": SimpleNamespace(session_hash="runs")},
        pending_event_ids_session={"runs": {"e1"}, "ready": {"e2"}, "fetched": set()},
        pending_messages_per_session={"runs": 1, "ready": 2, "fetched": 3},
    )
    unfetched, demo = sessions.Unfetched(), SimpleNamespace(_queue=queue)
    for _ in range(11):
        now[0] += 31
        assert "ready" in queue.pending_messages_per_session
        unfetched.sweep(demo)
    assert set(queue.pending_messages_per_session) == {"runs", "fetched"}
    assert set(queue.pending_event_ids_session) == {"runs", "fetched"}


def test_disk_that_uploads_may_take_is_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(uploads, "get_upload_folder", lambda: str(tmp_path))
    monkeypatch.setenv("ARENA_MAX_UPLOADS_MB", "1")
    service._check_disk()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file.csv").write_bytes(b"x" * 1_000_000)
    with pytest.raises(gr.Error, match=r"1 MB of uploads .* \(ARENA_MAX_UPLOADS_MB\)"):
        service._check_disk()


def test_tables_are_held_as_far_as_memory_allows(monkeypatch):
    monkeypatch.setenv("ARENA_TABLES_MB", "1")
    held, table = uploads.Held(), pandas.DataFrame({"n": range(50_000)})  # 0.4 MB
    first, second = held.put(table), held.put(table)
    assert held.get(first) is not None
    third = held.put(table)
    assert [held.get(key) is not None for key in (first, second, third)] == [True, False, True]
    held.drop(first)
    assert held.get(first) is None
    assert held.get(None) is None


def test_visitors_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setenv("ARENA_MAX_PER_MINUTE", "3")
    one = counter()
    for number in range(service._MAX_VISITORS + 50):
        one.check_share(str(number))
    assert len(one._visits) == service._MAX_VISITORS


def test_the_clock_of_the_wall_may_jump(monkeypatch):
    monkeypatch.setenv("ARENA_MAX_PER_MINUTE", "1")
    one = counter()
    one.check_share("a")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with pytest.raises(gr.Error, match="in 60 s"):
        one.check_share("a")


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


SECRET = "my private words"


@pytest.mark.parametrize("path", ["https://example.org/file", SECRET, "/etc/passwd", "{folder}"])
@pytest.mark.parametrize("endpoint", ["run/predict", "call/predict_batch", "call/explain"])
def test_a_file_where_a_text_belongs_is_refused_unread(plain, endpoint, path):
    path = path.replace("{folder}", str(ROOT / "adapters"))
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [[file] if "batch" in endpoint else file]}).encode()
    status, reply = sent(f"{plain.url}/gradio_api/{endpoint}", body)
    if endpoint.startswith("call") and status == 200:
        reply = get(f"{plain.url}/gradio_api/{endpoint}/{json.loads(reply)['event_id']}")[2]
    assert "A file does not belong there" in reply
    log = plain.log.read_text()
    for text in (reply, log):
        assert str(ROOT) not in text.replace(str(ROOT / ".venv"), "")
        assert SECRET not in text
    assert "Traceback" not in log


def sent(url: str, body: bytes | None = None, headers: dict | None = None) -> tuple[int, str]:
    """Status and body of the reply, whatever the status is."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"} | (headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize(
    "path", ["https://example.org/x.csv", "/etc/passwd", "{adapters}/minilm-imdb-lora/README.md", "{upload}/.."]
)
def test_batch_reads_no_file_but_those_uploaded(plain, path):
    path = path.replace("{adapters}", str(ROOT / "adapters")).replace("{upload}", get_upload_folder())
    reply = of_page(plain, "file", "change", [{"path": path, "meta": {"_type": "gradio.FileData"}}, "", "", None])
    assert "not among those uploaded" in reply
    assert "Traceback" not in plain.log.read_text()


def test_what_a_visitor_typed_is_in_no_log(plain):
    reply = of_page(plain, "score", "click", [None, "text", SECRET, "minilm-imdb-lora"])
    assert "error" in reply
    sent(f"{plain.url}/gradio_api/run/predict", json.dumps({"data": [SECRET, SECRET]}).encode())
    sent(f"{plain.url}/gradio_api/call/explain", json.dumps({"data": {SECRET: 1}}).encode())
    assert SECRET not in plain.log.read_text()


def of_page(running, elem_id: str, event: str, data: list) -> str:
    """What the page's own event answers to these inputs."""
    config = json.loads(get(f"{running.url}/config")[2])
    [component] = [c["id"] for c in config["components"] if c["props"].get("elem_id") == elem_id]
    [index] = [d["id"] for d in config["dependencies"] if [component, event] in map(list, d["targets"])][:1]
    body = {"fn_index": index, "data": data, "session_hash": f"page-{time.monotonic()}"}
    assert sent(f"{running.url}/gradio_api/queue/join", json.dumps(body).encode())[0] == 200
    return get(f"{running.url}/gradio_api/queue/data?session_hash={body['session_hash']}")[2]


def test_bytes_of_a_request_are_bounded(app):
    for _ in range(20):  # each is told, however the reply and what is still being sent meet
        status, reply = sent(f"{app.url}/gradio_api/run/predict", b"[" * 3_000_000)
        assert (status, "over the limit of 1 MB (ARENA_MAX_BODY_MB)" in reply) == (413, True)
    with socket.create_connection(("127.0.0.1", int(app.url.rpartition(":")[2])), timeout=60) as line:
        head = "POST /gradio_api/run/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        line.sendall(head.encode())
        for _ in range(20):  # which says nothing of its length
            line.sendall(b"%x\r\n%s\r\n" % (100_000, b"[" * 100_000))
        line.sendall(b"0\r\n\r\n")
        assert b" 413 " in line.recv(100)


def test_nothing_is_fetched_for_a_visitor_and_no_page_is_kept(plain):
    for method in (None, b"{}"):
        assert sent(f"{plain.url}/gradio_api/file=https://example.org/x", method)[0] == 403
    assert sent(f"{plain.url}/gradio_api/deep_link?session_hash=a")[0] == 404


def test_uploads_are_deleted_and_what_is_no_file_does_not_stop_that(tmp_path):
    script = tmp_path / "short.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport app\nfrom peft_arena import ui\nui.KEPT = (1, 1)\napp.main()\n"
    )
    form = '--x\r\nContent-Disposition: form-data; name="files"; filename="mine.csv"\r\n\r\ntext\r\n--x--\r\n'
    with serve(script=script) as running:
        for _ in range(2):  # the second after the first was deleted
            reply = sent(
                f"{running.url}/gradio_api/upload", form.encode(), {"content-type": "multipart/form-data; boundary=x"}
            )
            path = Path(json.loads(reply[1])[0])
            assert path.is_file()
            of_page(
                running,
                "file",
                "change",
                [{"path": str(path.parent), "meta": {"_type": "gradio.FileData"}}, "", "", None],
            )
            deadline = time.monotonic() + 20
            while path.exists() and time.monotonic() < deadline:
                time.sleep(0.2)
            assert not path.exists()


def test_an_answer_that_is_fetched_after_the_end_was_told_is_not_lost(tmp_path):
    with serve() as running:
        event = post(running.url, "predict", ["A joy."])
        time.sleep(5)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert '"positive"' in get(f"{running.url}/gradio_api/call/predict/{event}")[2]
        assert running.process.wait(10) == 0


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


def test_the_app_ends_when_the_system_hands_the_signal_to_another_thread(tmp_path):
    script = f"""
import sys, signal, threading, time
from types import SimpleNamespace
sys.path.insert(0, {str(ROOT)!r})
from peft_arena.ui.service import Service
queue = type("Queue", (list,), {{"pending_event_ids_session": {{}}}})()
def tell():
    time.sleep(1)  # by now the main thread waits
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    time.sleep(60)
threading.Thread(target=tell, daemon=True).start()
Service(None).serve_until_told(SimpleNamespace(_queue=queue))
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


def test_a_setting_that_is_no_number_ends_the_start_with_one_line(tmp_path):
    run = subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=os.environ | {"ARENA_HOT_MB": "lots"}, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr.strip().splitlines()[-1].startswith("error: ARENA_HOT_MB='lots' is not a number")
