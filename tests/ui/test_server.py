"""The running app: limits, headers, health, metrics and shutdown."""

import json
import multiprocessing
import re
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import HANG_SECONDS, ROOT, Running, free_port, paused, run_process, wait_until
from gradio.utils import get_upload_folder

from adapter_arena import ui
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine
from adapter_arena.ui import event_queue, page, responses
from adapter_arena.ui.metrics import Metrics
from adapter_arena.ui.server import Server
from adapter_arena.ui.shutdown import Shutdown


@dataclass
class LocalApp:
    """The app in this process, so that a test can change its settings and pause its engine."""

    url: str
    server: Server
    engine: Engine

    def health(self) -> dict:
        """Return the body of /health."""
        return json.loads(send(f"{self.url}/health")[1])


@contextmanager
def launched(engine: Engine):
    """Start the app with this engine and stop it when the block ends."""
    catalogue = Catalogue(engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_SERVER_PORT", str(free_port()))
        server = ui.start(catalogue)
    try:
        wait_until(lambda: catalogue.latency)  # the requests that time the adapters are done
        yield LocalApp(server.demo.local_url.rstrip("/"), server, engine)
    finally:
        server.demo.close()


@pytest.fixture(scope="module")
def engine(tiny, trained):
    engine = Engine(tiny)
    engine.add_folder(trained)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def local_app(engine):
    with launched(engine) as app:
        yield app


@pytest.fixture
def pool():
    """Threads for clients that wait for responses."""
    with ThreadPoolExecutor() as threads:
        yield threads


def get(url: str):
    with urllib.request.urlopen(url, timeout=HANG_SECONDS) as reply:
        return reply.status, reply.headers, reply.read().decode()


def answered(local_app: LocalApp) -> int:
    """Return the number of answered requests to `predict` according to /metrics."""
    found = re.search(
        r'arena_requests_total\{endpoint="predict",outcome="answered"\} (\d+)', get(f"{local_app.url}/metrics")[2]
    )
    return int(found[1]) if found else 0


def test_health_metrics_and_headers(local_app):
    before = answered(local_app)
    assert run(local_app, "predict", "A joy.")[0] == 200
    status, headers, body = get(f"{local_app.url}/health")
    facts = json.loads(body)
    assert status == 200
    assert facts["ready"] is True
    assert facts["adapters"] == facts["adapters_in_memory"] == 1
    assert facts["texts_waiting"] == 0
    for name, value in responses.HEADERS.items():
        assert headers[name] == value
    assert answered(local_app) == before + 1
    _, _, metrics = get(f"{local_app.url}/metrics")
    assert "process_resident_memory_bytes" in metrics
    assert "arena_adapters 1.0" in metrics
    _, headers, _ = get(local_app.url)
    assert "frame-ancestors 'self' https://huggingface.co" in headers["content-security-policy"]
    assert "x-frame-options" not in headers


def test_an_error_names_the_limit_that_was_reached(local_app, monkeypatch):
    monkeypatch.setenv("ARENA_MAX_CHARACTERS", "5000")
    assert "over the limit of 5,000 (ARENA_MAX_CHARACTERS)" in run(local_app, "predict", "a" * 5001)[1]
    monkeypatch.setenv("ARENA_MAX_PER_MINUTE", "3")
    replies = [run(local_app, "list_adapters")[1] for _ in range(5)]
    assert ["ARENA_MAX_PER_MINUTE" in reply for reply in replies] == [False, False, False, True, True]
    assert get(f"{local_app.url}/health")[0] == 200


def test_calls_over_the_queue_limit_are_refused_and_the_others_answered(local_app, monkeypatch, pool):
    monkeypatch.setenv("ARENA_MAX_QUEUE", "2")
    with paused(local_app.engine):
        waiting = [pool.submit(run, local_app, "predict", "A joy.") for _ in range(2)]
        wait_until(lambda: local_app.health()["requests_under_way"] == 2)
        status, reply = run(local_app, "predict", "A joy.")
        assert (status, "(ARENA_MAX_QUEUE)" in reply) == (503, True)
    assert [call.result()[0] for call in waiting] == [200, 200]


def run(app: LocalApp | Running, name: str, *arguments) -> tuple[int, str]:
    """Call an endpoint, wait, and return the status and body of the response."""
    return send(f"{app.url}/gradio_api/run/{name}", json.dumps({"data": arguments}).encode())


def post(url: str, name: str, arguments: list) -> str:
    """Call an endpoint through the queue and return the id of the event."""
    request = urllib.request.Request(
        f"{url}/gradio_api/call/{name}", json.dumps({"data": arguments}).encode(), {"content-type": "application/json"}
    )
    return json.load(urllib.request.urlopen(request, timeout=HANG_SECONDS))["event_id"]


def test_uploads_over_the_disk_limit_are_refused(local_app, monkeypatch):
    monkeypatch.setenv("ARENA_MAX_UPLOADS_MB", "0")
    status, reply = send(f"{local_app.url}/gradio_api/upload", b"x")
    assert (status, "(ARENA_MAX_UPLOADS_MB)" in reply) == (429, True)


@pytest.mark.parametrize(
    ("path", "kind", "body", "status", "words"),
    [
        ("call/v2/predict", "application/json", "{}", 422, "No value provided for required argument: text"),
        ("call/v2/list_adapters", "application/json", '{"\\ud83c": 1}', 422, "is not a valid key-word argument"),
        ("call/v2/nothing", "application/json", "{}", 404, "no endpoint of that name"),
        ("call/nothing", "application/json", '{"data": []}', 404, "no endpoint of that name"),
        ("run/nothing", "application/json", '{"data": []}', 404, "no endpoint of that name"),
        ("upload", "multipart/form-data; boundary=x", "", 422, "not an instance"),
        ("upload?upload_id=a", "multipart/form-data; boundary=x", "", 422, "a part of it is not a file"),
    ],
)
def test_an_unreadable_request_gets_the_reason_and_leaves_no_traceback(app, path, kind, body, status, words):
    body = body or '--x\r\nContent-Disposition: form-data; name="files"\r\n\r\nabc\r\n--x--\r\n'
    request = urllib.request.Request(f"{app.url}/gradio_api/{path}", body.encode(), {"content-type": kind})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=HANG_SECONDS)
    assert caught.value.code == status
    reason = json.loads(caught.value.read())["error"]
    assert words in reason
    assert "/gradio_api/openapi.json" in reason
    assert "content-security-policy" in caught.value.headers
    assert "Traceback" not in app.log.read_text()


SECRET = "my private words"


@pytest.mark.parametrize("path", ["https://example.org/file", SECRET, "/etc/passwd", "{folder}"])
@pytest.mark.parametrize("endpoint", ["run/predict", "call/predict_batch", "call/explain"])
def test_a_file_for_a_text_input_is_refused_unread(app, endpoint, path):
    path = path.replace("{folder}", str(ROOT / "adapters"))
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [[file] if "batch" in endpoint else file]}).encode()
    status, reply = send(f"{app.url}/gradio_api/{endpoint}", body)
    if endpoint.startswith("call") and status == 200:
        reply = get(f"{app.url}/gradio_api/{endpoint}/{json.loads(reply)['event_id']}")[2]
    assert "This input takes text, not a file" in reply
    log = app.log.read_text()
    for text in (reply, log):
        assert str(ROOT) not in text.replace(str(ROOT / ".venv"), "")
        assert SECRET not in text
    assert "Traceback" not in log


def send(url: str, body: bytes | None = None, headers: dict | None = None) -> tuple[int, str]:
    """Return the status and body of the response, also of an error."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"} | (headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=HANG_SECONDS) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize(
    "path", ["https://example.org/x.csv", "/etc/passwd", "{adapters}/minilm-imdb-lora/README.md", "{upload}/.."]
)
def test_batch_reads_only_uploaded_files(app, path):
    path = path.replace("{adapters}", str(ROOT / "adapters")).replace("{upload}", get_upload_folder())
    reply = page_event(app, "file", "change", [{"path": path, "meta": {"_type": "gradio.FileData"}}, "", "", None])
    assert "was not uploaded" in reply
    assert "Traceback" not in app.log.read_text()


def test_the_log_contains_nothing_that_a_user_typed(app):
    reply = page_event(app, "score", "click", [None, "text", SECRET, "minilm-imdb-lora"])
    assert "error" in reply
    send(f"{app.url}/gradio_api/run/predict", json.dumps({"data": [SECRET, SECRET]}).encode())
    send(f"{app.url}/gradio_api/call/explain", json.dumps({"data": {SECRET: 1}}).encode())
    assert SECRET not in app.log.read_text()


def page_event(running, elem_id: str, event: str, data: list) -> str:
    """Trigger an event of the page and return the response."""
    config = json.loads(get(f"{running.url}/config")[2])
    [component] = [c["id"] for c in config["components"] if c["props"].get("elem_id") == elem_id]
    [index] = [d["id"] for d in config["dependencies"] if [component, event] in map(list, d["targets"])][:1]
    body = {"fn_index": index, "data": data, "session_hash": f"page-{time.monotonic()}"}
    assert send(f"{running.url}/gradio_api/queue/join", json.dumps(body).encode())[0] == 200
    return get(f"{running.url}/gradio_api/queue/data?session_hash={body['session_hash']}")[2]


def test_the_size_of_a_request_is_limited(local_app, monkeypatch):
    monkeypatch.setenv("ARENA_MAX_BODY_MB", "1")
    monkeypatch.setattr(responses, "DRAIN_SECONDS", HANG_SECONDS)
    for _ in range(20):  # each client gets the reason, whatever it has still to send
        status, reply = send(f"{local_app.url}/gradio_api/run/predict", b"[" * 3_000_000)
        assert (status, "over the limit of 1 MB (ARENA_MAX_BODY_MB)" in reply) == (413, True)
    with socket.create_connection(("127.0.0.1", int(local_app.url.rpartition(":")[2])), timeout=HANG_SECONDS) as line:
        head = "POST /gradio_api/run/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        line.sendall(head.encode())
        for _ in range(20):  # without a declared length
            line.sendall(b"%x\r\n%s\r\n" % (100_000, b"[" * 100_000))
        line.sendall(b"0\r\n\r\n")
        assert b" 413 " in line.recv(100)


def test_no_url_is_fetched_and_no_deep_link_is_stored(app):
    for method in (None, b"{}"):
        assert send(f"{app.url}/gradio_api/file=https://example.org/x", method)[0] == 403
    assert send(f"{app.url}/gradio_api/deep_link?session_hash=a")[0] == 404


def test_uploads_are_deleted_also_after_a_request_that_names_a_folder(engine, monkeypatch):
    monkeypatch.setattr(page, "CLEANUP_SECONDS", 1)
    monkeypatch.setattr(page, "FILE_SECONDS", 1)
    form = '--x\r\nContent-Disposition: form-data; name="files"; filename="mine.csv"\r\n\r\ntext\r\n--x--\r\n'
    with launched(engine) as running:
        for _ in range(2):  # the second after the first was deleted
            reply = send(
                f"{running.url}/gradio_api/upload", form.encode(), {"content-type": "multipart/form-data; boundary=x"}
            )
            path = Path(json.loads(reply[1])[0])
            folder = {"path": str(path.parent), "meta": {"_type": "gradio.FileData"}}
            page_event(running, "file", "change", [folder, "", "", None])
            wait_until(lambda path=path: not path.exists())


def test_a_running_app_evicts_unfetched_responses(engine, monkeypatch):
    monkeypatch.setattr(event_queue, "UNFETCHED_SECONDS", 0.5)
    with launched(engine) as app:
        queue = app.server.demo._queue
        post(app.url, "predict", ["A joy."])
        assert queue.pending_messages_per_session
        wait_until(lambda: not queue.pending_messages_per_session)


@pytest.fixture
def start_shutdown(local_app, monkeypatch, pool):
    """Start a shutdown with a grace period in seconds; after the test the app accepts requests again."""
    monkeypatch.setattr(local_app.server.metrics, "is_ready", True)

    def start(seconds: float):
        shutdown = pool.submit(local_app.server.shutdown.finish, seconds)
        wait_until(lambda: local_app.server.shutdown.has_started)
        return shutdown

    return start


def test_a_shutdown_answers_earlier_requests_and_refuses_new_ones(local_app, start_shutdown, pool):
    with paused(local_app.engine):
        earlier = pool.submit(run, local_app, "predict_batch", ["A joy."] * 60)
        wait_until(lambda: local_app.engine.waiting == 60)
        shutdown = start_shutdown(HANG_SECONDS)
        status, reply = run(local_app, "predict", "a")
        assert (status, "is restarting" in reply) == (503, True)
        assert send(f"{local_app.url}/health")[0] == 503
        assert not shutdown.done()
    assert len(json.loads(earlier.result()[1])["data"][0]) == 60
    assert shutdown.result() is True


def test_a_response_can_be_fetched_during_the_shutdown(local_app, start_shutdown):
    before = answered(local_app)
    event = post(local_app.url, "predict", ["A joy."])
    wait_until(lambda: answered(local_app) == before + 1)
    shutdown = start_shutdown(HANG_SECONDS)
    time.sleep(0.5)  # twice what the shutdown of an idle app takes
    assert not shutdown.done()
    assert '"label"' in get(f"{local_app.url}/gradio_api/call/predict/{event}")[2]
    assert shutdown.result() is True


def test_a_shutdown_ends_after_its_grace_period(local_app, start_shutdown, pool, capsys):
    with paused(local_app.engine):
        earlier = pool.submit(run, local_app, "predict", "A joy.")
        wait_until(lambda: local_app.engine.waiting == 1)
        assert start_shutdown(0.2).result() is False
        assert "stopped with 1 requests unanswered" in capsys.readouterr().err
    assert earlier.result()[0] == 200


def test_an_unknown_event_gets_an_error_and_leaves_no_traceback(app):
    status, _, reply = get(f"{app.url}/gradio_api/call/predict/gone")
    assert status == 200
    assert reply.startswith("event: error\ndata: ")
    assert "Traceback" not in app.log.read_text()


def test_a_client_that_disconnects_during_a_batch_does_not_affect_others(local_app, pool):
    with paused(local_app.engine):
        event = post(local_app.url, "predict_batch", [["A joy to watch."] * 400])
        urllib.request.urlopen(f"{local_app.url}/gradio_api/call/predict_batch/{event}", timeout=HANG_SECONDS).close()
        wait_until(lambda: local_app.engine.waiting == 400)
        other = pool.submit(run, local_app, "predict", "A joy.")
        wait_until(lambda: local_app.engine.waiting == 401)
    assert other.result()[0] == 200
    wait_until(lambda: (local_app.health()["texts_waiting"], local_app.health()["requests_under_way"]) == (0, 0))


@pytest.mark.parametrize("clients", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_many_clients_get_the_same_answers_as_one(app, tmp_path, clients):
    texts = [f"{'A joy' if i % 2 else 'Dull'} {word}." for i in range(10) for word in ("film", "story", "cast")]
    (tmp_path / "requests.json").write_text(json.dumps([[text] for text in texts]))
    alone = [json.loads(run(app, "predict", text)[1])["data"][0] for text in texts]
    flags = ["--clients", str(clients), "--seconds", "1"]
    command = [sys.executable, "benchmarks/clients.py", app.url, "predict", tmp_path / "requests.json", *flags]
    found = json.loads(run_process(command, cwd=ROOT, check=True).stdout)
    assert len(found["responses"]) >= clients
    for number, _, answer in found["responses"]:
        assert answer["label"] == alone[number]["label"]
        assert abs(answer["confidence"] - alone[number]["confidence"]) < 0.01
    facts = json.loads(get(f"{app.url}/health")[2])
    assert (facts["texts_waiting"], facts["requests_under_way"]) == (0, 0)


def test_the_app_stops_if_another_thread_receives_the_signal():
    def stop_through_another_thread() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

        def send_signal() -> None:
            wait_until(lambda: signal.getsignal(signal.SIGTERM) != signal.SIG_DFL)
            time.sleep(0.5)  # until the main thread waits
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

        threading.Thread(target=send_signal, daemon=True).start()
        idle_queue = SimpleNamespace(has_pending_responses=False)
        Shutdown(Metrics(None), idle_queue).serve_until_stopped()

    process = multiprocessing.get_context("fork").Process(target=stop_through_another_thread)
    process.start()
    try:
        process.join(HANG_SECONDS)
        assert process.exitcode == 0
    finally:
        process.kill()
