"""Measure `python -m adapter_arena.serve.scoring` with one worker, with two, and with one of two killed.

    python benchmarks/scoring.py --rows 1000000

The rows are made up and the base is a random one of two layers, so this measures the transport of the rows and not the
model. The peer is `datasets`, which reads the first file, with one engine in this process. Counts the rows that are
missing or out of order. Writes benchmarks/scoring.json.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "serve")]

import datasets  # noqa: E402
import numpy  # noqa: E402
import pandas  # noqa: E402
import pyarrow.parquet  # noqa: E402
import ray  # noqa: E402
from conftest import make_base  # noqa: E402
from test_scoring import kill_a_worker  # noqa: E402

from adapter_arena import machine  # noqa: E402
from adapter_arena.data import sample  # noqa: E402
from adapter_arena.models import bases  # noqa: E402
from adapter_arena.serve import scoring  # noqa: E402
from adapter_arena.serve.engine import Engine  # noqa: E402
from adapter_arena.train import recipes, trainable  # noqa: E402

RESULT = Path(__file__).with_suffix(".json")
DIFFERENT_TEXTS = 1000
FILES = 10


@dataclass(frozen=True)
class Run:
    """How the files are scored."""

    title: str
    """Its key in the results."""
    workers: int
    kills_worker: bool = False


RUNS = (Run("1 worker", 1), Run("2 workers", 2), Run("2 workers, one killed", 2, kills_worker=True))


def make_adapter(base: bases.Base, folder: Path) -> Path:
    """Save an untrained LoRA adapter for the base."""
    recipe, _ = recipes.resolve("lora", base_model=base.id, dataset="sample")
    model, _ = trainable.build(recipe, 2)
    model.peft_config["default"].base_model_name_or_path = base.label
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def make_files(folder: Path, rows: int) -> list[Path]:
    """Write numbered rows with made-up texts to files of equal size."""
    texts = sample.make(DIFFERENT_TEXTS)["text"].tolist()
    frame = pandas.DataFrame({"number": range(rows)})
    frame["text"] = [texts[i % DIFFERENT_TEXTS] for i in range(rows)]
    paths = []
    for i in range(FILES):
        path = folder / f"rows-{i}.parquet"
        frame.iloc[i * rows // FILES : (i + 1) * rows // FILES].to_parquet(path, index=False)
        paths.append(path)
    return paths


@contextmanager
def killing_a_worker(is_active: bool):
    """Yield a list of the processes that are killed during the block, one if `is_active`."""
    killed: list[int] = []
    if not is_active:
        yield killed
        return
    is_done = threading.Event()
    killer = threading.Thread(target=kill_a_worker, args=(killed, is_done))
    killer.start()
    try:
        yield killed
    finally:
        is_done.set()
        killer.join()


def measure(run: Run, files: list[Path], adapter: Path, base: bases.Base, output: Path) -> dict:
    """Score the files; return the seconds and how many rows are missing or in the wrong place."""
    with killing_a_worker(run.kills_worker) as killed:
        start = time.monotonic()
        rows = scoring.run(files, adapter, output, workers=run.workers, base_model=base.id)
        seconds = time.monotonic() - start
        ray.shutdown()
    written = sorted(output.glob("*.parquet"))
    numbers = pyarrow.parquet.read_table(written, columns=["number"])["number"].to_numpy()
    expected = sum(pyarrow.parquet.read_metadata(path).num_rows for path in files)
    in_place = int((numbers[:expected] == numpy.arange(expected)[: len(numbers)]).sum())
    return {
        "workers": run.workers,
        "killed": len(killed),
        "seconds": seconds,
        "rows_per_second": rows / seconds,
        "lost": expected - rows,
        "out_of_order": expected - in_place,
    }


def measure_peer(file: Path, folder: Path, base: bases.Base, rows: int) -> dict:
    """Score a file with `datasets.map` and one engine, without Ray."""
    engine = Engine(base)
    engine.add_folder(folder)
    engine.merge(folder.name)

    def score(batch: dict) -> dict:
        labels = [answer.label for answer in engine.predict(batch["text"])]
        return {"predicted_label": labels}

    table = datasets.load_dataset("parquet", data_files=str(file), split=f"train[:{rows}]")
    start = time.monotonic()
    table.map(score, batched=True, batch_size=scoring.BATCH_ROWS, load_from_cache_file=False)
    seconds = time.monotonic() - start
    return {"seconds": seconds, "rows_per_second": rows / seconds}


def main() -> None:
    """Measure every run and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    found: dict = {"rows": options.rows, "device": machine.device_name()}
    with tempfile.TemporaryDirectory(prefix="arena-scoring-") as name:
        folder = Path(name)
        base = make_base(folder / "tiny", "bert")
        adapter = make_adapter(base, folder / "tiny-lora")
        files = make_files(folder, options.rows)
        found["datasets"] = measure_peer(files[0], adapter, base, options.rows // FILES)
        for run in RUNS:
            found[run.title] = measure(run, files, adapter, base, folder / run.title.replace(" ", "-"))
            print(run.title, found[run.title], flush=True)
    print(json.dumps(found, indent=2))
    RESULT.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
