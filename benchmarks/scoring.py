"""Rows per second of `python -m adapter_arena.serve.scoring` with one worker, with two, and with one of two killed.

    python benchmarks/scoring.py --rows 1000000

The rows are made and the base is a random one of two layers, so that moving the rows is measured and not the model. The
peer is `datasets` reading the same file, with one engine in this process. Checks that every row is returned, in order.
Writes benchmarks/scoring.json.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
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

DIFFERENT_TEXTS = 1000
FILES = 10


def make_adapter(base: bases.Base, folder: Path) -> Path:
    """Save an untrained LoRA adapter for the base."""
    recipe, _ = recipes.resolve("lora", base_model=base.id, dataset="sample")
    model, _ = trainable.build(recipe, 2)
    model.peft_config["default"].base_model_name_or_path = base.label
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def make_files(folder: Path, rows: int) -> list[Path]:
    """Write numbered rows with made texts in files of equal size."""
    texts = sample.make(DIFFERENT_TEXTS)["text"].tolist()
    frame = pandas.DataFrame({"number": range(rows)})
    frame["text"] = [texts[i % DIFFERENT_TEXTS] for i in range(rows)]
    paths = []
    for i in range(FILES):
        path = folder / f"rows-{i}.parquet"
        frame.iloc[i * rows // FILES : (i + 1) * rows // FILES].to_parquet(path, index=False)
        paths.append(path)
    return paths


def measure(files: list[Path], folder: Path, base: bases.Base, output: Path, workers: int, kill: bool) -> dict:
    """Score the files; return the seconds and how many rows are missing or in the wrong place."""
    killed: list[int] = []
    done = threading.Event()
    killer = threading.Thread(target=kill_a_worker, args=(killed, done))
    if kill:
        killer.start()
    start = time.monotonic()
    rows = scoring.run(files, folder, output, workers=workers, base_model=base.id)
    seconds = time.monotonic() - start
    ray.shutdown()
    done.set()
    if kill:
        killer.join()
    written = sorted(output.glob("*.parquet"))
    numbers = pyarrow.parquet.read_table(written, columns=["number"])["number"].to_numpy()
    wanted = sum(pyarrow.parquet.read_metadata(path).num_rows for path in files)
    in_place = int((numbers[:wanted] == numpy.arange(wanted)[: len(numbers)]).sum())
    return {
        "workers": workers,
        "killed": len(killed),
        "seconds": seconds,
        "rows_per_second": rows / seconds,
        "lost": wanted - rows,
        "out_of_order": wanted - in_place,
    }


def measure_peer(file: Path, folder: Path, base: bases.Base, rows: int) -> dict:
    """Score a file with `datasets.map` and one engine, without Ray."""
    engine = Engine(base)
    engine.add_folder(folder)
    engine.merge(folder.name)

    def score(batch: dict) -> dict:
        return {"predicted_label": [answer.label for answer in engine.predict(batch["text"])]}

    table = datasets.load_dataset("parquet", data_files=str(file), split=f"train[:{rows}]")
    start = time.monotonic()
    table.map(score, batched=True, batch_size=scoring.BATCH_ROWS, load_from_cache_file=False)
    seconds = time.monotonic() - start
    return {"seconds": seconds, "rows_per_second": rows / seconds}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    found: dict = {"rows": options.rows, "device": machine.device_name()}
    with tempfile.TemporaryDirectory(prefix="arena-scoring-") as name:
        place = Path(name)
        base = make_base(place / "tiny", "bert")
        folder = make_adapter(base, place / "tiny-lora")
        files = make_files(place, options.rows)
        found["datasets"] = measure_peer(files[0], folder, base, options.rows // FILES)
        for key, workers, kill in (("1 worker", 1, False), ("2 workers", 2, False), ("2 workers, one killed", 2, True)):
            found[key] = measure(files, folder, base, place / key.replace(" ", "-"), workers, kill)
            print(key, found[key], flush=True)
    print(json.dumps(found, indent=2))
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
