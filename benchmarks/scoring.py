"""Rows a second of `python -m adapter_arena.serve.scoring` with one worker and with two, and with one of two killed in the middle.

    python benchmarks/scoring.py --rows 1000000

Made rows, and a random base of two layers, so that it is the way of the rows that is measured and not the model:
`datasets` reading the same file and one engine in this process is the peer. Checks that every row came back, in order.
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
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

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
from adapter_arena.train import recipes, training  # noqa: E402


def adapter(base: bases.Base, folder: Path) -> Path:
    """An untrained LoRA for the base."""
    recipe, _ = recipes.resolve("lora", base_model=base.id, dataset="sample")
    model, _ = training.build(recipe, 2)
    model.peft_config["default"].base_model_name_or_path = base.label
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def scored(files: list[Path], folder: Path, base: bases.Base, output: Path, workers: int, kill: bool) -> dict:
    """Seconds, and how many rows are missing or not in their place."""
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(killed,))
    if kill:
        killer.start()
    start = time.monotonic()
    rows = scoring.run(files, folder, output, workers, base_model=base.id)
    seconds = time.monotonic() - start
    ray.shutdown()
    if kill:
        killer.join()
    numbers = numpy.concatenate(
        [
            pyarrow.parquet.read_table(path, columns=["number"])["number"].to_numpy()
            for path in sorted(output.glob("*.parquet"))
        ]
    )
    wanted = sum(pyarrow.parquet.read_metadata(path).num_rows for path in files)
    in_place = int((numbers[:wanted] == numpy.arange(wanted)[: len(numbers)]).sum())
    return {"workers": workers, "killed": len(killed), "seconds": seconds, "rows_per_second": rows / seconds,
            "lost": wanted - rows, "out_of_order": wanted - in_place}  # fmt: skip


def peer(file: Path, folder: Path, base: bases.Base, rows: int) -> dict:
    """`datasets.map` over one engine, without Ray."""
    engine = Engine(base)
    engine.add_folder(folder)
    engine.heat(folder.name)
    table = datasets.load_dataset("parquet", data_files=str(file), split=f"train[:{rows}]")
    start = time.monotonic()
    table.map(
        lambda batch: {"predicted_label": [a.label for a in engine.predict(batch["text"])]},
        batched=True,
        batch_size=scoring.ROWS,
        load_from_cache_file=False,
    )
    return {"seconds": time.monotonic() - start, "rows_per_second": rows / (time.monotonic() - start)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    bases.quiet_libraries()
    found: dict = {"rows": options.rows, "device": machine.device_name()}
    with tempfile.TemporaryDirectory(prefix="arena-scoring-") as name:
        place = Path(name)
        base = make_base(place / "tiny", "bert")
        folder = adapter(base, place / "tiny-lora")
        texts = sample.make(1000)["text"].tolist()
        frame = pandas.DataFrame({"number": range(options.rows)})
        frame["text"] = [texts[i % 1000] for i in range(options.rows)]
        files = []
        for i in range(10):
            files.append(place / f"rows-{i}.parquet")
            frame.iloc[i * options.rows // 10 : (i + 1) * options.rows // 10].to_parquet(files[-1], index=False)
        found["datasets"] = peer(files[0], folder, base, options.rows // 10)
        for key, workers, kill in (("1 worker", 1, False), ("2 workers", 2, False), ("2 workers, one killed", 2, True)):
            found[key] = scored(files, folder, base, place / key.replace(" ", "-"), workers, kill)
            print(key, found[key], flush=True)
    print(json.dumps(found, indent=2))
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
