"""The model card of an adapter, made from its results and nothing else."""

from pathlib import Path

import jinja2

from . import bases, methods
from .results import Results

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
        skipped=list(known.architecture.head) if known else ["classifier"],
        pct=lambda share: f"{100 * share:.2f} %",
    )


def command(found: Results) -> str:
    """The command line that repeats the run: results.json holds the whole recipe."""
    local = "" if "/" in found.dataset.id or found.dataset.id == "sample" else f" --dataset path/to/{found.dataset.id}"
    return f"python train_space.py --recipe adapters/{found.name}/results.json{local}"


def write(found: Results, folder: Path) -> None:
    """Write README.md into the adapter folder, over the template card that PEFT leaves there."""
    (folder / "README.md").write_text(render(found), encoding="utf-8")
