"""Training speed against the textbook set-up, in one run on one machine.

    python benchmarks/training.py --dataset path/to/imdb

Peers train the same adapter on the same reviews:
- textbook: the Hugging Face Trainer as in its tutorials: fp32, every text padded to the window,
  the base's dropout on; LoRA once with the base's full window of 512 tokens, once with ours of 256;
  QLoRA with bitsandbytes' defaults for 4 bits;
- ours: adapter_arena.train.run with the recipes minilm-imdb-lora and minilm-imdb-qlora.
Then the seconds that `train_space.py --method M --dataset sample` takes for every method, from the start of the
process to its exit. Prints a table and writes benchmarks/training.json, by kind of CPU: reviews/s, peak memory,
validation accuracy with its 95 % interval. `--cpu avx2` measures as on an older CPU (cpu.py).
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy
import torch
from peft import get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, Trainer, TrainingArguments, set_seed

sys.path.insert(0, str(Path(__file__).parent.parent))

import cpu  # benchmarks/cpu.py

from adapter_arena import machine, stats
from adapter_arena.data import load
from adapter_arena.data.rows import Rows
from adapter_arena.errors import ArenaError
from adapter_arena.models import bases, loading, methods
from adapter_arena.recipe import Recipe
from adapter_arena.train import recipes, run

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).with_suffix(".json")
PARTS = ("peers", "sample")


class Padded(torch.utils.data.Dataset):
    """Rows truncated and padded to `window` tokens, as the tutorials do."""

    def __init__(self, tokenizer, rows, window: int):
        texts = rows.frame()["text"].tolist()
        self._rows = tokenizer(texts, truncation=True, padding="max_length", max_length=window)
        self._labels = rows.labels.tolist()

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict:
        row = {key: torch.tensor(values[index]) for key, values in self._rows.items()}
        return row | {"labels": torch.tensor(self._labels[index])}


def accuracy(prediction) -> dict[str, float]:
    """Return the share of correct answers."""
    predicted = numpy.argmax(prediction.predictions, axis=1)
    return {"accuracy": float((predicted == prediction.label_ids).mean())}


def textbook(recipe: Recipe, splits: load.Splits, window: int) -> dict:
    """Train the recipe the textbook way; seconds are of training alone."""
    base = bases.find(recipe.base_model)
    set_seed(recipe.seed)
    quantization = None
    if recipe.method == "qlora":
        # By default the head is quantised too, and cannot be trained then.
        quantization = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=[base.architecture.outside_encoder])
    model = AutoModelForSequenceClassification.from_pretrained(
        bases.locate(base), num_labels=len(splits.labels), quantization_config=quantization
    )
    if quantization:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model = get_peft_model(model, methods.find(recipe.method).config(recipe, base.architecture))
    tokenizer = loading.load_tokenizer(base)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch_size,
            per_device_eval_batch_size=32,
            learning_rate=recipe.learning_rate,
            seed=recipe.seed,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        train = Padded(tokenizer, splits.train, window)
        trainer = Trainer(model, arguments, train_dataset=train, compute_metrics=accuracy)
        with machine.peak_memory() as peak:
            start = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - start
        score = trainer.evaluate(Padded(tokenizer, Rows.from_frame(splits.validation), window))["eval_accuracy"]
    return {
        "reviews_per_second": len(train) * recipe.epochs / seconds,
        "peak_memory_mb": peak.mb,
        "validation_accuracy": score,
    }


def ours(recipe: Recipe, splits: load.Splits) -> dict:
    """Train the recipe as train_space.py does; seconds are of training alone."""
    with tempfile.TemporaryDirectory() as folder:
        _, facts = run.fit(run.Job(recipe, splits, Path(folder)))
    return {
        "reviews_per_second": facts.samples_per_second,
        "peak_memory_mb": facts.peak_memory_mb,
        "validation_accuracy": facts.epochs[-1].validation_accuracy,
    }


def alone(function, *args) -> dict:
    """Return the function's result from a new process, whose memory no other peer has used."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def against_textbook(windows: list[int], given: dict) -> dict:
    """Return every peer's results by its name, and the recipes they trained, which `given` overrides."""
    measured = {}
    trained = {}
    for method, wanted in (("lora", windows), ("qlora", [256])):
        recipe, _ = recipes.resolve(recipe=f"minilm-imdb-{method}", **given, n_test=2)
        try:
            splits = load.load_splits(recipe)
        except ArenaError as error:
            sys.exit(f"error: {error}")
        trained[method] = dataclasses.asdict(recipe) | {"dataset": splits.facts.id}
        rows = {f"{method}, textbook, {window} tokens": alone(textbook, recipe, splits, window) for window in wanted}
        best = rows[f"{method}, ours"] = alone(ours, recipe, splits)
        for name, row in rows.items():
            row["ours_is_times_as_fast"] = best["reviews_per_second"] / row["reviews_per_second"]
            correct = round(row["validation_accuracy"] * len(splits.validation))
            row["accuracy_ci95"] = stats.wilson(correct, len(splits.validation))
            print(name, row, file=sys.stderr)
        measured |= rows
    return {"recipes": trained, "measured": measured}


def sample_seconds(wanted: list[str]) -> dict[str, float]:
    """Return the seconds of `train_space.py --dataset sample` for each method, from start to exit, with an empty cache."""
    seconds = {}
    for method in wanted:
        command = [sys.executable, ROOT / "train_space.py", "--method", method, "--dataset", "sample"]
        with tempfile.TemporaryDirectory() as folder:  # it writes runs/ and adapters/ where it is started
            environment = os.environ | {"ARENA_CACHE": str(Path(folder) / "cache")}
            start = time.perf_counter()
            subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
            seconds[method] = time.perf_counter() - start
        print(f"{method}: {seconds[method]:.0f} s", file=sys.stderr)
    return seconds


def table(results: dict[str, dict]) -> str:
    """Return a Markdown table of all kinds of CPU; memory and accuracy are those of the newest kind."""
    kinds = {kind: found for kind, found in results.items() if "measured" in found}
    newest = next(iter(kinds.values()))["measured"]
    titles = [f"{cpu.title(kind, found)}: reviews/s | ours is × as fast" for kind, found in kinds.items()]
    lines = [f"| | {' | '.join(titles)} | peak memory | validation accuracy (95 % interval) |"]
    lines.append(f"|---|{'---:|' * (2 * len(titles) + 2)}")
    for name, row in newest.items():
        method, peer = name.split(", ", 1)
        title = f"{methods.METHODS[method].title}, {'`train_space.py`' if peer == 'ours' else peer}"
        cells = []
        for found in kinds.values():
            if speeds := found["measured"].get(name):
                cells += [f"{speeds['reviews_per_second']:.1f}", f"{speeds['ours_is_times_as_fast']:.1f}"]
            else:
                cells += ["–", "–"]
        low, high = row["accuracy_ci95"]
        lines.append(
            f"| {title} | {' | '.join(cells)} | {row['peak_memory_mb'] / 1000:.1f} GB "
            f"| {100 * row['validation_accuracy']:.1f} % ({100 * low:.1f}–{100 * high:.1f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the chosen parts and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="stanfordnlp/imdb")
    parser.add_argument("--n-train", type=int, default=1000)
    parser.add_argument("--n-validation", type=int, default=500)
    parser.add_argument("--windows", type=int, nargs="+", default=[512, 256], help="of the textbook's LoRA")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--methods", nargs="+", choices=methods.METHODS, default=list(methods.METHODS), help="of the part sample"
    )
    parser.add_argument("--table", action="store_true", help="print the table of the last run and measure nothing")
    cpu.add_option(parser)
    options = parser.parse_args()
    results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    if options.table:
        print(table(results))
        return
    cpu.become(options.cpu)
    kind = cpu.kind_of_this_machine()
    facts = cpu.facts()
    print(f"{kind}: {facts}", file=sys.stderr)
    given = {name: getattr(options, name) for name in ("dataset", "n_train", "n_validation")}
    if "peers" in options.parts:
        results = cpu.updated(results, kind, "peers", facts, **against_textbook(options.windows, given))
        RESULT.write_text(json.dumps(results, indent=2) + "\n")
    if "sample" in options.parts:
        seconds = results.get(kind, {}).get("sample_seconds", {}) | sample_seconds(options.methods)
        results = cpu.updated(results, kind, "sample", facts, sample_seconds=seconds)
        RESULT.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))
    print(json.dumps(results[kind].get("sample_seconds", {}), indent=2))


if __name__ == "__main__":
    main()
