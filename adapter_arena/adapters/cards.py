"""The model card of an adapter, made from its results and nothing else."""

import base64
import html
import json
import re
import shlex
from pathlib import Path

import jinja2
import yaml

from adapter_arena.adapters import plots, store
from adapter_arena.errors import AdapterError
from adapter_arena.models import bases, methods
from adapter_arena.results import Results, machines, read

_TEMPLATE = Path(__file__).with_name("card.md.jinja")
_METRICS = {
    "accuracy": "Accuracy",
    "f1": "F1, macro",
    "precision": "Precision, macro",
    "recall": "Recall, macro",
    "ece": "Expected calibration error",
}
_LARGEST_PICTURE = 500_000
_MOST_COLUMNS = 12
"""Labels up to which the confusion matrix is also a table."""


def render(found: Results) -> str:
    """The card as Markdown with the Hub's YAML metadata in front. Raises AdapterError for results without a part of it."""
    try:
        return _render(found)
    except (jinja2.UndefinedError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise AdapterError(f"{found.name}: results.json lacks what a card shows ({error}): train it again.") from error


def _render(found: Results) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"cell": cell, "yaml": _yaml, "fence": fence, "pct": _percent, "json": _json}
    known, e = bases.BASES.get(found.base_model.id), found.evaluation
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        r=found,
        t=found.training,
        e=e,
        metadata=metadata(found),
        method=methods.METHODS[found.method],
        where=found.hub_id or f"adapters/{found.name}",
        text=next((example.text for example in e.examples.values() if example.text), "A quiet, moving film."),
        command=command(found),
        pictures=plots.names(found),
        on_hub="/" in found.dataset.id,
        base_on_hub=known is not None,
        most_columns=_MOST_COLUMNS,
        skipped=[known.architecture.outside_encoder] if known else ["classifier"],
        dtype="bfloat16" if known is None or known.architecture.autocast else "float32",
        quote=shlex.quote,
    )


def metadata(found: Results) -> dict:
    """What the Hub reads: the base, the data, every metric with the ends of its interval, examples, CO2 if measured."""
    e, t, is_full = found.evaluation, found.training, found.method == "full"
    metrics = []
    for kind, name in _METRICS.items():
        metrics.append({"type": kind, "value": float(getattr(e, kind)), "name": name})
        for end, value in zip(("low", "high"), getattr(e, f"{kind}_ci95", None) or []):
            metrics.append(
                {"type": f"{kind}_ci95_{end}", "value": float(value), "name": f"{name}, 95 % interval, {end}"}
            )
    dataset = {"name": found.dataset.id, "type": found.dataset.id, "split": e.split, "revision": found.dataset.revision}
    task = {"type": "text-classification", "name": "Text Classification"}
    examples = {label: example.text for label, example in e.examples.items() if example.text}
    fields = {
        "base_model": found.base_model.id,
        "base_model_relation": "finetune" if is_full else "adapter",
        "library_name": "transformers" if is_full else "peft",
        "pipeline_tag": "text-classification",
        "language": "en",
        "license": "apache-2.0",
        "datasets": [found.dataset.id] if "/" in found.dataset.id else None,
        "metrics": ["accuracy", "f1", "precision", "recall"],
        "tags": ["adapter-arena", found.method, "text-classification"],
        "widget": [{"text": text, "example_title": label} for label, text in examples.items()],
        "co2_eq_emissions": t.co2_grams is not None
        and {
            "emissions": t.co2_grams,
            "source": "CodeCarbon",
            "training_type": "fine-tuning",
            "hardware_used": t.device,
        },
        "model-index": [{"name": found.name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}],
    }
    return {key: value for key, value in fields.items() if value}


def command(found: Results) -> str:
    """The command line that repeats the run from the card's recipe.yaml; local data and bases must be named again."""
    words = "python train_space.py --recipe recipe.yaml"
    d = found.dataset
    if (d.source or {"sample": "made"}.get(d.id, "local")) == "local" and "/" not in d.id:
        words += f" --dataset {shlex.quote('path/to/' + d.id)}"
    if found.base_model.id not in bases.BASES:
        words += f" --base-model {shlex.quote('path/to/' + found.base_model.id)}"
    return words


def cell(value: object) -> str:
    """Text of others as Markdown shows it literally, in a table cell too: one line, no markup, no HTML."""
    line = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", line)


def fence(content: str, language: str = "") -> str:
    """A Markdown code block that no content can end: its fence is longer than any row of backticks in it."""
    ticks = "`" * max([3, *(1 + len(row) for row in re.findall("`+", content))])
    return f"{ticks}{language}\n{content.strip()}\n{ticks}"


def _yaml(content: dict) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _json(value: object) -> str:
    """A literal that Python and JSON both read, on one line."""
    return json.dumps(value, ensure_ascii=False)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def write(found: Results, folder: Path) -> None:
    """Write the pictures and README.md into the adapter folder, over the template card that PEFT leaves there."""
    plots.write(found, folder)
    (folder / "README.md").write_text(render(found), encoding="utf-8")


def snippets(found: Results) -> dict[str, str]:
    """The card's own code, by what it is for: `peft`, `pipeline`, `client`, `curl`, `recipe`, `command`."""
    code = re.findall(r"^(`{3,})\w*\n(.*?)\n\1$", render(found).partition("## Use it")[2], re.DOTALL | re.MULTILINE)
    return dict(zip(("peft", "pipeline", "client", "curl", "recipe", "command"), (block for _, block in code)))


def body(folder: Path, limit: int) -> str | None:
    """The card for a page: without metadata, pictures in it, cut after `limit` characters; None where there is none."""
    path = folder / "README.md"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(limit + 1)
    if len(text) > limit:
        text = text[:limit] + "\n\n… cut here: the card is too long to show."
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    return re.sub(r"\]\(([\w-]+\.png)\)", lambda link: f"]({_inline(folder / link[1]) or link[1]})", text)


def _inline(picture: Path) -> str | None:
    if not picture.is_file() or picture.stat().st_size > _LARGEST_PICTURE:
        return None
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()


def table(all_results: list[Results]) -> str:
    """The table of measurements, one row an adapter, baselines below, and which machines trained them."""
    lines = [
        "| adapter | trained parameters | of all | train | texts/s | peak memory | accuracy (95 % interval) | F1 | ECE |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    baselines = {}
    for r in all_results:
        t, e = r.training, r.evaluation
        low, high = (100 * bound for bound in e.accuracy_ci95)
        lines.append(
            f"| `{r.name}` | {t.trainable_params:,} | {t.trainable_percent:.2f} % | {t.seconds / 60:.1f} min | "
            f"{t.samples_per_second:.1f} | {t.peak_memory_mb / 1000:.1f} GB | "
            f"**{100 * e.accuracy:.2f} %** ({low:.2f}–{high:.2f}) | {e.f1:.3f} | {e.ece:.3f} |"
        )
        baselines[r.dataset.id] = e.baseline
    for dataset, baseline in baselines.items():
        lines.append(f"| untrained, {dataset} | 0 | | | | | {100 * baseline.accuracy:.2f} % | {baseline.f1:.3f} | |")
    note = machines({f"`{r.name}`": r.training.device for r in all_results})
    return "\n".join([*lines, "", note] if note else lines)


def refresh(root: Path) -> None:
    """Write every card under `root/adapters` again from its results."""
    for folder in store.folders(root / store.FOLDER):
        if found := read(folder):
            write(found, folder)


if __name__ == "__main__":  # python -m adapter_arena.adapters.cards, after the template or a result changed
    refresh(Path(__file__).parent.parent.parent)
