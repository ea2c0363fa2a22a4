"""Compare base models: encoders and decoders, with the methods trained on each, in one table.

    python benchmarks/bases.py ADAPTERS DATA --base minilm --base mpnet=path/to/mpnet --base smollm2=path/to/smollm2

DATA has the data sets in folders named like them. ADAPTERS has an adapter folder `<base>-<data set>-<method>` for each
run of train_space.py. Accuracies and peak memory are those of the results.json files; milliseconds, texts a second and
training speed are measured here, each base in a process of its own. Writes docs/bases/comparison.json and
docs/bases/report.md. Takes half a minute a run; nothing else should run.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from processes import print_progress, run_in_new_process

from adapter_arena import runtime

TARGET = Path(__file__).parent.parent / "docs" / "bases"
TIMED_STEPS = 8
WARM_UP_STEPS = 2
SINGLE_TEXTS = 20
MANY_TEXTS = 64


# ---------------------------------------------------------------- one base, in a process of its own


def measure_base(name: str, folder: str | None, runs: list[Path], data: Path) -> dict:
    """Return the sizes of a base model, and the speed of its runs by name."""
    from adapter_arena.models import bases, memory
    from adapter_arena.recipe import DEFAULT_BASE

    base = bases.find(folder or DEFAULT_BASE)
    sizes = {}
    for precision in ("nf4", "bf16", "fp32"):
        sizes[precision] = memory.estimate(base.full_config, base.architecture, precision).megabytes
    found = {
        "name": name,
        "parameters": memory.estimate(base.full_config, base.architecture).parameters,
        "is_decoder": base.architecture.pools_last_token,
        "megabytes": sizes,
        "runs": {},
    }
    for run in runs:
        measured = _measure_run(run, base, data)
        print_progress(f"{run.name}: {measured}")
        found["runs"][run.name] = results_of(run) | measured
    return found


def _measure_run(folder: Path, base, data: Path) -> dict:
    """Return the milliseconds of one text, the texts a second of many, and the training rows a second of a run."""
    from adapter_arena.adapters import store
    from adapter_arena.serve.engine import Engine
    from adapter_arena.train import recipes

    adapter = store.read(folder, base)
    dataset = str(data / adapter.results.dataset.id)
    recipe, _ = recipes.resolve(recipe=str(folder / "results.json"), base_model=base.id, dataset=dataset)
    texts = _texts(recipe)
    engine = Engine(base)
    engine.add(adapter)
    engine.merge(adapter.name)
    engine.predict(texts[:MANY_TEXTS])
    single = [_seconds(engine.predict, [text]) for text in texts[:SINGLE_TEXTS]]
    many = statistics.median(_seconds(engine.predict, texts[:MANY_TEXTS]) for _ in range(3))
    engine.close()
    return {
        "one_text_ms": 1000 * statistics.median(single),
        "texts_per_second": MANY_TEXTS / many,
        "training_rows_per_second": _training_speed(recipe, texts, len(adapter.labels)),
    }


def _texts(recipe) -> list[str]:
    """Return texts of the test split."""
    from adapter_arena.data import load

    return load.load_splits(recipe).test["text"].tolist()[:400]


def _seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def _training_speed(recipe, texts: list[str], labels: int) -> float:
    """Return the rows a second of TIMED_STEPS steps of the recipe's batch size."""
    import torch

    from adapter_arena.models import bases, compute, loading, tokens
    from adapter_arena.train import trainable

    tokenizer = loading.load_tokenizer(bases.find(recipe.base_model))
    model, _ = trainable.build(recipe, labels)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate)
    rows = [row.ids for row in tokens.encode(tokenizer, texts, recipe.max_length)]
    seconds = []
    for step in range(WARM_UP_STEPS + TIMED_STEPS):
        start = step * recipe.batch_size
        ids = rows[start : start + recipe.batch_size]
        batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        batch["labels"] = torch.arange(len(ids)) % labels
        begin = time.perf_counter()
        with compute.autocast(model):
            model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - begin)
    return recipe.batch_size * TIMED_STEPS / sum(seconds[WARM_UP_STEPS:])


# ---------------------------------------------------------------- the report


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's results and what was measured of it here, as comparison.json has them."""

    base: dict
    found: dict

    @property
    def data(self) -> str:
        """Name of the data set."""
        return self.found["dataset"]["id"]

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.found["recipe"]["method"]

    @property
    def key(self) -> tuple:
        """Data set, then base model by size, then method."""
        return self.data, self.base["parameters"], self.method

    def row(self, frozen_base: float) -> str:
        """Return the run's row of the table."""
        low, high = self.found["accuracy_ci95"]
        cells = [
            self.data,
            self.base["name"],
            self.method,
            f"**{_percent(self.found['accuracy'])}** ({_percent(low)}–{_percent(high)})",
            _percent(frozen_base),
            f"{self.found['trained_parameters'] / 1e6:.2f}",
            f"{self.found['training_rows_per_second']:.1f}",
            f"{self.found['peak_memory_mb']:,.0f}",
            f"{self.found['one_text_ms']:.0f}",
            f"{self.found['texts_per_second']:.0f}",
        ]
        return f"| {' | '.join(cells)} |"


def results_of(folder: Path) -> dict:
    """Return what the report and a repetition of the run need of its results.json."""
    found = json.loads((folder / "results.json").read_text())
    evaluation = found["evaluation"]
    baselines = {}
    for name, measured in evaluation.get("baselines", {}).items():  # which runs of earlier versions lack
        baselines[name] = measured["accuracy"]
    return {
        "recipe": found["recipe"],
        "base_model": found["base_model"],
        "dataset": found["dataset"],
        "trained_parameters": found["training"]["trainable_params"],
        "peak_memory_mb": found["training"]["peak_memory_mb"],
        "accuracy": evaluation["accuracy"],
        "accuracy_ci95": evaluation["accuracy_ci95"],
        "test_rows": evaluation["n"],
        "test_sha256": evaluation["test_sha256"],
        "correct": evaluation["correct"],
        "baselines": baselines,
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def report(comparison: dict) -> str:
    """Return the report in Markdown."""
    runs = []
    for base in comparison["bases"]:
        runs += [Run(base, found) for found in base["runs"].values()]
    runs.sort(key=lambda run: run.key)
    budgets = {}
    frozen_bases = {}
    for run in runs:
        baselines = run.found["baselines"]
        if baselines:
            rows = run.found["dataset"]["splits"]
            budgets[run.data] = (
                f"{run.data}: {rows['train']:,} training rows, {run.found['recipe']['epochs']} epoch, "
                f"{rows['test']:,} test rows, TF-IDF {_percent(baselines['tfidf'])} %"
            )
            frozen_bases[run.key[:2]] = baselines["probe"]
    lines = [
        "# Encoders and decoders",
        "",
        f"Measured on {comparison['device']}. Every run has the same budget on a data set; [comparison.json]"
        "(comparison.json) has its recipe, the hashes of its data and base model, and which test rows it answers "
        "correctly. Accuracy is that of the adapter on the 4-bit base, with its 95 % interval (Wilson), one seed. "
        "*Frozen base*: logistic regression on the embeddings of the untrained base, same rows.",
        "",
        f"{'; '.join(budgets.values())}.",
        "",
        "| data | base | method | accuracy, % | frozen base, % | trained parameters, M | training, rows/s | peak memory, MB | one "
        "text, ms | texts/s |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
        *[run.row(frozen_bases[run.key[:2]]) for run in runs],
        "",
        "## Which differences may be chance",
        "",
        "McNemar tests of all pairs of runs on a data set, Holm-corrected, 5 % level.",
        "",
        "| data | pairs on one base | significant | smallest p | pairs on two bases | significant | smallest p |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for data, group in itertools.groupby(runs, key=lambda run: run.data):
        lines.append(_tests(data, list(group)))
    lines += [
        "",
        "## Memory of the base models, MB",
        "",
        "| base | kind | parameters, M | 4 bits | 16 bits | 32 bits |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for base in comparison["bases"]:
        sizes = base["megabytes"]
        kind = "decoder" if base["is_decoder"] else "encoder"
        lines.append(
            f"| {base['name']} | {kind} | {base['parameters'] / 1e6:.1f} | {sizes['nf4']:.0f} "
            f"| {sizes['bf16']:.0f} | {sizes['fp32']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _tests(data: str, runs: list[Run]) -> str:
    """Return the row of a data set in the table of tests. Raises ValueError if its runs have different test rows."""
    from adapter_arena import results, stats

    if len({run.found["test_sha256"] for run in runs}) > 1:
        raise ValueError(f"The runs on {data} were not measured on the same test rows.")
    correct = [results.unpack_rows(run.found["correct"], run.found["test_rows"]) for run in runs]
    pairs = list(itertools.combinations(range(len(runs)), 2))
    p_values = stats.holm([stats.mcnemar(correct[first], correct[second]) for first, second in pairs])
    on_one_base = []
    on_two_bases = []
    for (first, second), p in zip(pairs, p_values):
        is_one_base = runs[first].base["name"] == runs[second].base["name"]
        (on_one_base if is_one_base else on_two_bases).append(p)
    cells = [data]
    for found in (on_one_base, on_two_bases):
        significant = sum(p < 0.05 for p in found)
        smallest = "–"
        if found:
            smallest = f"{min(found):.2f}" if min(found) >= 0.01 else "below 0.01"
        cells += [str(len(found)), str(significant), smallest]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure all bases and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapters", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--base", action="append", required=True, metavar="NAME[=FOLDER]")
    arguments = parser.parse_args()
    folders = sorted(path for path in arguments.adapters.iterdir() if (path / "results.json").is_file())
    measured = []
    for entry in arguments.base:
        name, _, folder = entry.partition("=")
        runs = [path for path in folders if path.name.startswith(f"{name}-")]
        options = (name, folder or None, runs, arguments.data)
        measured.append(run_in_new_process(measure_base, *options, initializer=runtime.configure))
    from adapter_arena import machine

    comparison = {"device": machine.device_name(), "bases": measured}
    TARGET.mkdir(exist_ok=True)
    (TARGET / "comparison.json").write_text(json.dumps(comparison, indent=1) + "\n")
    (TARGET / "report.md").write_text(report(comparison))
    print((TARGET / "report.md").read_text())


if __name__ == "__main__":
    main()
