import re

import torch
import yaml
from conftest import ROOT

from peft_arena import bases, cards, results, store
from peft_arena.engine import Engine


def test_card_shows_the_numbers_of_its_results(trained):
    found = results.read(trained)
    card = (trained / "README.md").read_text()
    front = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1])
    metrics = {m["type"]: m["value"] for m in front["model-index"][0]["results"][0]["metrics"]}
    assert front["base_model"] == found.base_model.id
    assert front["library_name"] == "peft"
    assert metrics == {k: round(getattr(found.evaluation, k), 4) for k in ("accuracy", "f1", "precision", "recall")}
    assert f"**{100 * found.evaluation.accuracy:.2f} %**" in card
    assert f"{found.training.trainable_params:,}" in card
    assert found.dataset.revision in card
    assert "None" not in card.replace("revision `None`", "")


def test_usage_snippet_gives_the_served_answer():
    """The card's own code, with ids replaced by folders, since no test reaches the Hub."""
    folder = store.folders(ROOT / "adapters")[-1]
    base = bases.find(bases.DEFAULT_BASE)
    code = re.search(r"## Use it\n\n```python\n(.*?)```", cards.render(results.read(folder)), re.DOTALL)[1]
    code = code.replace(f'"{folder.name}"', f'"{folder}"').replace(f'"{base.id}"', f'"{bases.locate(base)}"')
    scope: dict = {}
    exec(code, scope)
    text = "A wonderful film, I loved every minute of it."
    logits = scope["model"](**scope["tokenizer"](text, return_tensors="pt")).logits[0].float()
    engine = Engine(base)
    engine.add_folder(folder)
    assert torch.allclose(logits, engine.logits([text])[0], atol=0.1)


def test_full_card_uses_plain_transformers(trained):
    found = results.read(trained)
    found.method = "full"
    card = cards.render(found)
    assert "library_name: transformers" in card
    assert "PeftModel" not in card


def test_command_repeats_the_run(trained):
    assert cards.command(results.read(trained)) == "python train_space.py --recipe adapters/tiny-lora/results.json"


def test_readme_table_and_cards_are_made_from_the_shipped_results():
    found = [results.read(folder) for folder in store.folders(ROOT / "adapters")]
    readme = (ROOT / "README.md").read_text()
    assert cards.table([r for r in found if r]) in readme
    for r in found:
        assert (ROOT / "adapters" / r.name / "README.md").read_text() == cards.render(r), (
            "run python -m peft_arena.cards"
        )


def test_readme_tree_names_every_module():
    tree = (ROOT / "README.md").read_text().split("## Files")[1]
    assert [path.name for path in (ROOT / "peft_arena").glob("[a-z]*.*") if path.name not in tree] == []
