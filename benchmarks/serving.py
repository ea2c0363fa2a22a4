"""How fast adapters are served, against the ways in which it is done today, in one run on one machine.

    python benchmarks/serving.py --dataset path/to/imdb

Peers (peers.py) take turns on the same real reviews, each in a process of its own: bitsandbytes and PEFT as the
textbook has them, transformers.pipeline, ONNX Runtime in fp32 and int8, OpenVINO. Then, of ours alone: 1 to 100
adapters on one base, 32 and 500 clients of the running app (clients.py), its start, an adapter that is not in memory yet,
and what each fast path changes. Prints tables, writes benchmarks/serving.json and docs/serving.png; `--parts`
measures some again and keeps the rest, `--table` prints the tables of the file.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import pandas  # noqa: E402
import peers  # noqa: E402
import psutil  # noqa: E402
import torch  # noqa: E402
from bitsandbytes.nn import Linear4bit  # noqa: E402
from gradio_client import Client  # noqa: E402
from peers import BASE, Arena  # noqa: E402

from peft_arena import bases, machine, merging, recipes, store, training  # noqa: E402
from peft_arena.engine import HOT_ROWS, Engine  # noqa: E402

METHODS = ("lora", "qlora", "dora", "ia3", "adalora", "vera", "oft", "ln")
"""Of the eight adapters, of six PEFT types; the shipped ones of IMDb, others made of random numbers."""
PEERS = {
    "PEFT Arena": Arena,
    "PEFT Arena, nothing merged": "cold",
    "textbook": peers.Textbook,
    "pipeline": peers.Pipeline,
    "ONNX Runtime": peers.Onnx,
    "ONNX Runtime, int8": peers.OnnxInt8,
    "OpenVINO": peers.OpenVino,
}
ONE_MODEL = ("ONNX Runtime", "ONNX Runtime, int8", "OpenVINO")
CLIENTS = 32


def adapters(place: Path) -> list[Path]:
    """The eight adapter folders, `bench-<method>`."""
    folders = []
    for method in METHODS:
        folder, shipped = place / f"bench-{method}", ROOT / "adapters" / f"minilm-imdb-{method}"
        if shipped.is_dir():
            shutil.copytree(shipped, folder)
        else:
            recipe, _ = recipes.resolve(method, dataset="sample")
            model, _ = training.build(recipe, 2)
            for name, weight in model.named_parameters():
                if weight.requires_grad and "modules_to_save" not in name:
                    weight.data.add_(0.02 * torch.randn_like(weight))
            model.peft_config["default"].base_model_name_or_path = BASE.id
            model.save_pretrained(folder, save_embedding_layers=False)
        folders.append(folder)
    return folders


def cut(texts: list[str], tokens: int) -> list[str]:
    """The beginnings of those texts that have as many tokens, special ones included."""
    tokenizer, found = bases.load_tokenizer(BASE), []
    for text in texts:
        offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        if len(offsets) >= tokens:
            found.append(text[: offsets[tokens - 3][1]])
    return found


# Run in the processes of the peers.
_peer: peers.Peer | None = None


def _start(name: str, folders: list[Path], texts: list[str]) -> None:
    global _peer
    bases.quiet_libraries()
    kind = PEERS[name]
    _peer = Arena(folders, merges=False) if kind == "cold" else kind(folders)
    _peer.tune(texts, folders[0].name)


def _timed(method: str, *args) -> tuple[float, list[int]]:
    start = time.perf_counter()
    answers = getattr(_peer, method)(*args)
    return time.perf_counter() - start, answers


def _singles(texts: list[str], adapter: str) -> list[float]:
    return [1000 * _timed("answer", [text], adapter)[0] for text in texts]


def _facts() -> dict:
    return {"memory_mb": machine.memory_mb(), "size": _peer.size, "most": _peer.most}


def alone(function, *args):
    """Its result from a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def against_peers(folders: list[Path], texts: list[str], rounds: int, place: Path) -> dict:
    """Milliseconds of single texts and texts per second of many, of every peer, which take turns."""
    merged = [place / "merged" / folder.name for folder in folders]
    for folder, target in zip(folders, merged):
        alone(peers.merge, folder, target, target is merged[0])
    singles = {tokens: cut(texts, tokens)[:20] for tokens in (64, 256)}
    asked = random.Random(0).choices([folder.name for folder in folders], k=len(texts))
    first, spawn = folders[0].name, multiprocessing.get_context("spawn")
    measured = {name: {"single_64_ms": [], "single_256_ms": [], "one": [], "mixed": []} for name in PEERS}
    labels: dict[str, list[int]] = {}
    ours = os.environ["GOMP_SPINCOUNT"]
    with contextlib.ExitStack() as stack:
        pools = {}
        for name in PEERS:
            own = merged if name == "pipeline" or name in ONE_MODEL else folders
            # Ours was set when peft_arena was imported; the others have OpenMP's default.
            os.environ["GOMP_SPINCOUNT"] = ours if name.startswith("PEFT Arena") else "300000"
            pool = ProcessPoolExecutor(1, spawn, _start, (name, own, texts[:48]))
            pools[name] = stack.enter_context(pool)
            measured[name] |= pool.submit(_facts).result()
            os.environ["GOMP_SPINCOUNT"] = ours
        for number in range(rounds):
            for name, pool in pools.items():
                row = measured[name]
                for tokens, some in singles.items():
                    row[f"single_{tokens}_ms"] += pool.submit(_singles, some, first).result()
                some = texts[: row["most"]]
                seconds, labels[name] = pool.submit(_timed, "answer", some, first).result()
                row["one"].append(len(some) / seconds)
                if name not in ONE_MODEL:
                    row["mixed"].append(len(some) / pool.submit(_timed, "mixed", some, asked).result()[0])
                said(f"round {number + 1}: {name} {row['one'][-1]:.1f}, mixed {(row['mixed'] or [0])[-1]:.1f} texts/s")
    for name, row in measured.items():
        same = sum(a == b for a, b in zip(labels[name], labels["PEFT Arena"]))
        row["same_label_as_ours"] = same / len(labels[name])
    return measured


def _many(folders: list[Path], texts: list[str], merges: bool) -> dict:
    arena = Arena(folders, merges)
    asked = random.Random(0).choices([folder.name for folder in folders], k=len(texts))
    arena.mixed(texts[:32], asked[:32])
    start = time.perf_counter()
    arena.mixed(texts, asked)
    return {
        "texts_per_second": len(texts) / (time.perf_counter() - start),
        "base_mb": arena.base_mb,
        "loaded_mb": arena.loaded_mb,
        "adapters_mb": sum(store.read(folder, BASE).weights.stat().st_size for folder in folders) / 1e6,
    }


def many(folders: list[Path], texts: list[str], place: Path) -> dict:
    """Memory and throughput of 1 to 100 adapters of all types on one base, none merged and as the app has it."""
    copies = []
    for i in range(100):
        source = folders[i % len(folders)]
        copies.append(shutil.copytree(source, place / "many" / f"{source.name}-{i}", copy_function=os.link))
    found = {}
    for kind, merges in (("unmerged", False), ("merged", True)):
        for count in (1, 2, 8, 10, 100):
            found.setdefault(kind, {})[count] = row = alone(_many, copies[:count], texts, merges)
            row["of_base_and_adapters"] = row["loaded_mb"] / (row["base_mb"] + row["adapters_mb"])
            said(f"{count} adapters, {kind}: {row}")
    return found


def _empty_app(port: int) -> None:
    import gradio as gr

    def predict(text: str, adapter: str = "") -> dict:
        return {"label": "positive"}

    with gr.Blocks() as demo:
        gr.api(predict, api_name="predict")
    demo.queue(default_concurrency_limit=32).launch(server_port=port, quiet=True)


def _engine_rate(folders: list[Path], requests: list[list[str]], seconds: float) -> tuple[float, list[dict]]:
    """Requests per second of as many threads as there are clients; and the answers of each text alone."""
    engine = Engine(BASE)
    for folder in folders:
        engine.add(store.read(folder, BASE))
        engine.heat(folder.name)
    alone = [engine.predict([text], adapter)[0].to_dict() for text, adapter in requests]
    start, numbers = time.perf_counter(), iter(range(10**9))

    def client() -> int:
        answered = 0
        while time.perf_counter() - start < seconds:
            text, adapter = requests[next(numbers) % len(requests)]
            engine.predict([text], adapter)
            answered += 1
        return answered

    with ThreadPoolExecutor(CLIENTS) as pool:
        answered = sum(pool.map(lambda _: client(), range(CLIENTS)))
    return answered / (time.perf_counter() - start), alone


def _ask_for(url: str, requests: list[list[str]], seconds: float, place: Path, clients: int = CLIENTS) -> dict:
    file = place / "requests.json"
    file.write_text(json.dumps(requests))
    command = [sys.executable, Path(__file__).with_name("clients.py"), url, "predict", file]
    command += ["--clients", str(clients), "--seconds", str(seconds)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def clients(folders: list[Path], texts: list[str], seconds: float, place: Path) -> dict:
    """Requests per second, latencies and wrong answers of 32 clients of the running app."""
    from conftest import free_port, serve

    pick, found = random.Random(0), {}
    loads = {"whole reviews": texts[:200], "beginnings of 32 tokens": cut(texts, 32)[:200]}
    requests = {k: [[text, pick.choice(folders).name] for text in some] for k, some in loads.items()}
    port = free_port()
    empty = multiprocessing.get_context("spawn").Process(target=_empty_app, args=(port,))
    empty.start()
    wait_for(f"http://127.0.0.1:{port}")
    gradio = {kind: _ask_for(f"http://127.0.0.1:{port}", requests[kind], seconds / 3, place) for kind in loads}
    empty.terminate()
    with serve(",".join(map(str, folders))) as running:
        heat(running.url, folders, texts)
        for kind in loads:
            _ask_for(running.url, requests[kind], seconds / 6, place)
            found[kind] = _ask_for(running.url, requests[kind], seconds, place)
    for kind, run in found.items():
        rate, right = alone(_engine_rate, folders, requests[kind], seconds / 2)
        changes, wrong, lost = [], 0, 0
        for i, _, answer in run["asked"]:
            if not answer or "confidence" not in answer:
                lost += 1
                continue
            changes.append(max(abs(answer["scores"][label] - p) for label, p in right[i]["scores"].items()))
            differs = answer["label"] != right[i]["label"] and right[i]["confidence"] > 0.51
            wrong += differs or changes[-1] > 0.01 or answer["adapter"] != requests[kind][i][1]
        milliseconds = [each[1] for each in run["asked"]]
        cuts = statistics.quantiles(milliseconds, n=100)
        found[kind] = {
            "requests": len(milliseconds),
            "requests_per_second": len(milliseconds) / run["seconds"],
            "p50_ms": cuts[49],
            "p95_ms": cuts[94],
            "p99_ms": cuts[98],
            "wrong": wrong,
            "lost": lost,
            "largest_change": max(changes),
            "engine_requests_per_second": rate,
            "empty_gradio_requests_per_second": len(gradio[kind]["asked"]) / gradio[kind]["seconds"],
        }
        said(f"clients, {kind}: {found[kind]}")
    return found


def heat(url: str, folders: list[Path], texts: list[str]) -> None:
    """Have every adapter merged, as it is in an app that has run for some minutes."""
    client = Client(url, verbose=False)
    before = -1.0
    while True:
        for folder in folders:
            client.predict([text[:200] for text in texts[:HOT_ROWS]], folder.name, api_name="/predict_batch")
        time.sleep(3)
        merged = json.load(urllib.request.urlopen(f"{url}/health", timeout=30))["merged_mb"]
        if merged == before:
            return
        before = merged


def load(folders: list[Path], texts: list[str], seconds: float, place: Path) -> dict:
    """500 clients at once: what they were answered, and the app's memory before and after."""
    from conftest import serve

    pick = random.Random(0)
    requests = [[text, pick.choice(folders).name] for text in cut(texts, 32)[:200]]
    with serve(",".join(map(str, folders))) as running:

        def memory() -> float:
            return psutil.Process(running.process.pid).memory_info().rss / 1e6

        heat(running.url, folders, texts)
        _ask_for(running.url, requests, 30, place, 500)  # every queue has been long
        before, found = memory(), _ask_for(running.url, requests, seconds, place, 500)
        after = memory()
        log = running.log.read_text()
    kinds = Counter(
        "none" if not a else next((k for k in ("refused", "lost") if k in a), "answered") for _, _, a in found["asked"]
    )
    milliseconds = sorted(each[1] for each in found["asked"])
    return {
        "clients": 500,
        "seconds": found["seconds"],
        "requests": len(milliseconds),
        "requests_per_second": len(milliseconds) / found["seconds"],
        **kinds,
        "p50_ms": milliseconds[len(milliseconds) // 2],
        "p99_ms": milliseconds[int(0.99 * len(milliseconds))],
        "memory_mb_before": before,
        "memory_mb_after": after,
        "tracebacks": log.count("Traceback"),
    }


def wait_for(url: str) -> None:
    """Return once something answers there."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.1)
    raise TimeoutError(url)


def start(rounds: int) -> dict:
    """Seconds from process start to the first answer, against those of the imports alone."""
    from start import measure, refusing

    imports, starts = [], []
    with tempfile.TemporaryDirectory() as cache, refusing() as hub:
        for _ in range(rounds + 1):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import torch, transformers, peft, gradio"], check=True)
            imports.append(time.perf_counter() - begun)
            starts.append(measure(hub, cache)[0])
    # The first start quantises the base and reads files that are not in memory yet.
    return {"imports_seconds": statistics.median(imports[1:]), "start_seconds": statistics.median(starts[1:])}


def _cold(folders: list[Path], text: str) -> dict:
    engine, first, again = Engine(BASE), [], []
    engine.add(store.read(folders[0], BASE))
    engine.predict([text] * 4)
    for folder in folders[1:]:
        engine.offer(store.read(folder, BASE))
        for kept in (first, again):
            begun = time.perf_counter()
            engine.predict([text], folder.name)
            kept.append(1000 * (time.perf_counter() - begun))
    more = {folder.name: a - b for folder, a, b in zip(folders[1:], first, again)}
    return {"median_ms_more": statistics.median(more.values()), "by_adapter_ms_more": more}


def _paths(folder: Path, texts: list[str]) -> dict:
    """Changes of probability against the exact model: fp32 of the 4-bit weights, adapter apart, each text alone."""
    runs: dict[str, torch.Tensor] = {}
    for kind, hot_mb in (("4 bits", 0), ("merged", None)):
        engine = Engine(BASE, hot_mb=hot_mb)
        engine.add(store.read(folder, BASE))
        engine.heat(folder.name)
        served = engine.find(None)
        runs[f"{kind}, batched"] = served.probabilities(engine.logits(texts))
        runs[f"{kind}, alone"] = served.probabilities(torch.cat([engine.logits([text]) for text in texts[:500]]))
    engine = Engine(BASE, hot_mb=0)
    engine.add(store.read(folder, BASE))
    served = engine.find(None)
    for name, module in list(served.model.named_modules()):
        if isinstance(module, Linear4bit):
            parent, _, child = name.rpartition(".")
            setattr(served.model.get_submodule(parent), child, merging._dequantised(module))
    served.model.float().set_attn_implementation("eager")
    engine._reads_flat = False  # which that does not know
    engine.autocast = lambda: torch.autocast("cpu", enabled=False)
    exact = served.probabilities(torch.cat([engine.logits([text]) for text in texts]))
    found = {}
    for kind, run in runs.items():
        wanted = exact[: len(run)]
        flipped = run.argmax(1) != wanted.argmax(1)
        far = (wanted.max(1).values > 0.51) & flipped
        change = (run - wanted).abs()
        found[kind] = {"texts": len(run), "largest_change": float(change.max()), "mean_change": float(change.mean()),
                       "flips": int(flipped.sum()), "flips_outside_049_051": int(far.sum())}  # fmt: skip
    return found


def _whole(folder: Path, rows: pandas.DataFrame) -> dict:
    """Accuracy on validation texts beyond the window, cut in the middle and read whole."""
    engine = Engine(BASE)
    adapter = engine.add_folder(folder)
    engine.heat(folder.name)
    long = rows[[row.truncated for row in engine.encode(rows["text"].tolist())]][:600]
    found: dict = {"texts": len(long)}
    for key, whole in (("cut", False), ("whole", True)):
        answers = engine.predict(long["text"].tolist(), whole_text=whole)
        found[f"right_{key}"] = sum(adapter.labels[i] == a.label for i, a in zip(long["label"], answers))
    return found


def said(line: str) -> None:
    """Progress, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def table(found: dict) -> str:
    """The README's table of the peers, in Markdown."""
    ours = found["peers"]["PEFT Arena"]
    lines = [
        "| | 64 tokens, ms | 256 tokens, ms | one adapter, texts/s | 8 adapters, texts/s | ours is × as fast |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in found["peers"].items():
        middle = {key: statistics.median(row[key]) if row[key] else None for key in
                  ("single_64_ms", "single_256_ms", "one", "mixed")}  # fmt: skip
        many = middle["mixed"] or middle["one"]
        lines.append(
            f"| {name} | {middle['single_64_ms']:.1f} | {middle['single_256_ms']:.1f} | {spread(row['one'])} | "
            f"{spread(row['mixed']) if row['mixed'] else '–'} | {statistics.median(ours['mixed']) / many:.2f} |"
        )
    return "\n".join(lines)


def load_table(found: dict) -> str:
    """The README's table of the clients of the running app, in Markdown."""
    lines = [
        "| clients over HTTP | answers/s | p50, ms | p95, ms | p99, ms | lost | engine alone, answers/s | Gradio with an empty function |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, row in found["clients"].items():
        rates = (row["requests_per_second"], row["p50_ms"], row["p95_ms"], row["p99_ms"])
        lines.append(
            f"| {CLIENTS}, {kind} | {' | '.join(f'{value:,.{int(value < 100)}f}' for value in rates)} | {row['lost']} | "
            f"{row['engine_requests_per_second']:.1f} | {row['empty_gradio_requests_per_second']:.1f} |"
        )
    row = found["load"]
    lines.append(
        f"| {row['clients']} for {row['seconds'] / 60:.0f} minutes, beginnings of 32 tokens | {row['requests_per_second']:.1f} | "
        f"{row['p50_ms']:,.0f} | | {row['p99_ms']:,.0f} | {row['requests'] - row['answered']} | | |"
    )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """The median, and the least and the most."""
    return f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def plot(found: dict, file: Path) -> None:
    """Texts per second of every peer, one adapter and eight."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = {name: [statistics.median(row["one"]), statistics.median(row["mixed"] or [float("nan")])]
            for name, row in found["peers"].items()}  # fmt: skip
    frame = pandas.DataFrame.from_dict(rows, "index", columns=["one adapter", "8 adapters, mixed"]).iloc[::-1]
    axes = frame.plot.barh(figsize=(8, 4.5), color=["#9aa5b1", "#2f6fde"], width=0.75)
    for bars in axes.containers:
        axes.bar_label(bars, fmt=lambda value: f"{value:.1f}" if value > 0 else "", padding=3, fontsize=8)
    axes.set_xlabel("reviews per second")
    axes.spines[["top", "right"]].set_visible(False)
    pyplot.tight_layout()
    pyplot.savefig(file, dpi=120)
    pyplot.close()


PARTS = ("peers", "clients", "many", "cold", "start", "paths", "load", "whole")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="a folder with IMDb's test.parquet")
    parser.add_argument("--reviews", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60, help="of the clients; five times as many under load")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    kept = Path(__file__).with_suffix(".json")
    found = json.loads(kept.read_text()) if kept.is_file() else {"devices": {}}
    if options.table:
        print(table(found), load_table(found), sep="\n\n")
        return
    if options.dataset is None:
        parser.error("--dataset is needed: a folder with IMDb's test.parquet")
    bases.quiet_libraries()
    rows = pandas.read_parquet(options.dataset / "test.parquet")["text"].sample(2000, random_state=0).tolist()
    texts = rows[: options.reviews]
    with tempfile.TemporaryDirectory(prefix="arena-bench-") as name:
        place = Path(name)
        folders = alone(adapters, place)
        measure = {
            "peers": lambda: against_peers(folders, texts, options.rounds, place),
            "many": lambda: many(folders, texts, place),
            "clients": lambda: clients(folders, rows, options.seconds, place),
            "start": lambda: start(options.rounds),
            "whole": lambda: alone(_whole, folders[0], pandas.read_parquet(options.dataset / "validation.parquet")),
            "load": lambda: load(folders, rows, 5 * options.seconds, place),
            "cold": lambda: alone(_cold, folders, cut(rows, 64)[0]),
            "paths": lambda: {folder.name: alone(_paths, folder, rows) for folder in folders[:1]},
        }
        for part in options.parts:
            found[part] = measure[part]()
            said(part)
            packages = ("torch", "transformers", "peft", "bitsandbytes", "gradio", "onnxruntime", "openvino")
            found["devices"][part] = machine.device_name()
            found["versions"] = {package: version(package) for package in packages}
            kept.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))
    print(json.dumps({part: found[part] for part in options.parts if part != "peers"}, indent=2))
    plot(found, ROOT / "docs" / "serving.png")


if __name__ == "__main__":
    main()
