"""What the app is to those who run it."""

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

import gradio as gr
import pandas
import pytest
from conftest import HANG_SECONDS, ROOT, Running, free_port, held, run_process, wait_until
from gradio.utils import get_upload_folder

from adapter_arena import ui
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine
from adapter_arena.ui import service, sessions, uploads
from adapter_arena.ui.service import Service


@dataclass
class Here:
    """The app in this process, where a test can patch its settings and hold its engine."""

    url: str
    demo: gr.Blocks
    service: Service
    engine: Engine

    def facts(self) -> dict:
        """What /health tells."""
        return json.loads(sent(f"{self.url}/health")[1])


@contextmanager
def launched(engine: Engine):
    """Start the app with this engine; stop it when the block ends."""
    catalogue = Catalogue(engine)
    one = Service(catalogue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_SERVER_PORT", str(free_port()))
        demo = ui.start(catalogue, one)
    try:
        wait_until(lambda: catalogue.latency)  # the requests that time the adapters are done
        yield Here(demo.local_url.rstrip("/"), demo, one, engine)
    finally:
        demo.close()


@pytest.fixture(scope="module")
def engine(tiny, trained):
    one = Engine(tiny)
    one.add_folder(trained)
    yield one
    one.close()


@pytest.fixture(scope="module")
def here(engine):
    with launched(engine) as one:
        yield one


@pytest.fixture
def pool():
    """Threads for callers that wait."""
    with ThreadPoolExecutor() as one:
        yield one


def get(url: str):
    with urllib.request.urlopen(url, timeout=HANG_SECONDS) as reply:
        return reply.status, reply.headers, reply.read().decode()


def counter() -> Service:
    return Service(SimpleNamespace(entries=[], engine=SimpleNamespace(in_memory=0, waiting=0, merged_mb=0.0)))


def test_a_visitor_has_a_share_of_each_minute_and_others_have_theirs(monkeypatch):
    monkeypatch.setenv("ARENA_MAX_PER_MINUTE", "3")
    now = [1000.0]
    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter))
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
    monkeypatch.setattr(sessions, "time", SimpleNamespace(monotonic=lambda: now[0]))
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
    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=time.monotonic, time=lambda: 0.0))
    with pytest.raises(gr.Error, match="in 60 s"):
        one.check_share("a")


def answered(here: Here) -> int:
    """Requests to `predict` that were answered, by /metrics."""
    found = re.search(
        r'arena_requests_total\{endpoint="predict",outcome="answered"\} (\d+)', get(f"{here.url}/metrics")[2]
    )
    return int(found[1]) if found else 0


def test_health_metrics_and_headers(here):
    before = answered(here)
    assert run(here, "predict", "A joy.")[0] == 200
    status, headers, body = get(f"{here.url}/health")
    facts = json.loads(body)
    assert status == 200
    assert facts["ready"] is True
    assert facts["adapters"] == facts["adapters_in_memory"] == 1
    assert facts["texts_waiting"] == 0
    for name, value in service.HEADERS.items():
        assert headers[name] == value
    assert answered(here) == before + 1
    _, _, metrics = get(f"{here.url}/metrics")
    assert "process_resident_memory_bytes" in metrics
    assert "arena_adapters 1.0" in metrics
    _, headers, _ = get(here.url)
    assert "frame-ancestors 'self' https://huggingface.co" in headers["content-security-policy"]
    assert "x-frame-options" not in headers


def test_a_limit_that_is_met_is_named(here, monkeypatch):
    monkeypatch.setenv("ARENA_MAX_CHARACTERS", "5000")
    assert "over the limit of 5,000 (ARENA_MAX_CHARACTERS)" in run(here, "predict", "a" * 5001)[1]
    monkeypatch.setenv("ARENA_MAX_PER_MINUTE", "3")
    replies = [run(here, "list_adapters")[1] for _ in range(5)]
    assert ["ARENA_MAX_PER_MINUTE" in reply for reply in replies] == [False, False, False, True, True]
    assert get(f"{here.url}/health")[0] == 200


def test_calls_beyond_the_queue_are_refused_and_those_in_it_are_answered(here, monkeypatch, pool):
    monkeypatch.setenv("ARENA_MAX_QUEUE", "2")
    with held(here.engine):
        waiting = [pool.submit(run, here, "predict", "A joy.") for _ in range(2)]
        wait_until(lambda: here.facts()["requests_under_way"] == 2)
        status, reply = run(here, "predict", "A joy.")
        assert (status, "(ARENA_MAX_QUEUE)" in reply) == (503, True)
    assert [one.result()[0] for one in waiting] == [200, 200]


def run(app: Here | Running, name: str, *arguments) -> tuple[int, str]:
    """Status and reply of a call that waits for its answer."""
    return sent(f"{app.url}/gradio_api/run/{name}", json.dumps({"data": arguments}).encode())


def post(url: str, name: str, arguments: list) -> str:
    """The event of a call."""
    request = urllib.request.Request(
        f"{url}/gradio_api/call/{name}", json.dumps({"data": arguments}).encode(), {"content-type": "application/json"}
    )
    return json.load(urllib.request.urlopen(request, timeout=HANG_SECONDS))["event_id"]


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
    app, path, kind, body, status, words
):
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
def test_a_file_where_a_text_belongs_is_refused_unread(app, endpoint, path):
    path = path.replace("{folder}", str(ROOT / "adapters"))
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [[file] if "batch" in endpoint else file]}).encode()
    status, reply = sent(f"{app.url}/gradio_api/{endpoint}", body)
    if endpoint.startswith("call") and status == 200:
        reply = get(f"{app.url}/gradio_api/{endpoint}/{json.loads(reply)['event_id']}")[2]
    assert "A file does not belong there" in reply
    log = app.log.read_text()
    for text in (reply, log):
        assert str(ROOT) not in text.replace(str(ROOT / ".venv"), "")
        assert SECRET not in text
    assert "Traceback" not in log


def sent(url: str, body: bytes | None = None, headers: dict | None = None) -> tuple[int, str]:
    """Status and body of the reply, whatever the status is."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"} | (headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=HANG_SECONDS) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize(
    "path", ["https://example.org/x.csv", "/etc/passwd", "{adapters}/minilm-imdb-lora/README.md", "{upload}/.."]
)
def test_batch_reads_no_file_but_those_uploaded(app, path):
    path = path.replace("{adapters}", str(ROOT / "adapters")).replace("{upload}", get_upload_folder())
    reply = of_page(app, "file", "change", [{"path": path, "meta": {"_type": "gradio.FileData"}}, "", "", None])
    assert "not among those uploaded" in reply
    assert "Traceback" not in app.log.read_text()


def test_what_a_visitor_typed_is_in_no_log(app):
    reply = of_page(app, "score", "click", [None, "text", SECRET, "minilm-imdb-lora"])
    assert "error" in reply
    sent(f"{app.url}/gradio_api/run/predict", json.dumps({"data": [SECRET, SECRET]}).encode())
    sent(f"{app.url}/gradio_api/call/explain", json.dumps({"data": {SECRET: 1}}).encode())
    assert SECRET not in app.log.read_text()


def of_page(running, elem_id: str, event: str, data: list) -> str:
    """What the page's own event answers to these inputs."""
    config = json.loads(get(f"{running.url}/config")[2])
    [component] = [c["id"] for c in config["components"] if c["props"].get("elem_id") == elem_id]
    [index] = [d["id"] for d in config["dependencies"] if [component, event] in map(list, d["targets"])][:1]
    body = {"fn_index": index, "data": data, "session_hash": f"page-{time.monotonic()}"}
    assert sent(f"{running.url}/gradio_api/queue/join", json.dumps(body).encode())[0] == 200
    return get(f"{running.url}/gradio_api/queue/data?session_hash={body['session_hash']}")[2]


def test_bytes_of_a_request_are_bounded(here, monkeypatch):
    monkeypatch.setenv("ARENA_MAX_BODY_MB", "1")
    monkeypatch.setattr(service, "LINGER_SECONDS", HANG_SECONDS)
    for _ in range(20):  # each is told, however the reply and what is still being sent meet
        status, reply = sent(f"{here.url}/gradio_api/run/predict", b"[" * 3_000_000)
        assert (status, "over the limit of 1 MB (ARENA_MAX_BODY_MB)" in reply) == (413, True)
    with socket.create_connection(("127.0.0.1", int(here.url.rpartition(":")[2])), timeout=HANG_SECONDS) as line:
        head = "POST /gradio_api/run/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        line.sendall(head.encode())
        for _ in range(20):  # which says nothing of its length
            line.sendall(b"%x\r\n%s\r\n" % (100_000, b"[" * 100_000))
        line.sendall(b"0\r\n\r\n")
        assert b" 413 " in line.recv(100)


def test_nothing_is_fetched_for_a_visitor_and_no_page_is_kept(app):
    for method in (None, b"{}"):
        assert sent(f"{app.url}/gradio_api/file=https://example.org/x", method)[0] == 403
    assert sent(f"{app.url}/gradio_api/deep_link?session_hash=a")[0] == 404


def test_uploads_are_deleted_and_what_is_no_file_does_not_stop_that(engine, monkeypatch):
    monkeypatch.setattr(ui, "KEPT", (1, 1))
    form = '--x\r\nContent-Disposition: form-data; name="files"; filename="mine.csv"\r\n\r\ntext\r\n--x--\r\n'
    with launched(engine) as running:
        for _ in range(2):  # the second after the first was deleted
            reply = sent(
                f"{running.url}/gradio_api/upload", form.encode(), {"content-type": "multipart/form-data; boundary=x"}
            )
            path = Path(json.loads(reply[1])[0])
            folder = {"path": str(path.parent), "meta": {"_type": "gradio.FileData"}}
            of_page(running, "file", "change", [folder, "", "", None])
            wait_until(lambda path=path: not path.exists())


@pytest.fixture
def ending(here, monkeypatch, pool):
    """Tell the app to end, within some seconds; it takes requests again after the test."""
    monkeypatch.setattr(here.service, "is_ending", False)

    def tell(seconds: float):
        told = pool.submit(here.service.finish, here.demo, seconds)
        wait_until(lambda: here.service.is_ending)
        return told

    return tell


def test_what_was_asked_before_the_end_is_answered_and_nothing_new_is_taken(here, ending, pool):
    with held(here.engine):
        asked = pool.submit(run, here, "predict_batch", ["A joy."] * 60)
        wait_until(lambda: here.engine.waiting == 60)
        end = ending(HANG_SECONDS)
        status, reply = run(here, "predict", "a")
        assert (status, "about to start again" in reply) == (503, True)
        assert sent(f"{here.url}/health")[0] == 503
        assert not end.done()
    assert len(json.loads(asked.result()[1])["data"][0]) == 60
    assert end.result() is True


def test_an_answer_that_is_fetched_after_the_end_was_told_is_not_lost(here, ending):
    before = answered(here)
    event = post(here.url, "predict", ["A joy."])
    wait_until(lambda: answered(here) == before + 1)
    end = ending(HANG_SECONDS)
    time.sleep(0.5)  # twice what an app without anything to do takes to end
    assert not end.done()
    assert '"label"' in get(f"{here.url}/gradio_api/call/predict/{event}")[2]
    assert end.result() is True


def test_the_end_does_not_wait_for_ever(here, ending, pool, capsys):
    with held(here.engine):
        asked = pool.submit(run, here, "predict", "A joy.")
        wait_until(lambda: here.engine.waiting == 1)
        assert ending(0.2).result() is False
        assert "ended with 1 requests unanswered" in capsys.readouterr().err
    assert asked.result()[0] == 200


def test_an_event_that_is_not_there_ends_in_an_error_and_leaves_no_trace(app):
    status, _, reply = get(f"{app.url}/gradio_api/call/predict/gone")
    assert status == 200
    assert reply.startswith("event: error\ndata: ")
    assert "Traceback" not in app.log.read_text()


def test_a_client_who_leaves_in_the_middle_of_a_batch_harms_nobody(here, pool):
    with held(here.engine):
        event = post(here.url, "predict_batch", [["A joy to watch."] * 400])
        urllib.request.urlopen(f"{here.url}/gradio_api/call/predict_batch/{event}", timeout=HANG_SECONDS).close()
        wait_until(lambda: here.engine.waiting == 400)
        asked = pool.submit(run, here, "predict", "A joy.")
        wait_until(lambda: here.engine.waiting == 401)
    assert asked.result()[0] == 200
    wait_until(lambda: (here.facts()["texts_waiting"], here.facts()["requests_under_way"]) == (0, 0))


@pytest.mark.parametrize("clients", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_many_clients_at_once_are_all_answered_as_if_alone(app, tmp_path, clients):
    texts = [f"{'A joy' if i % 2 else 'Dull'} {word}." for i in range(10) for word in ("film", "story", "cast")]
    (tmp_path / "asked.json").write_text(json.dumps([[text] for text in texts]))
    alone = [json.loads(run(app, "predict", text)[1])["data"][0] for text in texts]
    flags = ["--clients", str(clients), "--seconds", "1"]
    command = [sys.executable, "benchmarks/clients.py", app.url, "predict", tmp_path / "asked.json", *flags]
    found = json.loads(run_process(command, cwd=ROOT, check=True).stdout)
    assert len(found["asked"]) >= clients
    for number, _, answer in found["asked"]:
        assert answer["label"] == alone[number]["label"]
        assert abs(answer["confidence"] - alone[number]["confidence"]) < 0.01
    facts = json.loads(get(f"{app.url}/health")[2])
    assert (facts["texts_waiting"], facts["requests_under_way"]) == (0, 0)


def test_the_app_ends_when_the_system_hands_the_signal_to_another_thread():
    def serve_until_another_thread_gets_the_signal() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

        def tell() -> None:
            wait_until(lambda: signal.getsignal(signal.SIGTERM) != signal.SIG_DFL)
            time.sleep(0.5)  # by now the main thread waits
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

        threading.Thread(target=tell, daemon=True).start()
        queue = type("Queue", (list,), {"pending_event_ids_session": {}})()
        Service(None).serve_until_told(SimpleNamespace(_queue=queue))

    process = multiprocessing.get_context("fork").Process(target=serve_until_another_thread_gets_the_signal)
    process.start()
    try:
        process.join(HANG_SECONDS)
        assert process.exitcode == 0
    finally:
        process.kill()
