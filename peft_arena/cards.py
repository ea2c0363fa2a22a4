"""The model card of an adapter, made from its results and nothing else."""

from pathlib import Path

import jinja2

from .results import Results

_TEMPLATE = Path(__file__).with_name("card.md.jinja")


def render(found: Results) -> str:
    """The card as Markdown with the Hub's YAML metadata in front."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        r=found, t=found.training, e=found.evaluation
    )


def write(found: Results, folder: Path) -> None:
    """Write README.md into the adapter folder, over the template card that PEFT leaves there."""
    (folder / "README.md").write_text(render(found), encoding="utf-8")
