"""What a missing Hub costs: start to first answer, and a click, with the Hub and without it.

    python benchmarks/start.py

Runs app.py against a Hub of the tests that answers, a port that refuses, and a port that accepts
and never answers, in alternation. Prints a table and writes benchmarks/start.json (seconds, medians
of ROUNDS starts and of CLICKS requests each).
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from hub_server import HubServer  # noqa: E402

ROUNDS, CLICKS = 3, 30
ADAPTER = ROOT / "adapters" / "minilm-imdb-lora"


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def answering():
    """A Hub with one adapter of alice's."""
    with HubServer() as hub:
        hub.add_repo("alice/minilm-imdb-lora", {path.name: path.read_bytes() for path in ADAPTER.iterdir()})
        yield hub.url


@contextmanager
def refusing():
    """A port that refuses every connection, as with no network."""
    yield f"http://127.0.0.1:{free_port()}"


@contextmanager
def silent():
    """A port that accepts and never answers, as behind a broken proxy."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def ask(url: str) -> dict:
    """One prediction over HTTP."""
    request = urllib.request.Request(
        f"{url}/gradio_api/run/predict",
        json.dumps({"data": ["A quiet, moving film.", ""]}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def measure(hub: str, cache: str) -> tuple[float, float]:
    """Seconds from process start to the first answer, and the median of the clicks after it."""
    port = free_port()
    environment = os.environ | {
        "HF_ENDPOINT": hub, "HF_HOME": cache, "ARENA_CACHE": cache, "ARENA_NAMESPACE": "alice",
        "GRADIO_SERVER_PORT": str(port), "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as app:
        try:
            while True:
                try:
                    ask(f"http://127.0.0.1:{port}")
                    break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.05)
            first = time.perf_counter() - start
            clicks = []
            for _ in range(CLICKS):
                clicked = time.perf_counter()
                ask(f"http://127.0.0.1:{port}")
                clicks.append(time.perf_counter() - clicked)
        finally:
            app.terminate()
    return first, statistics.median(clicks)


def main() -> None:
    """Measure every kind of Hub, write what was measured."""
    kinds = {"answers": answering, "refuses": refusing, "accepts and is silent": silent}
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as cache:
        urls = {kind: stack.enter_context(make()) for kind, make in kinds.items()}
        measure(urls["refuses"], cache)  # quantises the base once, which is not what is compared
        for _ in range(ROUNDS):
            for kind, url in urls.items():
                found[kind].append(measure(url, cache))
    rows = {
        kind: {
            "start_seconds": statistics.median(first for first, _ in runs),
            "click_seconds": statistics.median(click for _, click in runs),
            "starts": [first for first, _ in runs],
        }
        for kind, runs in found.items()
    }
    print("| the Hub | start to first answer | click |\n|---|---:|---:|")
    for kind, row in rows.items():
        print(f"| {kind} | {row['start_seconds']:.2f} s | {1000 * row['click_seconds']:.0f} ms |")
    Path(__file__).with_suffix(".json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
