"""The model card of an adapter, made from its results and nothing else."""

from pathlib import Path

import jinja2

from . import bases, methods, store
from .results import Results, read

TABLE_START, TABLE_END = "<!-- measured: python -m peft_arena.cards -->", "<!-- end -->"
_TEMPLATE = Path(__file__).with_name("card.md.jinja")


def render(found: Results) -> str:
    """The card as Markdown with the Hub's YAML metadata in front."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    known = bases.BASES.get(found.base_model.id)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        r=found,
        t=found.training,
        e=found.evaluation,
        method=methods.METHODS[found.method],
        command=command(found),
        skipped=[known.architecture.outside_encoder] if known else ["classifier"],
        pct=lambda share: f"{100 * share:.2f} %",
    )


def command(found: Results) -> str:
    """The command line that repeats the run: results.json holds the whole recipe."""
    local = "" if "/" in found.dataset.id or found.dataset.id == "sample" else f" --dataset path/to/{found.dataset.id}"
    return f"python train_space.py --recipe adapters/{found.name}/results.json{local}"


def write(found: Results, folder: Path) -> None:
    """Write README.md into the adapter folder, over the template card that PEFT leaves there."""
    (folder / "README.md").write_text(render(found), encoding="utf-8")


def table(all_results: list[Results]) -> str:
    """The README's table of measurements, one row an adapter, baselines below."""
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
    return "\n".join(lines)


def refresh(root: Path) -> None:
    """Write every card under `root/adapters` and the README's table again from the results."""
    all_results = []
    for folder in store.folders(root / store.FOLDER):
        if found := read(folder):
            write(found, folder)
            all_results.append(found)
    readme = root / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(TABLE_START)
    after = rest.partition(TABLE_END)[2]
    readme.write_text(f"{before}{TABLE_START}\n{table(all_results)}\n{TABLE_END}{after}", encoding="utf-8")


if __name__ == "__main__":  # python -m peft_arena.cards, after the template or a result changed
    refresh(Path(__file__).parent.parent)
