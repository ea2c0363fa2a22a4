"""--evaluate on another data set: which data set that is, its labels, and what is recorded."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pandas
import pytest

import train_space
from adapter_arena import results
from adapter_arena.adapters import cards
from adapter_arena.data import sample
from adapter_arena.recipe import Recipe
from adapter_arena.results import OutOfDomain
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.entries import Entry
from adapter_arena.train import comparison, out_of_domain, report
from adapter_arena.ui import board_table


@pytest.fixture
def adapter(work, trained) -> Path:
    """A copy of an adapter whose own data set is `sample`."""
    return Path(shutil.copytree(trained, work / "adapters" / trained.name))


@pytest.fixture
def evaluate(tiny, adapter):
    """Return a function that runs --evaluate with more flags, and returns the exit status."""
    return lambda *flags: train_space.main(["--evaluate", adapter.name, "--base-model", tiny.id, *flags])


def write_other(path: str, names: dict[str, str] | None = None) -> None:
    """Write 60 rows of another seed as a data set with a test split, with other names for the labels if given."""
    folder = Path(path)
    folder.mkdir()
    frame = sample.make(120, seed=1).drop_duplicates("text")
    if names:
        frame = frame.assign(label=frame["label"].map(names))
    frame.iloc[:60].to_csv(folder / "train.csv", index=False)
    frame.iloc[60:].to_csv(folder / "test.csv", index=False)


def test_scores_on_another_data_set_are_kept_beside_the_own_ones(adapter, evaluate, tiny, capsys):
    before = results.read(adapter)
    write_other("other")
    assert evaluate("--dataset", "other") == 0
    printed = capsys.readouterr().out
    assert "other is another data set than sample: the adapter's own evaluation is kept" in printed
    after = results.read(adapter)
    scores = after.out_of_domain["other"]
    assert dataclasses.replace(after, out_of_domain={}) == before
    engine = Engine(tiny)
    engine.add_folder(adapter)
    rows = pandas.read_csv("other/test.csv")
    predictions = engine.predict(rows["text"].tolist())
    right = [prediction.label == label for prediction, label in zip(predictions, rows["label"])]
    engine.close()
    assert scores.n == len(rows)
    assert scores.accuracy == pytest.approx(sum(right) / len(rows), abs=1 / len(rows))
    assert scores.accuracy_ci95[0] < scores.accuracy < scores.accuracy_ci95[1]
    assert f"accuracy {scores.accuracy:.1%}" in printed
    card = (adapter / "README.md").read_text()
    assert card == cards.render(after)
    assert f"| other | {len(rows)} |" in card.partition("## Other data sets")[2]
    assert "## Other data sets" not in cards.render(before)


def test_labels_are_matched_by_name_or_mapped(adapter, evaluate, capsys):
    write_other("numbers", {"negative": "0", "positive": "1"})
    assert evaluate("--dataset", "numbers") == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "numbers has the labels 0, 1, which are not among those of tiny-lora" in lines[0]
    assert "--label-names 0=negative" in lines[0]
    assert results.read(adapter).out_of_domain == {}

    def accuracy(negative: str, positive: str) -> float:
        mapping = ["--label-names", f"0={negative}", "--label-names", f"1={positive}"]
        assert evaluate("--dataset", "numbers", *mapping) == 0
        return results.read(adapter).out_of_domain["numbers"].accuracy

    right = accuracy("NEG", "Positive")  # in another case and as neg
    assert accuracy("positive", "negative") == pytest.approx(1 - right)


def test_number_of_test_rows_can_be_limited(adapter, evaluate):
    write_other("other")
    assert evaluate("--dataset", "other", "--n-test", "20") == 0
    assert results.read(adapter).out_of_domain["other"].n == 20


def test_changed_data_of_the_same_name_are_refused(adapter, evaluate, capsys):
    before = (adapter / "results.json").read_text()
    sample.make(300, seed=1).to_csv("Sample.csv", index=False)
    assert evaluate("--dataset", "Sample.csv") == 1
    captured = capsys.readouterr()
    assert "Sample.csv is taken for the adapter's own data" in captured.out
    assert "Sample.csv is not the data tiny-lora was measured on (sample" in captured.err
    assert "give another data set another name" in captured.err
    assert (adapter / "results.json").read_text() == before


def test_a_renamed_copy_of_the_own_data_is_not_another_data_set(trained, work):
    found = results.read(trained)
    sample.make(40).to_csv("copy.csv", index=False)
    content = Path("copy.csv").read_bytes()
    found.dataset.id = "reviews.csv"
    own = Recipe(name="own", dataset="reviews.csv")
    assert out_of_domain.find_other(found, own, {"dataset": "copy.csv"}).dataset == "copy.csv"
    found.dataset.revision = hashlib.sha256(content).hexdigest()
    assert out_of_domain.find_other(found, own, {"dataset": "copy.csv"}) is None


@pytest.mark.parametrize("dataset", ["stanfordnlp/imdb", "data/IMDb", "imdb.csv", "imdb.csv.gz"])
def test_names_of_the_same_data_set(trained, dataset):
    found = results.read(trained)
    found.dataset.id = "imdb"
    assert out_of_domain.find_other(found, Recipe(name="own"), {"dataset": dataset}) is None


def scored(found: results.Results, **accuracies: float) -> results.Results:
    scores = {}
    for dataset, accuracy in accuracies.items():
        scores[dataset] = OutOfDomain(100, accuracy, [0.1, 0.9], 0.5, [0.1, 0.9], 0.1, "r", "s", "2026-11-26")
    return dataclasses.replace(found, out_of_domain=scores)


def test_report_and_leaderboard_have_a_column(trained, tmp_path):
    found = results.read(trained)
    first = dataclasses.replace(scored(found, amazon=0.8, sst2=0.7), name="first")
    second = dataclasses.replace(scored(found, amazon=0.9), name="second")
    compared = comparison.summarise("c", {"lora": [first, second]}, {})
    assert compared.rows[0].elsewhere == pytest.approx({"amazon": 0.85})
    assert "| elsewhere, % |" in report._render(compared, {"lora": [first, second]})
    assert "| amazon 85.00 |" in report._render(compared, {"lora": [first, second]})
    plain = comparison.summarise("c", {"lora": [found]}, {})
    assert "elsewhere" not in report._render(plain, {"lora": [found]})

    def entry(one):
        adapter = type(
            "Adapter",
            (),
            {"results": one, "method": "lora", "base_model": "b", "size": 1, "notes": (), "task": "single-label"},
        )()
        return Entry(one.name, adapter)

    board = board_table.render([entry(first), entry(found)], ["on:amazon", "on:sst2"])
    assert [title in board for title in ("On amazon, %", "80.00", "On sst2, %", "70.00")] == [True] * 4
    assert "amazon" not in board_table.render([entry(found)], ["on:amazon"])
