"""Training speed against the textbook set-up, in one run on one machine.

    python benchmarks/training.py --dataset path/to/imdb

Peers train the same LoRA on the same reviews in the same order of magnitude of steps:
- textbook: Hugging Face Trainer as the tutorials have it: fp32, every text padded to the window,
  the base's dropout on; once with the base's full window of 512 tokens, once with ours of 256;
- ours: peft_arena.training with the recipe minilm-imdb-lora.
Prints a table and writes benchmarks/training.json: reviews/s, peak memory, validation accuracy.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy
import torch
from peft import get_peft_model
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments, set_seed

sys.path.insert(0, str(Path(__file__).parent.parent))

from peft_arena import bases, data, machine, methods, recipes, training
from peft_arena.errors import ArenaError
from peft_arena.rows import Rows


class Padded(torch.utils.data.Dataset):
    """Rows truncated and padded to `window` tokens, as the tutorials do."""

    def __init__(self, tokenizer, rows, window: int):
        self._rows = tokenizer(
            [text for part in rows.parts() for text in part], truncation=True, padding="max_length", max_length=window
        )
        self._labels = rows.labels.tolist()

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict:
        row = {key: torch.tensor(values[index]) for key, values in self._rows.items()}
        return row | {"labels": torch.tensor(self._labels[index])}


def accuracy(prediction) -> dict[str, float]:
    """Share of right answers."""
    return {"accuracy": float((numpy.argmax(prediction.predictions, axis=1) == prediction.label_ids).mean())}


def textbook(recipe: recipes.Recipe, splits: data.Splits, window: int) -> dict:
    """Train the recipe's LoRA the textbook way; seconds are of training alone."""
    base = bases.find(recipe.base_model)
    set_seed(recipe.seed)
    model = AutoModelForSequenceClassification.from_pretrained(bases.locate(base), num_labels=len(splits.labels))
    model = get_peft_model(model, methods.find(recipe.method).config(recipe, base.architecture))
    tokenizer = bases.load_tokenizer(base)
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
        score = trainer.evaluate(Padded(tokenizer, Rows.of(splits.validation), window))["eval_accuracy"]
    return {
        "reviews_per_second": len(train) * recipe.epochs / seconds,
        "peak_memory_mb": peak.mb,
        "validation_accuracy": score,
    }


def ours(recipe: recipes.Recipe, splits: data.Splits) -> dict:
    """Train the recipe as train_space.py does; seconds are of training alone."""
    with tempfile.TemporaryDirectory() as folder:
        _, facts = training._train(recipe, bases.find(recipe.base_model), splits, Path(folder), False, "none")
    return {
        "reviews_per_second": facts.samples_per_second,
        "peak_memory_mb": facts.peak_memory_mb,
        "validation_accuracy": facts.epochs[-1].validation_accuracy,
    }


def main() -> None:
    """Run every peer and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="stanfordnlp/imdb")
    parser.add_argument("--n-train", type=int, default=1000)
    parser.add_argument("--n-validation", type=int, default=500)
    options = parser.parse_args()
    bases.quiet_libraries()
    recipe, _ = recipes.resolve(recipe="minilm-imdb-lora", **vars(options), n_test=2)
    try:
        splits = data.load(recipe)
    except ArenaError as error:
        sys.exit(f"error: {error}")
    # The textbook peers go first, since ours tells the C library to keep freed memory for the rest of the process.
    measured = {f"textbook, {window} tokens": textbook(recipe, splits, window) for window in (512, 256)}
    machine.reuse_memory()
    measured["ours"] = ours(recipe, splits)
    print("| | reviews/s | ratio | peak memory | validation accuracy |\n|---|---:|---:|---:|---:|")
    for name, row in measured.items():
        row["ours_is_times_as_fast"] = measured["ours"]["reviews_per_second"] / row["reviews_per_second"]
        print(
            f"| {name} | {row['reviews_per_second']:.1f} | {row['ours_is_times_as_fast']:.1f} | "
            f"{row['peak_memory_mb']:,.0f} MB | {row['validation_accuracy']:.1%} |"
        )
    facts = {"recipe": dataclasses.asdict(recipe) | {"dataset": splits.facts.id}, "device": machine.device_name()}
    Path(__file__).with_suffix(".json").write_text(json.dumps(facts | {"measured": measured}, indent=2) + "\n")


if __name__ == "__main__":
    main()
