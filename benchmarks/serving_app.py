"""Measure the running app: 32 and 500 clients over HTTP, and its start."""

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import psutil
import start
from gradio_client import Client
from peers import BASE
from processes import print_progress, run_in_new_process
from workload import CLIENTS, beginnings

from adapter_arena import runtime
from adapter_arena.adapters import store
from adapter_arena.serve.engine import ROWS_BEFORE_MERGE, Engine

CLIENTS_UNDER_LOAD = 500
DIFFERENT_REQUESTS = 200


@contextlib.contextmanager
def running_app(folders: list[Path]):
    """Run the app with these adapters until the block ends; yield its address, log and process."""
    own_threads = os.environ.get("OMP_NUM_THREADS")
    from conftest import serve  # of the tests; limits the processes that are started later to one thread

    if own_threads is None:
        os.environ.pop("OMP_NUM_THREADS", None)
    with serve(",".join(map(str, folders))) as running:
        yield running


def measure_clients(folders: list[Path], texts: list[str], seconds: float, folder: Path) -> dict[str, dict]:
    """Return rates, latencies and wrong answers of 32 clients of the running app, for long and for short texts.

    They are compared with the engine without HTTP, and with an app of Gradio whose function is empty.
    """
    texts_by_load = {
        "whole reviews": texts[:DIFFERENT_REQUESTS],
        "beginnings of 32 tokens": beginnings(texts, 32)[:DIFFERENT_REQUESTS],
    }
    pick = random.Random(0)
    requests = {load: random_requests(texts, folders, pick) for load, texts in texts_by_load.items()}
    empty_rates = measure_empty_app(requests, seconds / 3, folder)
    sent = {}
    with running_app(folders) as running:
        merge_all(running.url, folders, texts)
        for load in requests:
            send(running.url, requests[load], seconds / 6, folder)
            sent[load] = send(running.url, requests[load], seconds, folder)
    found = {}
    for load, result in sent.items():
        engine_rate, expected = run_in_new_process(
            _engine_rate, folders, requests[load], seconds / 2, initializer=runtime.configure
        )
        found[load] = latencies(result) | compare_answers(result["responses"], requests[load], expected)
        found[load]["engine_requests_per_second"] = engine_rate
        found[load]["empty_gradio_requests_per_second"] = empty_rates[load]
        print_progress(f"clients, {load}: {found[load]}")
    return found


def random_requests(texts: list[str], folders: list[Path], pick: random.Random) -> list[list[str]]:
    """Return the arguments of a request for each text: the text and the name of a random adapter."""
    return [[text, pick.choice(folders).name] for text in texts]


def measure_empty_app(requests: dict[str, list], seconds: float, folder: Path) -> dict[str, float]:
    """Return the requests per second of a Gradio app whose function is empty, for each kind of request."""
    port = start.free_port()
    url = f"http://127.0.0.1:{port}"
    app = get_context("spawn").Process(target=_run_empty_app, args=(port,))
    app.start()
    wait_for(url)
    rates = {}
    for load in requests:
        result = send(url, requests[load], seconds, folder)
        rates[load] = len(result["responses"]) / result["seconds"]
    app.terminate()
    return rates


def _run_empty_app(port: int) -> None:
    import gradio as gr

    def predict(text: str, adapter: str = "") -> dict:
        return {"label": "positive"}

    with gr.Blocks() as demo:
        gr.api(predict, api_name="predict")
    demo.queue(default_concurrency_limit=32).launch(server_port=port, quiet=True)


def _engine_rate(folders: list[Path], requests: list[list[str]], seconds: float) -> tuple[float, list[dict]]:
    """Return the requests per second of as many threads as there are clients, and the answer of each text alone."""
    engine = Engine(BASE)
    for folder in folders:
        engine.add(store.read(folder, BASE))
        engine.merge(folder.name)
    expected = []
    for text, adapter in requests:
        [answer] = engine.predict([text], adapter)
        expected.append(answer.to_dict())
    numbers = count()
    start_time = time.perf_counter()

    def client(_: int) -> int:
        answered = 0
        while time.perf_counter() - start_time < seconds:
            text, adapter = requests[next(numbers) % len(requests)]
            engine.predict([text], adapter)
            answered += 1
        return answered

    with ThreadPoolExecutor(CLIENTS) as pool:
        answered = sum(pool.map(client, range(CLIENTS)))
    return answered / (time.perf_counter() - start_time), expected


def send(url: str, requests: list[list[str]], seconds: float, folder: Path, clients: int = CLIENTS) -> dict:
    """Send the requests to /predict with clients.py; return its seconds and responses."""
    file = folder / "requests.json"
    file.write_text(json.dumps(requests))
    command = [sys.executable, Path(__file__).with_name("clients.py"), url, "predict", file]
    command += ["--clients", str(clients), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def latencies(result: dict) -> dict:
    """Return the number of requests, their rate, and percentiles of their milliseconds."""
    milliseconds = [milliseconds for _, milliseconds, _ in result["responses"]]
    percentiles = statistics.quantiles(milliseconds, n=100)
    return {
        "requests": len(milliseconds),
        "requests_per_second": len(milliseconds) / result["seconds"],
        "p50_ms": percentiles[49],
        "p95_ms": percentiles[94],
        "p99_ms": percentiles[98],
    }


def compare_answers(responses: list[list], requests: list[list[str]], expected: list[dict]) -> dict:
    """Return how many answers are wrong and lost, and the largest change of a probability."""
    changes = []
    wrong = 0
    lost = 0
    for number, _, answer in responses:
        if not answer or "confidence" not in answer:
            lost += 1
            continue
        right = expected[number]
        change = max(abs(answer["scores"][label] - score) for label, score in right["scores"].items())
        changes.append(change)
        has_other_label = answer["label"] != right["label"] and right["confidence"] > 0.51
        _, adapter = requests[number]
        if has_other_label or change > 0.01 or answer["adapter"] != adapter:
            wrong += 1
    return {"wrong": wrong, "lost": lost, "largest_change": max(changes)}


def merge_all(url: str, folders: list[Path], texts: list[str]) -> None:
    """Send texts until all adapters are merged, as in an app that has run for some minutes."""
    client = Client(url, verbose=False)
    beginnings_of_texts = [text[:200] for text in texts[:ROWS_BEFORE_MERGE]]
    previous_mb = -1.0
    while True:
        for folder in folders:
            client.predict(beginnings_of_texts, folder.name, api_name="/predict_batch")
        time.sleep(3)
        with urllib.request.urlopen(f"{url}/health", timeout=30) as response:
            merged_mb = json.load(response)["merged_mb"]
        if merged_mb == previous_mb:
            return
        previous_mb = merged_mb


def measure_load(folders: list[Path], texts: list[str], seconds: float, folder: Path) -> dict:
    """Return the responses to 500 concurrent clients, and the app's memory before and after."""
    requests = random_requests(beginnings(texts, 32)[:DIFFERENT_REQUESTS], folders, random.Random(0))
    with running_app(folders) as running:
        app = psutil.Process(running.process.pid)
        merge_all(running.url, folders, texts)
        send(running.url, requests, 30, folder, CLIENTS_UNDER_LOAD)  # until every queue has been full
        before_mb = app.memory_info().rss / 1e6
        result = send(running.url, requests, seconds, folder, CLIENTS_UNDER_LOAD)
        after_mb = app.memory_info().rss / 1e6
        log = running.log.read_text()
    outcomes = Counter(_outcome(answer) for _, _, answer in result["responses"])
    milliseconds = sorted(milliseconds for _, milliseconds, _ in result["responses"])
    return {
        "clients": CLIENTS_UNDER_LOAD,
        "seconds": result["seconds"],
        "requests": len(milliseconds),
        "requests_per_second": len(milliseconds) / result["seconds"],
        **outcomes,
        "p50_ms": milliseconds[len(milliseconds) // 2],
        "p99_ms": milliseconds[int(0.99 * len(milliseconds))],
        "memory_mb_before": before_mb,
        "memory_mb_after": after_mb,
        "tracebacks": log.count("Traceback"),
    }


def _outcome(answer: dict | None) -> str:
    """Return `answered`, `refused`, `lost`, or `none` for an empty response."""
    if not answer:
        return "none"
    for outcome in ("refused", "lost"):
        if outcome in answer:
            return outcome
    return "answered"


def wait_for(url: str) -> None:
    """Wait until a server responds. Raises TimeoutError."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.1)
    raise TimeoutError(url)


def measure_start(rounds: int) -> dict[str, float]:
    """Return the seconds from the start of the app to its first answer, and those of the imports alone."""
    imports = []
    starts = []
    with tempfile.TemporaryDirectory() as cache, start.refusing() as hub:
        for _ in range(rounds + 1):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import torch, transformers, peft, gradio"], check=True)
            imports.append(time.perf_counter() - begin)
            starts.append(start.measure(hub, cache).start)
    # The first start also quantises the base and reads files that are not in memory yet.
    return {"imports_seconds": statistics.median(imports[1:]), "start_seconds": statistics.median(starts[1:])}
