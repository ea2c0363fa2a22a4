"""Model cards: golden file, metadata, escaping, pictures, and the code on the card."""

import dataclasses
import html
import json
import os
import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from matplotlib import font_manager
from matplotlib.figure import Figure

from adapter_arena import results
from adapter_arena.adapters import cards, fonts, plots, store
from adapter_arena.models import bases
from adapter_arena.recipe import DEFAULT_BASE
from adapter_arena.results import (
    BaseFacts,
    Baseline,
    Bin,
    ClassMetrics,
    DatasetFacts,
    Epoch,
    Evaluation,
    Example,
    Majority,
    Mistake,
    Results,
    SimpleBaseline,
    Slice,
    Training,
)
from adapter_arena.serve.engine import Engine
from adapter_arena.train import recipes

GOLDEN = Path(__file__).parent / "golden" / "card.md"
ALLOWED = {"h1", "h2", "p", "a", "strong", "code", "img", "table", "thead", "tbody", "tr", "th", "td"}
TEXT = "A wonderful film, I loved every minute of it."


@pytest.fixture
def fixed() -> Results:
    """Results with every field set, the same on every machine."""
    recipe, _ = recipes.resolve("lora", n_train=800, n_test=40, learning_rate=5e-5, name="fixed-lora")
    return Results(
        name="fixed-lora",
        method="lora",
        recipe=dataclasses.asdict(recipe),
        labels=["negative", "positive"],
        base_model=BaseFacts(DEFAULT_BASE, "c9745ed", "53aa51"),
        dataset=DatasetFacts("stanfordnlp/imdb", "e62816", "hub", {"train": 800, "validation": 80, "test": 40}, 1, 2, 3),
        training=Training(
            trainable_params=812_162,
            total_params=23_377_538,
            trainable_percent=3.474,
            seconds=66.0,
            samples_per_second=24.2,
            peak_memory_mb=1812.5,
            device="cpu: 2 cores",
            epochs=[Epoch(1, 0.52, 0.41, 0.8, 0.795), Epoch(2, 0.31, 0.33, 0.85, 0.849)],
            losses=[[5.0 * i, 0.7 - 0.02 * i] for i in range(1, 21)],
            co2_grams=0.6543,
            energy_kwh=0.001234,
        ),
        evaluation=Evaluation(
            split="test",
            n=40,
            served_as="nf4",
            baseline=Baseline(0.5, 1 / 3, [0.352, 0.648], [0.26, 0.394], [[20, 0], [20, 0]]),
            accuracy=0.9,
            accuracy_ci95=[0.7695, 0.9604],
            f1=0.8997,
            precision=0.904,
            recall=0.9,
            per_class={
                "negative": ClassMetrics(0.95, 0.85, 0.895, 20, [0.78, 0.98]),
                "positive": ClassMetrics(0.86, 0.95, 0.905, 20, [0.8, 0.98]),
            },
            confusion_matrix=[[17, 3], [1, 19]],
            ece=0.0321,
            ece_uncalibrated=0.0567,
            temperature=1.2345,
            seconds=0.5,
            f1_ci95=[0.79, 0.98],
            precision_ci95=[0.81, 0.98],
            recall_ci95=[0.8, 0.98],
            mistakes=[
                Mistake(7, "Oh great, another <br /> sequel | just what we *needed*.", "negative", "positive", 0.971, 14, False),
                Mistake(31, None, "positive", "negative", 0.802, 256, True),
            ],
            examples={"negative": Example(4, "I want those hours back.", 0.99), "positive": Example(9, None, 0.98)},
            slices=[
                Slice("tokens", "12–200", 30, 28 / 30, [0.787, 0.982]),
                Slice("tokens", "201–256", 10, 0.8, [0.49, 0.943]),
            ],
            reliability=[Bin(0.62, 0.6, [0.23, 0.88], 5), Bin(0.95, 0.943, [0.814, 0.984], 35)],
            correct="ff" * 5,
            test_sha256="ab12",
            measured_at="2026-11-22T10:00:00+00:00",
            packages={"torch": "2.14.0", "peft": "0.22.0"},
        ),
        environment={
            "packages": {"torch": "2.13.0", "peft": "0.21.2"},
            "python": "3.12.1",
            "platform": "Linux x86_64",
            "hardware": "cpu: 2 cores, 25 GB",
            "code_revision": "014c730",
        },
        created_at="2026-11-21T03:08:44+00:00",
        megabytes=3.26,
        hub_id="alice/fixed-lora",
    )  # fmt: skip


NEW_FIELDS = {
    "training": ("compute", "stages", "losses", "learning_rates", "memory_mb", "co2_grams", "energy_kwh"),
    "dataset": ("source", "unlabelled_removed", "contradictions_removed"),
    "evaluation": (
        "compute",
        "f1_ci95",
        "precision_ci95",
        "recall_ci95",
        "majority",
        "baselines",
        "mistakes",
        "examples",
        "slices",
        "reliability",
        "correct",
        "test_sha256",
        "measured_at",
        "packages",
    ),
}


def of_an_earlier_version(found: Results, folder: Path) -> Results:
    """Return the results as they are read after an earlier version of the project wrote them."""
    found.write(folder)
    path = folder / results.FILE
    content = json.loads(path.read_text())
    del content["megabytes"], content["hub_id"]
    for part, fields in NEW_FIELDS.items():
        for field in fields:
            content[part].pop(field, None)  # those without a value are not written
    content["evaluation"]["baseline"] = {"accuracy": 0.5, "f1": 1 / 3}
    for row in content["evaluation"]["per_class"].values():
        del row["f1_ci95"]
    path.write_text(json.dumps(content))
    return results.read(folder)


def test_card_is_the_golden_one(fixed):
    """To renew it after a change of the template: RENEW_GOLDEN=1 pytest tests/adapters/test_cards.py; read the diff."""
    card = cards.render(fixed)
    if os.environ.get("RENEW_GOLDEN"):
        GOLDEN.write_text(card, encoding="utf-8")
    assert card == GOLDEN.read_text(encoding="utf-8")


def test_card_shows_the_numbers_of_its_results(trained):
    found = results.read(trained)
    card = (trained / "README.md").read_text()
    assert f"**{100 * found.evaluation.accuracy:.2f} %**" in card
    assert f"{found.training.trainable_params:,}" in card
    assert found.dataset.revision in card
    assert "None" not in card.replace("revision `None`", "").replace("top_k=None", "")
    assert all((trained / name).is_file() for name in re.findall(r"\]\((\w+\.png)\)", card))
    assert len(plots.names(found)) == 3


def test_hub_client_reads_all_metadata(fixed, tmp_path):
    cards.write(fixed, tmp_path)
    data = ModelCard.load(tmp_path / "README.md").data
    expected = {"ece": fixed.evaluation.ece}
    for metric in ("accuracy", "f1", "precision", "recall"):
        low, high = getattr(fixed.evaluation, f"{metric}_ci95")
        expected[metric] = getattr(fixed.evaluation, metric)
        expected[f"{metric}_ci95_low"] = low
        expected[f"{metric}_ci95_high"] = high
    assert {row.metric_type: row.metric_value for row in data.eval_results} == expected
    for row in data.eval_results:
        assert (row.dataset_type, row.dataset_split, row.dataset_revision) == ("stanfordnlp/imdb", "test", "e62816")
    assert (data.base_model, data.base_model_relation, data.library_name) == (DEFAULT_BASE, "adapter", "peft")
    assert data.datasets == ["stanfordnlp/imdb"]
    assert data.widget == [{"text": "I want those hours back.", "example_title": "negative"}]
    assert data.co2_eq_emissions["emissions"] == 0.6543


def simple_baseline(accuracy: float, accuracy_ci95: list, f1: float, f1_ci95: list, **others) -> SimpleBaseline:
    scores = {"accuracy": accuracy, "accuracy_ci95": accuracy_ci95, "f1": f1, "f1_ci95": f1_ci95}
    return SimpleBaseline(**scores, correct="ff" * 5, **others)


def test_card_and_table_show_what_is_reached_without_fine_tuning(fixed):
    plain = cards.table([fixed]).splitlines()
    majority = simple_baseline(0.5, [0.352, 0.648], 1 / 3, [0.26, 0.394], seconds=0.001, train_rows=800)
    tfidf = simple_baseline(0.85, [0.709, 0.929], 0.849, [0.73, 0.95], seconds=42.0, train_rows=800, c=3.0)
    probe = simple_baseline(0.8, [0.652, 0.895], 0.799, [0.67, 0.91], seconds=61.0, train_rows=500, c=0.001)
    fixed.evaluation.baselines = {"majority": majority, "tfidf": tfidf, "probe": probe}
    card = cards.render(fixed)
    assert (
        "| | TF-IDF + logistic regression | Frozen base + logistic regression | untrained | this adapter |\n|---|---:|---:|---:|---:|\n"
        in card
    )
    assert "| accuracy | 85.00 % (70.90 % to 92.90 %) | 80.00 % (65.20 % to 89.50 %) | 50.00 % (" in card
    assert "| precision, macro | | | | 0.904 (" in card
    assert (
        "TF-IDF + logistic regression (trained on 800 texts, C 3 chosen on validation, 42 s), Frozen base + logistic regression (trained on 500 texts, C 0.001 chosen on validation, 61 s)."
        in card
    )
    assert [line for line in cards.table([fixed]).splitlines() if line not in plain] == [
        "| Majority class, stanfordnlp/imdb | | | | | | 50.00 % (35.20–64.80) | 0.333 | |",
        "| TF-IDF + logistic regression, stanfordnlp/imdb | | | 0.7 min | | | 85.00 % (70.90–92.90) | 0.849 | |",
        "| Frozen base + logistic regression, stanfordnlp/imdb | | | 1.0 min | | | 80.00 % (65.20–89.50) | 0.799 | |",
    ]
    assert cards.table([fixed]).splitlines()[-1].startswith("| untrained, ")


def test_card_omits_local_data_and_unmeasured_co2(trained):
    data = ModelCard.load(trained / "README.md").data
    assert data.datasets is None
    assert "co2_eq_emissions" not in data


def test_card_of_older_results_omits_new_fields(fixed, tmp_path):
    old = of_an_earlier_version(fixed, tmp_path)
    cards.write(old, tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "## Accuracy by group" not in card
    assert "mistakes" not in card
    assert "CodeCarbon" not in card
    assert "reliability.png" not in card
    assert "alice" not in card
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["confusion_matrix.png", "learning_curve.png"]
    assert "adapters/fixed-lora" in card


def test_texts_of_others_are_escaped(fixed, tmp_path):
    bad = "<script>alert(1)</script> | `code` ![x](http://x) \\| a\n\n---\n# head\n```\n$x$"
    fixed.name = fixed.hub_id = fixed.dataset.id = bad
    fixed.labels = [bad, "positive"]
    fixed.recipe |= {"dataset": bad, "label_names": {"0": bad}}
    e = fixed.evaluation
    e.per_class = {bad: e.per_class["negative"], "positive": e.per_class["positive"]}
    e.examples = {bad: Example(1, bad, 0.9)}
    e.mistakes = [Mistake(1, bad, bad, "positive", 0.9, 9, True)]
    cards.write(fixed, tmp_path)
    loaded = ModelCard.load(tmp_path / "README.md")
    assert loaded.data.widget[0] == {"text": bad, "example_title": bad}
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(loaded.text)
    prose = re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)
    assert set(re.findall(r"<(\w+)", prose)) <= ALLOWED
    assert "<h1>head" not in prose
    assert prose.count("<img") == len(plots.names(fixed))
    assert "http://x" not in re.findall(r'(?:src|href)="([^"]*)"', prose)
    shown = html.escape(" ".join(bad.split()))
    mistake = re.findall(r"<td.*?>(.*?)</td>", prose.split("mistakes</h2>")[1].split("</table>")[0])
    assert mistake == ["90.00 %", shown, "positive", "9, truncated", shown]


def test_fence_is_longer_than_backticks_in_its_content():
    assert cards.fence("a\n````\nb") == "`````\na\n````\nb\n`````"


def test_card_shows_the_majority_class_and_says_what_the_adapter_cannot_do(fixed):
    before = cards.render(fixed)
    fixed.evaluation.majority = Majority("positive", 0.5, 1 / 3)
    fixed.dataset.unlabelled_removed = 4
    fixed.dataset.contradictions_removed = 6
    card = cards.render(fixed)
    assert "Do not rely on it" not in card
    assert "always answering positive 50.00 %" in card
    assert "| accuracy | 50.00 % | 50.00 % (35.20 % to 64.80 %) | **90.00 %**" in card
    assert "| F1, macro | 0.333 | 0.333 (0.260 to 0.394) | 0.900" in card
    assert "3 also in a later split, 4 without a label, 6 with contradicting labels." in card
    fixed.evaluation.confusion_matrix = [[20, 0], [20, 0]]
    fixed.evaluation.accuracy_ci95 = [0.352, 0.648]
    card = cards.render(fixed)
    assert "**Do not rely on it:** This adapter never predicts 'positive' (20 test texts). Its accuracy" in card
    fixed.evaluation.majority = fixed.dataset.unlabelled_removed = fixed.dataset.contradictions_removed = None
    fixed.evaluation.confusion_matrix = [[17, 3], [1, 19]]
    fixed.evaluation.accuracy_ci95 = [0.7695, 0.9604]
    assert cards.render(fixed) == before


NAMES = ["- 中文, 标签", 'a "quoted" | name: x', "Sport: Fußball", "n/a # none", "yes", "`$5` *x* <b>"]


def of_names(found: Results, names: list[str]) -> Results:
    """Return the results with these class names."""
    metrics = next(iter(found.evaluation.per_class.values()))
    found.labels = names
    found.evaluation.confusion_matrix = [[int(i == j) for j in range(len(names))] for i in range(len(names))]
    found.evaluation.per_class = dict.fromkeys(names, metrics)
    found.evaluation.examples = {name: Example(i, name, 0.9) for i, name in enumerate(names)}
    found.evaluation.mistakes = [Mistake(1, names[0], names[0], names[1], 0.9, 9, False)]
    found.recipe["label_names"] = {str(i): name for i, name in enumerate(names)}
    return found


@pytest.mark.filterwarnings("error")
def test_class_names_of_any_script_are_readable_in_cards_and_pictures(fixed, tmp_path):
    cards.write(of_names(fixed, NAMES), tmp_path)
    loaded = ModelCard.load(tmp_path / "README.md")
    assert [row["example_title"] for row in loaded.data.widget] == NAMES
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(loaded.text)
    labels = page.split("<h2>Labels</h2>")[1].split("</table>")[0]
    cells = [html.unescape(cell) for cell in re.findall(r"<td.*?>(.*?)</td>", labels)]
    assert cells[1::3] == NAMES
    assert "Numbers in place of names in this picture are the ids" in loaded.text
    block = re.search(r"```yaml\n(.*?)\n```", loaded.text, re.DOTALL)[1]
    (tmp_path / "recipe.yaml").write_text(block, encoding="utf-8")
    assert recipes.resolve(recipe=str(tmp_path / "recipe.yaml"))[0].label_names == fixed.recipe["label_names"]


def test_numbers_stand_for_names_that_no_font_can_draw(fixed, monkeypatch):
    fonts_found = []

    def shown(families: list[str] | None) -> list[str]:
        monkeypatch.setattr(plots.fonts, "families_for", lambda names: families)
        figure = Figure()
        plots._confusion_matrix(of_names(fixed, NAMES), figure)
        (axes,) = figure.axes
        fonts_found.append(axes.get_xticklabels()[0].get_fontfamily())
        return [label.get_text() for label in axes.get_yticklabels()]

    assert shown(None) == ["0", "1", "2", "3", "4", "5"]
    assert shown(["DejaVu Sans", "STIXGeneral"])[:2] == ["- 中文, 标签", 'a "quoted" | name…']
    assert fonts_found[1] == ["DejaVu Sans", "STIXGeneral"]


def test_a_font_of_the_machine_is_used_if_it_has_the_characters():
    stix = fonts.characters_of(font_manager.findfont("STIXGeneral"))
    character = min(stix - fonts.characters_of(font_manager.findfont(fonts.DEFAULT)))
    assert fonts.families_for(["plain", "Fußball"]) == [fonts.DEFAULT]
    families = fonts.families_for([f"a {character}"])
    assert families[0] == fonts.DEFAULT
    assert any(character in fonts.characters_of(font_manager.findfont(family)) for family in families)
    assert fonts.families_for(["\U0010fffd"]) is None


def snippets(folder: Path) -> list[str]:
    """Return the card's Python code, with local folders in place of ids, since no test reaches the Hub."""
    base = bases.find(DEFAULT_BASE)
    blocks = cards.snippets(results.read(folder))
    local = []
    for purpose in ("peft", "pipeline", "client"):
        code = blocks[purpose].replace(f'"adapters/{folder.name}"', f'"{folder}"')
        local.append(code.replace(f'"{base.id}"', f'"{bases.locate(base)}"'))
    return local


@pytest.mark.parametrize("name", ["minilm-imdb-qlora", "minilm-agnews-lora", "minilm-imdb-full"])
def test_code_on_the_card_gives_the_served_answer(name, capsys):
    folder = ROOT / "adapters" / name
    engine = Engine(bases.find(DEFAULT_BASE))
    engine.add_folder(folder)
    as_measured, pipeline, client = snippets(folder)
    scope: dict = {}
    exec(as_measured, scope)
    served = engine.predict([scope["text"]])[0]
    assert scope["probabilities"] == pytest.approx(list(served.scores.values()), abs=0.02)
    assert served.label in capsys.readouterr().out
    exec(pipeline, scope)
    labels = list(served.scores)
    rows = sorted(
        scope["classify"](TEXT, top_k=None, function_to_apply="none"), key=lambda row: labels.index(row["label"])
    )
    logits = torch.tensor([row["score"] for row in rows])
    assert torch.allclose(logits, engine.logits([TEXT])[0], atol=0.3)
    assert "Client(" in client


def test_full_card_uses_plain_transformers(fixed):
    fixed.method = "full"
    card = cards.render(fixed)
    assert "library_name: transformers" in card
    assert "base_model_relation: finetune" in card
    assert "PeftModel" not in card


def test_recipe_in_the_card_repeats_the_run(fixed, tmp_path):
    block = re.search(r"```yaml\n(.*?)\n```", cards.render(fixed), re.DOTALL)[1]
    (tmp_path / "recipe.yaml").write_text(block)
    assert dataclasses.asdict(recipes.resolve(recipe=str(tmp_path / "recipe.yaml"))[0]) == fixed.recipe
    assert cards.command(fixed) == "python train_space.py --recipe recipe.yaml"
    fixed.dataset = DatasetFacts("my reviews.csv", "ab", "local")
    assert cards.command(fixed).endswith("--recipe recipe.yaml --dataset 'path/to/my reviews.csv'")


def test_equal_results_give_equal_small_pictures(fixed, tmp_path):
    fixed.labels = ["$5 <b>", "a very long label that goes on and on"]
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        plots.write(fixed, tmp_path / place)
    for name in plots.names(fixed):
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert int.from_bytes(content[16:20]) == 600
        assert len(content) < 60_000


def test_learning_curve_has_the_points_of_the_training_and_no_single_dot(fixed):
    del fixed.training.epochs[1]
    fixed.training.losses = []
    fixed.training.validation_curve = []
    assert plots._validation_scores(fixed) == ("validation: Accuracy, %", [])
    assert "learning_curve.png" not in plots.names(fixed)
    fixed.training.validation_curve = [[0.0, 0.7, 0.5], [50.0, 0.4, 0.9]]
    assert plots._validation_scores(fixed)[1] == [[0.0, 50.0], [50.0, 90.0]]
    assert "learning_curve.png" in plots.names(fixed)
    epochs, _, accuracies = plots._mean_validation([fixed, fixed]).T
    assert epochs[1] == 50 / plots.steps_per_epoch(fixed)
    assert accuracies.tolist() == [0.5, 0.9]


def test_pictures_of_many_labels_and_one_epoch(fixed, tmp_path):
    fixed.labels = [f"label {i}" for i in range(60)]
    fixed.evaluation.confusion_matrix = [[int(i == j) for j in range(60)] for i in range(60)]
    del fixed.training.epochs[1]
    plots.write(fixed, tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_cards_are_made_from_the_shipped_results():
    found = [results.read(folder) for folder in store.folders(ROOT / "adapters")]
    for r in found:
        assert (ROOT / "adapters" / r.name / "README.md").read_text() == cards.render(r), (
            "run python -m adapter_arena.adapters.cards"
        )
