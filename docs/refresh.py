"""Write the generated parts of README.md and docs/*.md again, from the files that the commands wrote.

    python docs/refresh.py

A generated part lies between `<!-- begin NAME -->` and `<!-- end NAME -->`. A test checks that every part is current.
"""

import json
import re
import runpy
import statistics
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from refused_types import NOT_BUILT, REFUSED_BY_TREE  # noqa: E402

from adapter_arena import results, settings, tasks  # noqa: E402
from adapter_arena.adapters import cards, store  # noqa: E402
from adapter_arena.models import bases, inspect, memory, methods  # noqa: E402

TABLE_METHODS = ("full", "lora", "qlora", "ia3")
SUMMARY_METHODS = ("full", "lora", "qlora", "dora", "ia3", "ln")
PEERS = {
    "Adapter Arena": "**Adapter Arena**",
    "textbook": "bitsandbytes 4 bits, `set_adapter`",
    "pipeline": "`transformers` pipeline, one model an adapter",
    "ONNX Runtime": "ONNX Runtime, one merged model",
    "ONNX Runtime, int8": "ONNX Runtime int8, one merged model",
    "OpenVINO": "OpenVINO, one merged model",
}


def read_json(path: str) -> dict:
    """Return the content of a JSON file of the repository."""
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def summary() -> str:
    """Return the README's table: what each method costs and reaches on IMDb."""
    rows = {row["method"]: row for row in read_json("docs/imdb-20k/comparison.json")["rows"]}
    lines = [
        "| method | trained parameters | minutes on two CPU cores | accuracy, % (95 % interval) | seeds |",
        "|---|---:|---:|---:|---:|",
    ]
    for method in SUMMARY_METHODS:
        row = rows[method]
        low, high = row["test_ci95"]
        lines.append(
            f"| {row['title']} | {row['trainable_params']:,} ({row['trainable_percent']:.1f} %) "
            f"| {row['train_seconds'] / 60:.1f} "
            f"| **{100 * row['accuracy']:.1f}** ({100 * low:.1f}–{100 * high:.1f}) | {len(row['seeds'])} |"
        )
    return "\n".join(lines)


def serving_summary() -> str:
    """Return the README's benchmark table: the newest kind of CPU and AVX2 side by side."""
    measured = read_json("benchmarks/serving.json")
    lines = [
        "| | 8 adapters, reviews/s | one adapter, reviews/s | one text of 64 tokens, ms |",
        "|---|---:|---:|---:|",
    ]
    for peer, title in PEERS.items():
        newest, avx2 = (measured[kind]["peers"][peer] for kind in ("bf16", "avx2"))
        cells = []
        for key in ("mixed", "one", "single_64_ms"):
            if newest[key]:
                cells.append(f"{statistics.median(newest[key]):.1f} / {statistics.median(avx2[key]):.1f}")
            else:
                cells.append("–")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def adapters() -> str:
    """Return the table of the shipped adapters."""
    found = [results.read(folder) for folder in store.folders(ROOT / store.FOLDER)]
    return cards.table([one for one in found if one is not None])


def methods_and_baselines() -> str:
    """Return what fine-tuning gains over models without it on each data set, on the same rows.

    The methods' scores are those of the comparison in `docs/tasks`, else of the shipped adapters.
    """
    lines = [
        "| data set, score | test rows | TF-IDF | frozen base | "
        + " | ".join(methods.METHODS[name].title for name in TABLE_METHODS)
        + " |",
        "|---|---:|" + "---:|" * (2 + len(TABLE_METHODS)),
    ]
    shipped: dict[str, dict[str, results.Results]] = {}
    for folder in store.folders(ROOT / store.FOLDER):
        found = results.read(folder)
        shipped.setdefault(found.dataset.id, {})[found.method] = found
    for dataset, by_method in shipped.items():
        found = by_method["lora"]
        metric = tasks.of(found).objective
        scores = {method: results.score_of(one, metric) for method, one in by_method.items()}
        title = dataset
        if (ROOT / "docs" / "tasks" / dataset).is_dir():
            title = f"[{dataset}](docs/tasks/{dataset}/report.md)"
            for row in read_json(f"docs/tasks/{dataset}/comparison.json")["rows"]:
                measured = row["scores"][metric.name]
                scores[row["method"]] = (measured["mean"], measured["test_ci95"])
        cells = [f"{title}, {metric.column}", f"{found.evaluation.n:,}"]
        for baseline in ("tfidf", "probe"):
            value, _ = results.score_in(found.evaluation.baselines[baseline], metric)
            cells.append(metric.number(value))
        cells += [_with_interval(metric, *scores[method]) if method in scores else "" for method in TABLE_METHODS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_interval(metric: tasks.Metric, value: float, interval: list[float]) -> str:
    low, high = interval
    return f"**{metric.number(value)}** ({metric.number(low)}–{metric.number(high)})"


def benchmark(name: str) -> Callable[[], str]:
    """Return a function that returns the table of a benchmark's last run."""

    def table() -> str:
        script = ROOT / "benchmarks" / f"{name}.py"
        output = StringIO()
        arguments, path = sys.argv, list(sys.path)
        sys.argv = [str(script), "--table"]
        sys.path.insert(0, str(script.parent))
        try:
            with redirect_stdout(output):
                runpy.run_path(str(script), run_name="__main__")
        finally:
            sys.argv = arguments
            sys.path[:] = path
        return output.getvalue().strip()

    return table


def known_bases() -> str:
    """Return the table of the known base models and their sizes."""
    lines = [
        "| base model | type | parameters | MB in 4 bits | MB in 16 bits |",
        "|---|---|---:|---:|---:|",
    ]
    for base in bases.BASES.values():
        in_4_bits = memory.estimate(base.full_config, base.architecture, "nf4")
        in_16_bits = memory.estimate(base.full_config, base.architecture, "bf16")
        lines.append(
            f"| `{base.id}` | {base.model_type} | {in_4_bits.parameters:,} | {in_4_bits.megabytes:,.0f} "
            f"| {in_16_bits.megabytes:,.0f} |"
        )
    return "\n".join(lines)


def supported_types() -> str:
    """Return the model types that train and serve, which a test checks with a tiny model of each."""
    refused = {**inspect.REFUSED, **REFUSED_BY_TREE, **NOT_BUILT}
    names = [f"`{name}`" for name in sorted(inspect.KINDS) if name not in refused]
    return f"{len(names)} types: {', '.join(names)}."


def refused_types() -> str:
    """Return the table of the model types that are refused."""
    lines = ["| type | why |", "|---|---|"]
    types_of: dict[str, list[str]] = {}
    for name, reason in {**inspect.REFUSED, **REFUSED_BY_TREE, **NOT_BUILT}.items():
        types_of.setdefault(reason, []).append(f"`{name}`")
    for reason, names in types_of.items():
        lines.append(f"| {', '.join(names)} | {reason} |")
    return "\n".join(lines)


PARTS = {
    "summary": summary,
    "serving-summary": serving_summary,
    "adapters": adapters,
    "methods-and-baselines": methods_and_baselines,
    "serving": benchmark("serving"),
    "training": benchmark("training"),
    "rows": benchmark("rows"),
    "known-bases": known_bases,
    "supported-types": supported_types,
    "refused-types": refused_types,
}


def documents() -> list[Path]:
    """Return the documents that may have generated parts."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def refreshed(text: str) -> str:
    """Return the text with its generated parts written again."""

    def write_part(match: re.Match) -> str:
        name = match.group(1)
        return f"<!-- begin {name} -->\n{PARTS[name]()}\n<!-- end {name} -->"

    return re.sub(r"<!-- begin ([\w-]+) -->\n.*?<!-- end \1 -->", write_part, text, flags=re.DOTALL)


def main() -> None:
    """Write every document again."""
    for path in documents():
        path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / "docs" / "settings.md").write_text(settings.document(), encoding="utf-8")


if __name__ == "__main__":
    main()
