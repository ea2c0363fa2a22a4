import dataclasses
import json

import pytest
from conftest import ROOT

from adapter_arena import results
from adapter_arena.adapters import store
from adapter_arena.errors import AdapterError


def test_results_round_trip(trained, tmp_path):
    found = results.read(trained)
    found.write(tmp_path)
    assert results.read(tmp_path) == found
    assert (tmp_path / "results.json").read_text() == (trained / "results.json").read_text()


def test_a_run_records_what_the_contract_names(trained):
    content = json.loads((trained / "results.json").read_text())
    assert {"schema_version", "name", "method", "recipe", "labels", "base_model", "dataset", "training", "evaluation",
            "environment", "created_at"} <= set(content)  # fmt: skip
    assert content["evaluation"]["served_as"] == "nf4"
    assert content["evaluation"]["split"] == "test"
    assert content["evaluation"]["n"] == sum(map(sum, content["evaluation"]["confusion_matrix"])) == 40
    low, high = content["evaluation"]["accuracy_ci95"]
    assert low < content["evaluation"]["accuracy"] < high
    assert content["training"]["peak_memory_mb"] > 100
    assert content["training"]["seconds"] > 0
    assert content["environment"]["packages"]["peft"]
    assert str(trained.parent) not in json.dumps(content)


@pytest.mark.parametrize("folder", store.folders(ROOT / "adapters"), ids=lambda folder: folder.name)
def test_writing_shipped_results_only_adds_fields_without_a_value(folder, tmp_path):
    results.read(folder).write(tmp_path)
    old = json.loads((folder / results.FILE).read_text())
    new = json.loads((tmp_path / results.FILE).read_text())
    if new["recipe"].get("precision") == "auto":  # older versions wrote bf16 even if it was not set
        old["recipe"]["precision"] = "auto"
    old.setdefault("task", "single-label")
    former_names = {"read whole": "complete", "cut": "truncated"}
    for group in old["evaluation"].get("slices", []):
        group["name"] = former_names.get(group["name"], group["name"])
    assert without_empty(new) == without_empty(old)
    assert list(new) == [field.name for field in dataclasses.fields(results.Results)]


def without_empty(value):
    """Return the JSON value without fields that are null or empty, at any depth."""
    if isinstance(value, dict):
        return {key: without_empty(item) for key, item in value.items() if item not in (None, [], {})}
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return value


def test_unknown_fields_are_ignored(trained, tmp_path):
    content = json.loads((trained / "results.json").read_text())
    content["training"]["gpus"] = 8
    content["recipe"]["from_a_later_version"] = True
    (tmp_path / "results.json").write_text(json.dumps(content))
    found = results.read(tmp_path)
    assert found.training == results.read(trained).training


def test_a_training_records_its_baselines_and_those_of_a_later_version_are_ignored(trained, tmp_path):
    content = json.loads((trained / "results.json").read_text())
    baselines = content["evaluation"]["baselines"]
    assert list(baselines) == list(results.BASELINE_TITLES)
    assert {row["train_rows"] for row in baselines.values()} == {64}
    assert baselines["majority"]["accuracy"] == content["evaluation"]["majority"]["accuracy"]
    assert baselines["majority"]["f1"] == content["evaluation"]["majority"]["f1"]
    baselines["large_language_model"] = baselines["tfidf"]
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert results.read(tmp_path).evaluation == results.read(trained).evaluation


def test_malformed_results_are_named_in_one_line(trained, tmp_path):
    content = json.loads((trained / "results.json").read_text())
    content["evaluation"]["accuracy"] = "high"
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(
        AdapterError, match=r"evaluation\.accuracy should be a valid number, not 'high'\): train .* again"
    ):
        results.read(tmp_path)


def test_no_results_is_none(tmp_path):
    assert results.read(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("labels"),
        lambda c: c.update(labels="positive"),
        lambda c: c.update(schema_version=99),
        lambda c: c["evaluation"].update(accuracy="high"),
        lambda c: c["evaluation"].pop("ece"),
        lambda c: c["training"].update(epochs=[1]),
        lambda c: c.update(evaluation=None),
        lambda c: c.update(evaluation=["split"]),
        lambda c: c["evaluation"].update(correct="00"),
        lambda c: c["evaluation"].update(correct="xy"),
        lambda c: c["evaluation"]["baselines"]["tfidf"].update(correct="00"),
        lambda c: c["evaluation"].update(baselines=[]),
        lambda c: c["evaluation"].update(mistakes=[{"row": "first"}]),
        lambda c: c["evaluation"].update(examples=[]),
    ],
)
def test_malformed_results_are_refused(trained, tmp_path, change):
    content = json.loads((trained / "results.json").read_text())
    change(content)
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(AdapterError, match=r"results\.json"):
        results.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "nul", "[" * 100_000])
def test_results_that_are_no_json_are_refused(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(AdapterError, match=r"results\.json"):
        results.read(tmp_path)
