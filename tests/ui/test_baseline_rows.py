"""The leaderboard's baselines, from made results."""

import dataclasses
from pathlib import Path

import pytest

from adapter_arena import results
from adapter_arena.adapters.store import Adapter
from adapter_arena.results import Constant, Majority, Score, SimpleBaseline
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import baseline_rows

TFIDF = SimpleBaseline(
    accuracy=0.88,
    accuracy_ci95=[0.87, 0.89],
    f1=0.879,
    f1_ci95=[0.86, 0.9],
    seconds=90.0,
    train_rows=64,
    correct="ff" * 5,
    c=3.0,
)


@pytest.fixture
def entry_of(trained):
    """Return a function that makes an entry of the leaderboard with these baselines, on a data set and a base."""

    def make(baselines: dict, dataset: str = "films", base: str = "base", **changes) -> Entry:
        found = results.read(trained)
        found.dataset.id = dataset
        changes = {"majority": None} | changes
        found.evaluation = dataclasses.replace(found.evaluation, baselines=baselines, **changes)
        adapter = Adapter("one", Path(), "lora", base, found.labels, None)
        return Entry("one", dataclasses.replace(adapter, results=found))

    return make


def test_each_baseline_is_one_row_with_its_scores(entry_of):
    majority = dataclasses.replace(TFIDF, accuracy=0.5, c=None)
    entry = entry_of({"majority": majority, "tfidf": TFIDF})
    first, second, third = baseline_rows.rows([entry, entry])
    assert (first.title, second.title, third.title) == (
        "Majority class", "TF-IDF + logistic regression", "Untrained base",
    )  # fmt: skip
    assert first.scores["accuracy"] == (50.0, [87.0, 89.0])
    assert "minutes" not in first.scores
    assert second.scores == {"accuracy": (88.0, [87.0, 89.0]), "f1": (0.879, [0.86, 0.9]), "minutes": (1.5, None)}
    value, interval = third.scores["accuracy"]
    assert value == 100 * entry.results.evaluation.baseline.accuracy
    assert interval[0] < value < interval[1]
    assert (second.entry, second.dataset, second.task) == (None, "films", "single-label")


def test_results_without_baselines_have_majority_and_untrained_base(entry_of):
    entry = entry_of({}, majority=Majority("good", 0.6, 0.4))
    first, second = baseline_rows.rows(
        [entry, Entry("remote", adapter=dataclasses.replace(entry.adapter, results=None))]
    )
    assert (first.title, first.scores) == ("Majority class", {"accuracy": (60.0, None), "f1": (0.4, None)})
    assert second.title == "Untrained base"


def test_other_tasks_have_a_constant_answer(entry_of):
    scores = {"spearmanr": Score(0.1, [0.0, 0.2]), "mae": Score(1.5, [1.4, 1.6])}
    entry = entry_of({}, baseline=None, untrained=scores, constant=Constant("2.5", scores))
    constant, untrained = baseline_rows.rows([entry])
    assert (constant.title, untrained.title) == ("Always 2.5", "Untrained base")
    assert constant.scores == {"spearmanr": (0.1, [0.0, 0.2]), "mae": (1.5, [1.4, 1.6])}


def test_several_data_sets_and_bases_are_told_apart(entry_of):
    entries = [
        entry_of({"probe": TFIDF, "tfidf": TFIDF}),
        entry_of({"probe": dataclasses.replace(TFIDF, accuracy=0.9), "tfidf": TFIDF}, "films", "other"),
        entry_of({"tfidf": TFIDF}, "toys"),
    ]
    assert [row.title for row in baseline_rows.rows(entries)] == [
        "TF-IDF + logistic regression · films",
        "Frozen base + logistic regression, base · films",
        "Untrained base, base · films",
        "Frozen base + logistic regression, other · films",
        "Untrained base, other · films",
        "TF-IDF + logistic regression · toys",
        "Untrained base, base · toys",
    ]
