"""How fast adapters are served, against the ways in which it is done today, in one run on one machine.

    python benchmarks/serving.py --dataset path/to/imdb

Peers (peers.py) take turns on the same real reviews, each in a process of its own: bitsandbytes and PEFT as the
textbook has them, transformers.pipeline, ONNX Runtime in fp32 and int8, OpenVINO. Then, of ours alone: 1 to 100
adapters on one base, 32 and 500 clients of the running app (clients.py), its start, an adapter that is not in memory yet,
what each fast path changes, and each compute type. Prints tables, writes benchmarks/serving.json, by kind of CPU, and
docs/serving.png. `--cpu avx2` measures as on an older CPU (cpu.py), `--parts` measures some parts again and keeps the
rest, `--table` prints the tables of the file.
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

from adapter_arena import runtime  # noqa: E402

if __name__ == "__main__":  # the processes that it starts configure themselves
    runtime.configure()

import cpu  # noqa: E402
import pandas  # noqa: E402
import peers  # noqa: E402
import psutil  # noqa: E402
import torch  # noqa: E402
from gradio_client import Client  # noqa: E402
from peers import BASE, Arena  # noqa: E402

from adapter_arena import machine  # noqa: E402
from adapter_arena.adapters import store  # noqa: E402
from adapter_arena.models import compute, loading  # noqa: E402
from adapter_arena.serve.engine import ROWS_BEFORE_MERGE, Engine  # noqa: E402
from adapter_arena.train import recipes, trainable  # noqa: E402

METHODS = ("lora", "qlora", "dora", "ia3", "adalora", "vera", "oft", "ln")
"""Of the eight adapters, of six PEFT types; the shipped ones of IMDb, others made of random numbers."""
PEERS = {
    "Adapter Arena": Arena,
    "Adapter Arena, nothing merged": "cold",
    "textbook": peers.Textbook,
    "pipeline": peers.Pipeline,
    "ONNX Runtime": peers.Onnx,
    "ONNX Runtime, int8": peers.OnnxInt8,
    "OpenVINO": peers.OpenVino,
}
ONE_MODEL = ("ONNX Runtime", "ONNX Runtime, int8", "OpenVINO")
CLIENTS = 32
TYPES_OF = ("full", "lora", "qlora", "ia3", "dora")
"""Methods whose shipped adapters of IMDb are compared in bf16 and fp32."""


def adapters(place: Path) -> list[Path]:
    """The eight adapter folders, `bench-<method>`."""
    folders = []
    for method in METHODS:
        folder, shipped = place / f"bench-{method}", ROOT / "adapters" / f"minilm-imdb-{method}"
        if shipped.is_dir():
            shutil.copytree(shipped, folder)
        else:
            recipe, _ = recipes.resolve(method, dataset="sample")
            model, _ = trainable.build(recipe, 2)
            for name, weight in model.named_parameters():
                if weight.requires_grad and "modules_to_save" not in name:
                    weight.data.add_(0.02 * torch.randn_like(weight))
            model.peft_config["default"].base_model_name_or_path = BASE.id
            model.save_pretrained(folder, save_embedding_layers=False)
        folders.append(folder)
    return folders


def cut(texts: list[str], tokens: int) -> list[str]:
    """The beginnings of those texts that have as many tokens, special ones included."""
    tokenizer, found = loading.load_tokenizer(BASE), []
    for text in texts:
        offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        if len(offsets) >= tokens:
            found.append(text[: offsets[tokens - 3][1]])
    return found


LIBRARY_DEFAULTS = {"GOMP_SPINCOUNT": "300000", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024"}
# Run in the processes of the peers.
_peer: peers.Peer | None = None


def _start(name: str, folders: list[Path], texts: list[str]) -> None:
    global _peer
    kind = PEERS[name]
    if kind in (Arena, "cold"):
        runtime.configure()
    _peer = Arena(folders, merges=False) if kind == "cold" else kind(folders)
    _peer.tune(texts, folders[0].name)


def _timed(method: str, *args) -> tuple[float, list[int]]:
    start = time.perf_counter()
    answers = getattr(_peer, method)(*args)
    return time.perf_counter() - start, answers


def _single_ms(texts: list[str], adapter: str) -> float:
    return 1000 * statistics.median(_timed("answer", [text], adapter)[0] for text in texts)


def _facts() -> dict:
    return {"memory_mb": machine.memory_mb(), "size": _peer.size, "most": _peer.most}


def alone(function, *args):
    """Its result from a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), runtime.configure) as pool:
        return pool.submit(function, *args).result()


def against_peers(folders: list[Path], texts: list[str], rounds: int, place: Path) -> dict:
    """Milliseconds of single texts and texts per second of many, one value a round, of every peer; they take turns."""
    merged = [place / "merged" / folder.name for folder in folders]
    for folder, target in zip(folders, merged):
        alone(peers.merge, folder, target, target is merged[0])
    singles = {tokens: cut(texts, tokens)[:20] for tokens in (64, 256)}
    asked = random.Random(0).choices([folder.name for folder in folders], k=len(texts))
    first, spawn = folders[0].name, multiprocessing.get_context("spawn")
    names = [name for name in PEERS if cpu.emulation() != "environment" or name not in cpu.NOT_RESTRICTED]
    measured = {name: {"single_64_ms": [], "single_256_ms": [], "one": [], "mixed": []} for name in names}
    labels: dict[str, list[int]] = {}
    ours = {name: os.environ[name] for name in LIBRARY_DEFAULTS}
    with contextlib.ExitStack() as stack:
        pools = {}
        for name in names:
            own = merged if name == "pipeline" or name in ONE_MODEL else folders
            # Ours are set by runtime.configure; the others have the libraries' defaults.
            os.environ |= ours if name.startswith("Adapter Arena") else LIBRARY_DEFAULTS
            pool = ProcessPoolExecutor(1, spawn, _start, (name, own, texts[:48]))
            pools[name] = stack.enter_context(pool)
            measured[name] |= pool.submit(_facts).result()
            os.environ |= ours
        for number in range(rounds):
            for name, pool in pools.items():
                row = measured[name]
                for tokens, some in singles.items():
                    row[f"single_{tokens}_ms"].append(pool.submit(_single_ms, some, first).result())
                some = texts[: row["most"]]
                seconds, labels[name] = pool.submit(_timed, "answer", some, first).result()
                row["one"].append(len(some) / seconds)
                if name not in ONE_MODEL:
                    row["mixed"].append(len(some) / pool.submit(_timed, "mixed", some, asked).result()[0])
                said(f"round {number + 1}: {name} {row['one'][-1]:.1f}, mixed {(row['mixed'] or [0])[-1]:.1f} texts/s")
    for name, row in measured.items():
        same = sum(a == b for a, b in zip(labels[name], labels["Adapter Arena"]))
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
        engine.merge(folder.name)
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
            client.predict([text[:200] for text in texts[:ROWS_BEFORE_MERGE]], folder.name, api_name="/predict_batch")
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
        engine.register(store.read(folder, BASE))
        for kept in (first, again):
            begun = time.perf_counter()
            engine.predict([text], folder.name)
            kept.append(1000 * (time.perf_counter() - begun))
    more = {folder.name: a - b for folder, a, b in zip(folders[1:], first, again)}
    return {"median_ms_more": statistics.median(more.values()), "by_adapter_ms_more": more}


def _probabilities(
    folder: Path, texts: list[str], merged_mb: float | None, dtype: torch.dtype | None = None
) -> dict[str, torch.Tensor]:
    """Probabilities of the texts by the served adapter, together and each of the first 500 alone."""
    engine = Engine(BASE, merged_mb=merged_mb, dtype=dtype)
    engine.add(store.read(folder, BASE))
    if engine.merge(folder.name) != (merged_mb != 0):
        raise RuntimeError(f"{folder.name} could not be merged")
    served = engine.get(None)
    together = served.probabilities(engine.logits(texts))
    alone = served.probabilities(torch.cat([engine.logits([text]) for text in texts[:500]]))
    engine.close()
    return {"batched": together, "alone": alone}


def difference(found: torch.Tensor, wanted: torch.Tensor) -> dict:
    """How far probabilities, shape (texts, labels), differ from those wanted, and how many answers change."""
    flipped = found.argmax(1) != wanted.argmax(1)
    is_sure = wanted.max(1).values > 0.51
    change = (found - wanted).abs()
    return {
        "texts": len(found),
        "largest_change": float(change.max()),
        "mean_change": float(change.mean()),
        "flips": int(flipped.sum()),
        "flips_outside_049_051": int((flipped & is_sure).sum()),
    }


def _paths(folder: Path, texts: list[str]) -> dict:
    """Changes of probability against the exact model: fp32 of the 4-bit weights, adapter apart, each text alone."""
    engine = Engine(BASE, merged_mb=0, dtype=torch.float32)
    engine.add(store.read(folder, BASE))
    engine._packs_inputs = False  # the attention of transformers does not know packed texts
    served = engine.get(None)
    served.model.set_attn_implementation("eager")
    exact = served.probabilities(torch.cat([engine.logits([text]) for text in texts]))
    found = {}
    for kind, merged_mb in (("4 bits", 0), ("merged", None)):
        for way, run in _probabilities(folder, texts, merged_mb).items():
            found[f"{kind}, {way}"] = difference(run, exact[: len(run)])
    return found


def _types(folder: Path, rows: pandas.DataFrame) -> dict:
    """The adapter in bf16 against fp32, merged and not: accuracies, and changes of probability."""
    texts, labels = rows["text"].tolist(), torch.tensor(rows["label"].tolist())
    found = {}
    for kind, merged_mb in (("merged", None), ("unmerged", 0)):
        runs = {
            name: _probabilities(folder, texts, merged_mb, dtype)["batched"] for name, dtype in compute.TYPES.items()
        }
        accuracy = {name: float((run.argmax(1) == labels).float().mean()) for name, run in runs.items()}
        found[kind] = {"accuracy": accuracy} | difference(runs["bf16"], runs["fp32"])
    return found


def _whole(folder: Path, rows: pandas.DataFrame) -> dict:
    """Accuracy on validation texts beyond the window, cut in the middle and read whole."""
    engine = Engine(BASE)
    adapter = engine.add_folder(folder)
    engine.merge(folder.name)
    long = rows[[row.truncated for row in engine.encode(rows["text"].tolist())]][:600]
    found: dict = {"texts": len(long)}
    for key, whole in (("cut", False), ("whole", True)):
        answers = engine.predict(long["text"].tolist(), whole_text=whole)
        found[f"right_{key}"] = sum(adapter.labels[i] == a.label for i, a in zip(long["label"], answers))
    return found


def said(line: str) -> None:
    """Progress, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def table(results: dict) -> str:
    """The README's table of the peers, in Markdown, the kinds of CPU side by side; medians of the rounds."""
    kinds = {kind: found for kind, found in results.items() if "peers" in found}
    titles = [
        f"{cpu.title(kind, found)}: 64 tokens, ms | one / 8 adapters, texts/s | ours is × as fast"
        for kind, found in kinds.items()
    ]
    lines = [f"| | {' | '.join(titles)} |", f"|---|{'---:|' * 3 * len(titles)}"]
    for name in PEERS:
        cells = [_cells(found["peers"], name) for found in kinds.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(peers_of_kind: dict, name: str) -> str:
    if name not in peers_of_kind:
        return "– | – | –"
    row = peers_of_kind[name]
    one = statistics.median(row["one"])
    mixed = statistics.median(row["mixed"]) if row["mixed"] else None
    ours = statistics.median(peers_of_kind["Adapter Arena"]["mixed"])
    rates = f"{one:.1f} / {f'{mixed:.1f}' if mixed else '–'}"
    return f"{statistics.median(row['single_64_ms']):.1f} | {rates} | {ours / (mixed or one):.2f}"


def load_table(results: dict) -> str:
    """The README's table of the clients of the running app, in Markdown."""
    lines = [
        "| CPU | clients over HTTP | answers/s | p50, ms | p95, ms | p99, ms | lost | engine alone, answers/s | Gradio with an empty function |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, found in results.items():
        title = cpu.TITLES.get(kind, kind)
        for load, row in found.get("clients", {}).items():
            rates = (row["requests_per_second"], row["p50_ms"], row["p95_ms"], row["p99_ms"])
            lines.append(
                f"| {title} | {CLIENTS}, {load} | {' | '.join(f'{value:,.{int(value < 100)}f}' for value in rates)} | {row['lost']} | "
                f"{row['engine_requests_per_second']:.1f} | {row['empty_gradio_requests_per_second']:.1f} |"
            )
        if "load" in found:
            row = found["load"]
            lines.append(
                f"| {title} | {row['clients']} for {row['seconds'] / 60:.0f} minutes, beginnings of 32 tokens | {row['requests_per_second']:.1f} | "
                f"{row['p50_ms']:,.0f} | | {row['p99_ms']:,.0f} | {row['requests'] - row['answered']} | | |"
            )
    return "\n".join(lines)


def plot(results: dict, file: Path) -> None:
    """Texts per second of every peer, one adapter and eight; a panel for each kind of CPU."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = {kind: found for kind, found in results.items() if "peers" in found}
    figure, panels = pyplot.subplots(1, len(kinds), sharey=True, squeeze=False, figsize=(3 + 4.5 * len(kinds), 4.5))
    for (kind, found), axes in zip(kinds.items(), panels[0]):
        rows = {name: found["peers"].get(name, {"one": [], "mixed": []}) for name in PEERS}
        medians = {
            name: [statistics.median(row[load] or [float("nan")]) for load in ("one", "mixed")]
            for name, row in rows.items()
        }
        frame = pandas.DataFrame.from_dict(medians, "index", columns=["one adapter", "8 adapters, mixed"]).iloc[::-1]
        frame.plot.barh(ax=axes, color=["#9aa5b1", "#2f6fde"], width=0.75, legend=axes is panels[0][0])
        for bars in axes.containers:
            axes.bar_label(bars, fmt=lambda value: f"{value:.1f}" if value > 0 else "", padding=3, fontsize=8)
        axes.set_title(cpu.title(kind, found), fontsize=10)
        axes.set_xlabel("reviews per second")
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


PARTS = ("peers", "clients", "many", "cold", "start", "paths", "types", "load", "whole")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="a folder with IMDb's test.parquet")
    parser.add_argument("--reviews", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60, help="of the clients; five times as many under load")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--table", action="store_true")
    cpu.add_option(parser)
    options = parser.parse_args()
    kept = Path(__file__).with_suffix(".json")
    results = json.loads(kept.read_text()) if kept.is_file() else {}
    if options.table:
        print(table(results), load_table(results), sep="\n\n")
        return
    if options.dataset is None:
        parser.error("--dataset is needed: a folder with IMDb's test.parquet")
    cpu.become(options.cpu)
    kind, facts = cpu.kind_of_this_machine(), cpu.facts()
    said(f"{kind}: {facts}")
    reviews = pandas.read_parquet(options.dataset / "test.parquet").sample(2000, random_state=0)
    rows = reviews["text"].tolist()
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
            "types": lambda: {
                method: alone(_types, ROOT / "adapters" / f"minilm-imdb-{method}", reviews) for method in TYPES_OF
            },
        }
        for part in options.parts:
            measured = measure[part]()
            said(part)
            packages = ("torch", "transformers", "peft", "bitsandbytes", "gradio", "onnxruntime", "openvino")
            versions = {package: version(package) for package in packages}
            results = cpu.updated(results, kind, part, facts, versions=versions, **{part: measured})
            kept.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    print(table(results))
    print(json.dumps({part: results[kind][part] for part in options.parts if part != "peers"}, indent=2))
    plot(results, ROOT / "docs" / "serving.png")


if __name__ == "__main__":
    main()
