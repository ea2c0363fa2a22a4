"""Compare the speed of training with that of the textbook set-up, in one run on one machine.

    python benchmarks/training.py --dataset path/to/imdb

Peers train the same adapter on the same reviews:

- textbook: the Hugging Face Trainer as in its tutorials: fp32, every text padded to the window, the base's dropout on;
  LoRA once with the base's complete window of 512 tokens and once with ours of 256; QLoRA with bitsandbytes' defaults
  for 4 bits;
- ours: adapter_arena.train.run with the recipes minilm-imdb-lora and minilm-imdb-qlora.

Then measures the seconds of `train_space.py --method M --dataset sample` for every method, from the start of the process
to its exit. Prints a table and writes benchmarks/training.json, by kind of CPU: reviews/s, peak memory, validation
accuracy with its 95 % interval. `--cpu avx2` measures on an emulated older CPU (cpu.py).
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import torch
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from processes import run_in_new_process  # benchmarks/processes.py
from transformers import (
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    EvalPrediction,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

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

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, window: int):
        texts = rows.frame()["text"].tolist()
        self._columns = tokenizer(texts, truncation=True, padding="max_length", max_length=window)
        self._labels = rows.labels.tolist()

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict:
        row = {key: torch.tensor(values[index]) for key, values in self._columns.items()}
        row["labels"] = torch.tensor(self._labels[index])
        return row


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the share of correct predictions."""
    predicted = numpy.argmax(prediction.predictions, axis=1)
    return {"accuracy": float((predicted == prediction.label_ids).mean())}


def textbook_model(recipe: Recipe, num_labels: int) -> PeftModel:
    """Return the model of the recipe as the tutorials of PEFT make it."""
    base = bases.find(recipe.base_model)
    quantization = None
    if recipe.method == "qlora":
        # By default the head is quantised too, and then it cannot be trained.
        quantization = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=[base.architecture.outside_encoder])
    model = AutoModelForSequenceClassification.from_pretrained(
        bases.locate(base), num_labels=num_labels, quantization_config=quantization
    )
    if quantization:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = methods.find(recipe.method).config(recipe, base.architecture)
    return get_peft_model(model, config)


def textbook(recipe: Recipe, splits: load.Splits, window: int) -> dict:
    """Train the recipe the textbook way; the seconds are those of training alone."""
    set_seed(recipe.seed)
    model = textbook_model(recipe, len(splits.labels))
    tokenizer = loading.load_tokenizer(bases.find(recipe.base_model))
    train_rows = Padded(tokenizer, splits.train, window)
    validation_rows = Padded(tokenizer, Rows.from_frame(splits.validation), window)
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
        trainer = Trainer(model, arguments, train_dataset=train_rows, compute_metrics=accuracy)
        with machine.peak_memory() as peak:
            start = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - start
        metrics = trainer.evaluate(validation_rows)
    return {
        "reviews_per_second": len(train_rows) * recipe.epochs / seconds,
        "peak_memory_mb": peak.mb,
        "validation_accuracy": metrics["eval_accuracy"],
    }


def ours(recipe: Recipe, splits: load.Splits) -> dict:
    """Train the recipe as train_space.py does; the seconds are those of training alone."""
    with tempfile.TemporaryDirectory() as folder:
        _, facts = run.fit(run.Job(recipe, splits, Path(folder)))
    return {
        "reviews_per_second": facts.samples_per_second,
        "peak_memory_mb": facts.peak_memory_mb,
        "validation_accuracy": facts.epochs[-1].validation_accuracy,
    }


def against_textbook(windows: list[int], fields: dict) -> dict:
    """Return the results of all peers by name, and the recipes they trained, which have these `fields`."""
    measured = {}
    trained = {}
    for method, windows_of_method in {"lora": windows, "qlora": [256]}.items():
        recipe, _ = recipes.resolve(recipe=f"minilm-imdb-{method}", **fields, n_test=2)
        try:
            splits = load.load_splits(recipe)
        except ArenaError as error:
            sys.exit(f"error: {error}")
        trained[method] = dataclasses.asdict(recipe) | {"dataset": splits.facts.id}
        rows = {}
        for window in windows_of_method:
            rows[f"{method}, textbook, {window} tokens"] = run_in_new_process(textbook, recipe, splits, window)
        own = run_in_new_process(ours, recipe, splits)
        rows[f"{method}, ours"] = own
        for name, row in rows.items():
            row["ours_is_times_as_fast"] = own["reviews_per_second"] / row["reviews_per_second"]
            correct = round(row["validation_accuracy"] * len(splits.validation))
            row["accuracy_ci95"] = stats.wilson(correct, len(splits.validation))
            print(name, row, file=sys.stderr)
        measured |= rows
    return {"recipes": trained, "measured": measured}


def sample_seconds(methods_to_train: list[str]) -> dict[str, float]:
    """Return the seconds of `train_space.py --dataset sample` for each method, with an empty cache."""
    seconds = {}
    for method in methods_to_train:
        command = [sys.executable, ROOT / "train_space.py", "--method", method, "--dataset", "sample"]
        with tempfile.TemporaryDirectory() as folder:  # for runs/ and adapters/
            environment = os.environ | {"ARENA_CACHE": str(Path(folder) / "cache")}
            start = time.perf_counter()
            subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
            seconds[method] = time.perf_counter() - start
        print(f"{method}: {seconds[method]:.0f} s", file=sys.stderr)
    return seconds


def table(results: dict[str, dict]) -> str:
    """Return a Markdown table of all kinds of CPU; memory and accuracy are those of the newest kind."""
    kinds = {kind: found for kind, found in results.items() if "measured" in found}
    titles = [f"{cpu.title(kind, found)}: reviews/s | ours is × as fast" for kind, found in kinds.items()]
    lines = [
        f"| | {' | '.join(titles)} | peak memory | validation accuracy (95 % interval) |",
        f"|---|{'---:|' * (2 * len(titles) + 2)}",
    ]
    newest = next(iter(kinds.values()))["measured"]
    for name, row in newest.items():
        cells = [_title(name)]
        for found in kinds.values():
            cells += _speeds(found["measured"].get(name))
        low, high = row["accuracy_ci95"]
        cells.append(f"{row['peak_memory_mb'] / 1000:.1f} GB")
        cells.append(f"{100 * row['validation_accuracy']:.1f} % ({100 * low:.1f}–{100 * high:.1f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _title(name: str) -> str:
    """Return the title of a peer, whose name is `method, peer`."""
    method, peer = name.split(", ", 1)
    if peer == "ours":
        peer = "`train_space.py`"
    return f"{methods.METHODS[method].title}, {peer}"


def _speeds(row: dict | None) -> list[str]:
    """Return the cells of a peer on one kind of CPU, if it was measured there."""
    if row is None:
        return ["–", "–"]
    return [f"{row['reviews_per_second']:.1f}", f"{row['ours_is_times_as_fast']:.1f}"]


def write(results: dict) -> None:
    """Write the results file."""
    RESULT.write_text(json.dumps(results, indent=2) + "\n")


def main() -> None:
    """Measure the chosen parts and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="stanfordnlp/imdb")
    parser.add_argument("--n-train", type=int, default=1000)
    parser.add_argument("--n-validation", type=int, default=500)
    parser.add_argument("--windows", type=int, nargs="+", default=[512, 256], help="windows of the textbook's LoRA")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=methods.METHODS,
        default=list(methods.METHODS),
        help="methods of the part sample",
    )
    parser.add_argument("--table", action="store_true", help="print the table of the last run without measuring")
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
    if "peers" in options.parts:
        fields = {"dataset": options.dataset, "n_train": options.n_train, "n_validation": options.n_validation}
        results = cpu.updated(results, kind, "peers", facts, **against_textbook(options.windows, fields))
        write(results)
    if "sample" in options.parts:
        previous = results.get(kind, {}).get("sample_seconds", {})
        seconds = previous | sample_seconds(options.methods)
        results = cpu.updated(results, kind, "sample", facts, sample_seconds=seconds)
        write(results)
    print(table(results))
    print(json.dumps(results[kind].get("sample_seconds", {}), indent=2))


if __name__ == "__main__":
    main()
