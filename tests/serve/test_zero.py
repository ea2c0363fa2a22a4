"""ZeroGPU with the `spaces` package as on a Space, but without a GPU and with a fake of the service that lends one."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import ROOT, serve
from gradio_client import Client

from adapter_arena.serve import zero

# `spaces` requires a torch that was built for CUDA, and its worker first moves tensors there.
WITHOUT_A_GPU = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
import torch
torch._C._cuda_init = torch._C._cuda_getCurrentRawStream = None
torch.version.cuda, torch.cuda._is_in_bad_fork = "12.8", bool
import spaces.zero.torch
torch.version.cuda = None
spaces.zero.torch.init = spaces.zero.torch.move = lambda *_, **__: None
runpy.run_path("app.py", run_name="__main__")
"""
TEXTS = [f"a {word} film, seen {i} times" for i in range(zero.MIN_TEXTS // 2) for word in ("splendid", "dreadful")]


class Lender(ThreadingHTTPServer):
    """The service that lends GPUs: one, until `is_used_up`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Lent)
        self.calls: list[tuple[str, dict]] = []
        self.is_used_up = False

    def requests(self, path: str) -> list[dict]:
        return [query for called, query in self.calls if called == path]


class _Lent(BaseHTTPRequestHandler):
    def do_POST(self):
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.server.calls.append((url.path, query))
        status = 200
        body = {}
        if url.path == "/schedule":
            is_idle = bool(self.server.requests("/allow"))
            body = {"idle": is_idle, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "token"}
            if self.server.is_used_up:
                status = 429
                body = {"left": 0, "wait": 60}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def lender():
    with Lender() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_few_texts_stay_on_the_cpu_and_many_do_if_no_gpu_is_free(monkeypatch, capsys):
    lent = []

    def lend(base, precision, adapter, texts, whole_text):
        lent.append(len(texts))
        if len(lent) > 1:
            raise RuntimeError("none is free")
        return texts

    engine = SimpleNamespace(base="base", precision="nf4")
    assert zero.predict(engine, None, TEXTS, False) is None, "this is not a ZeroGPU Space"
    monkeypatch.setattr(zero, "_call", lend)
    assert zero.predict(engine, None, TEXTS[1:], False) is None
    assert zero.predict(engine, None, TEXTS, False) == TEXTS
    assert capsys.readouterr().err == ""
    assert zero.predict(engine, None, TEXTS, False) is None
    assert f"no GPU for {len(TEXTS)} texts, so the CPU computes them: none is free" in capsys.readouterr().err
    assert lent == [len(TEXTS), len(TEXTS)]


@pytest.mark.slow
def test_many_texts_go_to_the_gpu_and_one_does_not(tmp_path):
    pytest.importorskip("spaces")
    script = tmp_path / "zero_app.py"
    script.write_text(WITHOUT_A_GPU)
    with lender() as server:
        url = f"http://127.0.0.1:{server.server_port}"
        settings = {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": url, "HOME": str(tmp_path)}
        with serve(script=script, **settings) as app:
            assert server.requests("/startup-report"), "a ZeroGPU Space without a GPU function ends at its start"
            client = Client(app.url, verbose=False)
            alone = [client.predict(text, "", False, api_name="/predict") for text in TEXTS[:6]]
            assert not server.requests("/schedule")
            answers = client.predict(TEXTS, "", False, api_name="/predict_batch")
            assert [a["label"] for a in answers[:6]] == [a["label"] for a in alone]
            for one, same in zip(alone, answers):
                assert one["confidence"] == pytest.approx(same["confidence"], abs=0.02)
            assert len(answers) == len(TEXTS)
            assert {a["label"] for a in answers} == {"positive", "negative"}
            assert int(server.requests("/schedule")[0]["durationSeconds"]) >= 20
            [allowed] = server.requests("/allow")
            assert int(allowed["pid"]) != app.process.pid
            assert server.requests("/release") == [{"allowToken": "token", "fail": "false"}]

            again = client.predict(TEXTS, "", False, api_name="/predict_batch")
            assert [a["label"] for a in again] == [a["label"] for a in answers]
            assert len(server.requests("/release")) == 2
            assert len(server.requests("/allow")) == 1, "the process that has the model is used again"

            server.is_used_up = True
            rest = client.predict(TEXTS, "", False, api_name="/predict_batch")
            assert [a["label"] for a in rest] == [a["label"] for a in answers]
            assert app.log.read_text().count(f"no GPU for {len(TEXTS)} texts, so the CPU computes them") == 1
