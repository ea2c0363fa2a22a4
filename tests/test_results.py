import json

import pytest

from adapter_arena import results
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
