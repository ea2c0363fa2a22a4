"""Measure reading and tokenising a dataset that may be larger than memory, and compare with `datasets`.

    python benchmarks/rows.py --rows 2000000

A CSV file of made-up reviews, all different, is read and tokenised to the default base's window of 256 tokens:

- ours, first: adapter_arena.data.load.load_splits with all rows for training, and the token ids for training;
- ours, again: the same from the cache, as in every later run of a sweep or comparison;
- datasets: load_dataset("csv") and map with the same tokenizer in batches, with an empty cache; it neither removes
  duplicates nor splits.

Each runs in its own process. Memory is anonymous memory (which cannot be paged back into a file) in addition to
that after the imports. Prints a table and writes benchmarks/rows.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from adapter_arena.models import bases, loading
from adapter_arena.recipe import DEFAULT_BASE

RESULT = Path(__file__).with_suffix(".json")
WINDOW = 256


def anonymous_mb() -> float:
    """Return this process's anonymous memory in MB of 10^6 bytes (Linux only)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("This kernel does not report anonymous memory.")


def write(path: Path, rows: int) -> None:
    """Write a CSV file of `rows` different made-up reviews, half of each label."""
    from adapter_arena.data import sample

    reviews = sample.make(2000)
    pairs = list(zip(reviews["text"], reviews["label"]))
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for i in range(rows):
            text, label = pairs[i % len(pairs)]
            file.write(f'"{text} This was review {i} of many.",{label}\n')


def ours(path: Path) -> Iterator[dict | None]:
    """Yield None after the imports, and then the seconds of both steps and the number of tokenised rows."""
    from adapter_arena.data import load, rows
    from adapter_arena.train import recipes

    tokenizer = loading.load_tokenizer(bases.find(DEFAULT_BASE))
    recipe, _ = recipes.resolve("lora", dataset=str(path), n_train="all", n_test=1000, name="rows")
    yield
    start = time.perf_counter()
    splits = load.load_splits(recipe)
    read = time.perf_counter()
    rows.token_ids(tokenizer, splits.train, WINDOW)
    yield {"read": read - start, "tokenise": time.perf_counter() - read, "tokenised": len(splits.train)}


def with_datasets(path: Path) -> Iterator[dict | None]:
    """Yield the same for `datasets`."""
    import datasets

    tokenizer = loading.load_tokenizer(bases.find(DEFAULT_BASE))
    datasets.disable_progress_bars()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"

    def encode(batch: dict) -> dict:
        return {"ids": tokenizer(batch["text"], truncation=True, max_length=WINDOW)["input_ids"]}

    yield
    start = time.perf_counter()
    loaded = datasets.load_dataset("csv", data_files=str(path), split="train")
    read = time.perf_counter()
    loaded.map(encode, batched=True, batch_size=10_000, remove_columns=loaded.column_names)
    yield {"read": read - start, "tokenise": time.perf_counter() - read, "tokenised": len(loaded)}


PEERS = {"ours, first": ours, "ours, again": ours, "datasets": with_datasets}


def measure(peer: str, path: Path) -> None:
    """Run one peer in this process; print its seconds and its peak memory as JSON."""
    steps = PEERS[peer](path)
    next(steps)
    before = anonymous_mb()
    samples = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            samples.append(anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = next(steps)
    done.set()
    watcher.join()
    print(json.dumps(found | {"peak_mb": max(samples) - before}))


def measure_peers(rows: int) -> dict:
    """Run every peer in its own process and return the results."""
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reviews.csv"
        write(path, rows)
        megabytes = path.stat().st_size / 1e6
        environment = os.environ | {"ARENA_CACHE": f"{folder}/ours", "HF_DATASETS_CACHE": f"{folder}/datasets"}
        for peer in PEERS:
            command = [sys.executable, __file__, "--peer", peer, "--file", str(path)]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            row["rows_read_per_second"] = rows / row["read"]
            row["rows_tokenised_per_second"] = row["tokenised"] / row["tokenise"]
            measured[peer] = row
            print(peer, row, file=sys.stderr)
    return {"rows": rows, "megabytes": megabytes, "cores": os.cpu_count(), "measured": measured}


def table(facts: dict) -> str:
    """Return the table of the documents, in Markdown."""
    lines = [
        f"| {facts['rows']:,} rows, {facts['megabytes']:,.0f} MB | read, rows/s | tokenise, rows/s | peak memory |",
        "|---|---:|---:|---:|",
    ]
    for peer, row in facts["measured"].items():
        tokenised = "(kept)" if peer == "ours, again" else f"{row['rows_tokenised_per_second']:,.0f}"
        lines.append(f"| {peer} | {row['rows_read_per_second']:,.0f} | {tokenised} | {row['peak_mb']:,.0f} MB |")
    return "\n".join(lines)


def main() -> None:
    """Run every peer and write the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--table", action="store_true", help="print the table of the last run without measuring")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(RESULT.read_text())))
        return
    if options.peer:
        measure(options.peer, options.file)
        return
    facts = measure_peers(options.rows)
    print(table(facts))
    RESULT.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
