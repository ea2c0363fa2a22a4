"""Two app processes behind nginx, as described in docs/scale.md."""

import http.client
import json
import re
import shutil
import signal
import socket
from contextlib import contextmanager

import pytest
from conftest import HANG_SECONDS, ROOT, free_port, running_process, serve, wait_until


@contextmanager
def nginx(place, first: str, second: str):
    """Run nginx with the configuration of the page in front of the two apps; yield its port."""
    block = re.search(r"```nginx\n(.*?)```", (ROOT / "docs/scale.md").read_text(), re.S)[1]
    port = free_port()
    for old, new in (("7861", first), ("7862", second), ("7860", str(port))):
        assert f":{old}" in block or f"listen {old}" in block
        block = block.replace(old, new)
    paths = ""
    for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        paths += f"{kind}_temp_path {place}/{kind};"
    (place / "nginx.conf").write_text(
        f"daemon off; pid {place}/pid; error_log {place}/log; events {{}}\nhttp {{ {paths}\n{block}}}"
    )
    with running_process(["nginx", "-c", place / "nginx.conf", "-e", place / "log"]):
        wait_until(lambda: listens(port))
        yield port


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def request(port: int, client: str, method: str, path: str, body: dict | None = None) -> str:
    """Return the response to a client at that local address."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS, source_address=(client, 0))
    content = None if body is None else json.dumps(body)
    connection.request(method, path, content, {"content-type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode()
    assert response.status == 200, text
    return text


def answer(port: int, client: str) -> str:
    call = request(port, client, "POST", "/gradio_api/call/predict", {"data": ["A joy to watch."]})
    return request(port, client, "GET", f"/gradio_api/call/predict/{json.loads(call)['event_id']}")


def answered(port: int) -> int:
    """Return how many requests to `predict` this app process has answered."""
    metrics = request(port, "127.0.0.1", "GET", "/metrics")
    found = re.search(r'arena_requests_total\{endpoint="predict",outcome="answered"\} (\d+)', metrics)
    return int(found[1]) if found else 0


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
def test_two_processes_share_the_clients_and_one_may_stop(tmp_path):
    with serve() as one, serve() as two:
        ports = [app.url.rpartition(":")[2] for app in (one, two)]
        with nginx(tmp_path, *ports) as port:
            clients = [f"127.0.0.{number}" for number in range(2, 22)]
            for client in clients:
                assert '"positive"' in answer(port, client)
            shares = [answered(int(p)) for p in ports]
            assert sum(shares) == len(clients)
            assert min(shares) >= 3
            one.process.send_signal(signal.SIGTERM)
            for client in clients:  # the other process takes over the clients of the stopped one
                assert '"positive"' in answer(port, client)
            assert one.process.wait(HANG_SECONDS) == 0
            assert answered(int(ports[1])) >= shares[1] + len(clients) - 1
