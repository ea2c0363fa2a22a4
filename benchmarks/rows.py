"""Reading a dataset that may be larger than memory, against `datasets`, in one run on one machine.

    python benchmarks/rows.py --rows 2000000

A CSV of made reviews, all different, is read and tokenised to the default base's window of 256:
- ours, first: adapter_arena.data.load.load with --n-train all and the token ids that training takes;
- ours, again: the same from the cache, as every later run of a sweep or comparison has it;
- datasets: load_dataset("csv") and map with the same tokenizer in batches, its cache empty; it neither removes
  duplicates nor splits.
Each in a process of its own. Memory is anonymous memory (what cannot be paged back into a file), over that after the
imports. Prints a table and writes benchmarks/rows.json.
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

from adapter_arena.recipe import DEFAULT_BASE

sys.path.insert(0, str(Path(__file__).parent.parent))

RESULT = Path(__file__).with_suffix(".json")
WINDOW = 256


def anonymous_mb() -> float:
    """This process's anonymous memory, MB of 10^6 bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon"))


def write(path: Path, rows: int) -> None:
    """A CSV of `rows` different made reviews, half of each label."""
    from adapter_arena.data import sample

    reviews = sample.make(2000)
    pairs = list(zip(reviews["text"], reviews["label"]))
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for i in range(rows):
            text, label = pairs[i % len(pairs)]
            file.write(f'"{text} This was review {i} of many.",{label}\n')


def ours(path: Path) -> Iterator[dict | None]:
    """After the imports nothing, then the seconds to read and to tokenise, and how many rows were tokenised."""
    from adapter_arena.data import load, rows
    from adapter_arena.models import bases
    from adapter_arena.train import recipes

    tokenizer = bases.load_tokenizer(bases.find(DEFAULT_BASE))
    recipe, _ = recipes.resolve("lora", dataset=str(path), n_train="all", n_test=1000, name="rows")
    yield
    start = time.perf_counter()
    splits = load.load_splits(recipe)
    read = time.perf_counter()
    rows.token_ids(tokenizer, splits.train, WINDOW)
    yield {"read": read - start, "tokenise": time.perf_counter() - read, "tokenised": len(splits.train)}


def with_datasets(path: Path) -> Iterator[dict | None]:
    """The same for the library."""
    import datasets

    from adapter_arena.models import bases

    tokenizer = bases.load_tokenizer(bases.find(DEFAULT_BASE))
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
    """Run one peer in this process and print what it took as JSON."""
    steps = PEERS[peer](path)
    next(steps)
    before, peak, done = anonymous_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = next(steps)
    done.set()
    watcher.join()
    print(json.dumps(found | {"peak_mb": peak[0] - before}))


def table(facts: dict) -> str:
    """The README's table."""
    lines = [
        f"| {facts['rows']:,} rows, {facts['megabytes']:,.0f} MB | read, rows/s | tokenise, rows/s | peak memory |"
    ]
    lines.append("|---|---:|---:|---:|")
    for peer, row in facts["measured"].items():
        tokenised = "(kept)" if peer == "ours, again" else f"{row['rows_tokenised_per_second']:,.0f}"
        lines.append(f"| {peer} | {row['rows_read_per_second']:,.0f} | {tokenised} | {row['peak_mb']:,.0f} MB |")
    return "\n".join(lines)


def main() -> None:
    """Run every peer and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--table", action="store_true", help="print the table of the last run and measure nothing")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(RESULT.read_text())))
        return
    if options.peer:
        measure(options.peer, options.file)
        return
    measured = {}
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "reviews.csv"
        write(path, options.rows)
        size = path.stat().st_size / 1e6
        caches = {"ARENA_CACHE": f"{place}/ours", "HF_DATASETS_CACHE": f"{place}/datasets"}
        for peer in PEERS:
            command = [sys.executable, __file__, "--peer", peer, "--file", str(path)]
            done = subprocess.run(command, env=os.environ | caches, stdout=subprocess.PIPE, text=True, check=True)
            row = measured[peer] = json.loads(done.stdout.splitlines()[-1])
            row["rows_read_per_second"] = options.rows / row["read"]
            row["rows_tokenised_per_second"] = row["tokenised"] / row["tokenise"]
            print(peer, row, file=sys.stderr)
    facts = {"rows": options.rows, "megabytes": size, "cores": os.cpu_count(), "measured": measured}
    print(table(facts))
    RESULT.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
