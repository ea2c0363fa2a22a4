"""Compare how fast adapters are served with the ways in which it is done today, in one run on one machine.

    python benchmarks/serving.py --dataset path/to/imdb

Peers (peers.py) take turns on the same real reviews, each in a process of its own: bitsandbytes and PEFT as in the
textbook, transformers.pipeline, ONNX Runtime in fp32 and int8, and OpenVINO. Then measures our engine and app alone:
1 to 100 adapters on one base, 32 and 500 clients of the running app, its start, the first request for an adapter, and
the differences that the fast paths, the types of the computation and truncated texts make. Prints tables and writes
benchmarks/serving.json, by kind of CPU, and docs/serving.png.

`--cpu avx2` measures on an emulated older CPU (cpu.py), `--parts` measures some parts again and keeps the results of the
others, `--table` prints the tables of the last run.
"""

import argparse
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from adapter_arena import runtime  # noqa: E402

if __name__ == "__main__":  # not in the processes that it starts: those of the peers have the libraries' defaults
    runtime.configure()

import cpu  # noqa: E402
import pandas  # noqa: E402
import serving_app  # noqa: E402
import serving_engine  # noqa: E402
from processes import print_progress, run_in_new_process  # noqa: E402
from serving_peers import measure_peers  # noqa: E402
from serving_tables import clients_table, peers_table, plot  # noqa: E402
from workload import beginnings, make_adapters  # noqa: E402

RESULT = Path(__file__).with_suffix(".json")
PARTS = ("peers", "clients", "many", "cold", "start", "paths", "types", "load", "whole")
COMPARED_IN_TYPES = ("full", "lora", "qlora", "ia3", "dora")
"""Methods whose shipped adapters of IMDb are compared in bf16 and fp32."""
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "gradio", "onnxruntime", "openvino")


def measure(part: str, options: argparse.Namespace, folders: list[Path], folder: Path) -> dict:
    """Return the results of one part, with the adapters in `folders`; `folder` is for temporary files."""
    reviews = pandas.read_parquet(options.dataset / "test.parquet").sample(2000, random_state=0)
    all_texts = reviews["text"].tolist()
    texts = all_texts[: options.reviews]
    match part:
        case "peers":
            return measure_peers(folders, texts, options.rounds, folder)
        case "clients":
            return serving_app.measure_clients(folders, all_texts, options.seconds, folder)
        case "load":
            return serving_app.measure_load(folders, all_texts, 5 * options.seconds, folder)
        case "start":
            return serving_app.measure_start(options.rounds)
        case "many":
            return serving_engine.measure_many(folders, texts, folder)
        case "cold":
            return in_new_process(serving_engine.added_latency, folders, beginnings(all_texts, 64)[0])
        case "paths":
            return {folders[0].name: in_new_process(serving_engine.compare_paths, folders[0], all_texts)}
        case "types":
            found = {}
            for method in COMPARED_IN_TYPES:
                adapter = ROOT / "adapters" / f"minilm-imdb-{method}"
                found[method] = in_new_process(serving_engine.compare_types, adapter, reviews)
            return found
        case "whole":
            validation = pandas.read_parquet(options.dataset / "validation.parquet")
            return in_new_process(serving_engine.compare_long_texts, folders[0], validation)
    raise ValueError(f"unknown part {part!r}")


def in_new_process(function, *arguments):
    """Return the result of `function` from a new process with our settings."""
    return run_in_new_process(function, *arguments, initializer=runtime.configure)


def measure_parts(options: argparse.Namespace, results: dict[str, dict]) -> dict[str, dict]:
    """Measure the chosen parts; write and return the results with theirs."""
    kind = cpu.kind_of_this_machine()
    facts = cpu.facts()
    print_progress(f"{kind}: {facts}")
    versions = {package: version(package) for package in PACKAGES}
    with tempfile.TemporaryDirectory(prefix="arena-bench-") as name:
        folder = Path(name)
        folders = in_new_process(make_adapters, folder)
        for part in options.parts:
            measured = measure(part, options, folders, folder)
            print_progress(part)
            results = cpu.updated(results, kind, part, facts, versions=versions, **{part: measured})
            RESULT.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    return results


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="folder with IMDb's test.parquet and validation.parquet")
    parser.add_argument("--reviews", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60, help="of the clients; five times as many under load")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--table", action="store_true", help="print the tables of the last run without measuring")
    cpu.add_option(parser)
    options = parser.parse_args()
    if options.dataset is None and not options.table:
        parser.error("--dataset is missing: the folder with IMDb's test.parquet and validation.parquet")
    return options


def main() -> None:
    """Measure the chosen parts, print the tables and draw the figure."""
    options = parse_arguments()
    results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    if options.table:
        print(peers_table(results), clients_table(results), sep="\n\n")
        return
    cpu.become(options.cpu)
    results = measure_parts(options, results)
    print(peers_table(results))
    of_this_kind = results[cpu.kind_of_this_machine()]
    print(json.dumps({part: of_this_kind[part] for part in options.parts if part != "peers"}, indent=2))
    plot(results, ROOT / "docs" / "serving.png")


if __name__ == "__main__":
    main()
