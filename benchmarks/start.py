"""Measure what a missing Hub costs: the time from start to first answer, and of a request after it.

    python benchmarks/start.py

Runs app.py in turns with a Hub that answers (the one of the tests), with a port that refuses connections, and with a
port that accepts them and never answers. Prints a table and writes benchmarks/start.json: seconds, medians of ROUNDS
starts and of CLICKS requests each.
"""

import argparse
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from hub_server import HubServer  # noqa: E402

RESULT = Path(__file__).with_suffix(".json")
ROUNDS = 3
CLICKS = 30
ADAPTER = ROOT / "adapters" / "minilm-imdb-lora"


@dataclass
class Measured:
    """Seconds from the start of the process to its first answer, and the median seconds of the requests after it."""

    start: float
    click: float


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def answering() -> Iterator[str]:
    """Yield the URL of a Hub that has one adapter, of the user alice."""
    files = {path.name: path.read_bytes() for path in ADAPTER.iterdir()}
    with HubServer() as hub:
        hub.add_repo("alice/minilm-imdb-lora", files)
        yield hub.url


@contextmanager
def refusing() -> Iterator[str]:
    """Yield the URL of a port that refuses every connection, as without a network."""
    yield f"http://127.0.0.1:{free_port()}"


@contextmanager
def silent() -> Iterator[str]:
    """Yield the URL of a port that accepts connections and never answers, as behind a broken proxy."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


HUBS = {"answers": answering, "refuses": refusing, "accepts and is silent": silent}


def predict(url: str) -> dict:
    """Return the app's answer for one text."""
    request = urllib.request.Request(
        f"{url}/gradio_api/run/predict",
        json.dumps({"data": ["A quiet, moving film.", ""]}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def wait_for_answer(url: str) -> None:
    """Send requests until one is answered."""
    while True:
        try:
            predict(url)
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)


def measure(hub: str, cache: str) -> Measured:
    """Start the app with a Hub and a cache folder, and measure its first answer and the requests after it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "HF_ENDPOINT": hub,
        "HF_HOME": cache,
        "ARENA_CACHE": cache,
        "ARENA_NAMESPACE": "alice",
        "GRADIO_SERVER_PORT": str(port),
        "HF_HUB_DISABLE_XET": "1",
    }
    clicks = []
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as app:
        try:
            wait_for_answer(url)
            first_answer = time.perf_counter() - start
            for _ in range(CLICKS):
                clicked = time.perf_counter()
                predict(url)
                clicks.append(time.perf_counter() - clicked)
        finally:
            app.terminate()
    return Measured(first_answer, statistics.median(clicks))


def measure_hubs() -> dict[str, list[Measured]]:
    """Return the measurements of every round, for each Hub."""
    measured: dict[str, list[Measured]] = {name: [] for name in HUBS}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as cache:
        urls = {name: stack.enter_context(hub()) for name, hub in HUBS.items()}
        measure(urls["refuses"], cache)  # the first start quantises the base, which is not compared here
        for _ in range(ROUNDS):
            for name, url in urls.items():
                measured[name].append(measure(url, cache))
    return measured


def main() -> None:
    """Measure the app with every Hub and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    rows = {}
    print("| the Hub | start to first answer | click |\n|---|---:|---:|")
    for name, runs in measure_hubs().items():
        starts = [run.start for run in runs]
        row = {
            "start_seconds": statistics.median(starts),
            "click_seconds": statistics.median(run.click for run in runs),
            "starts": starts,
        }
        rows[name] = row
        print(f"| {name} | {row['start_seconds']:.2f} s | {1000 * row['click_seconds']:.0f} ms |")
    RESULT.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
