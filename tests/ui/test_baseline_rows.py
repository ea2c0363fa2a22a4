"""The leaderboard's last rows, from made results."""

import dataclasses
from pathlib import Path

import pytest

from adapter_arena import results
from adapter_arena.adapters.store import Adapter
from adapter_arena.results import SimpleBaseline
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import baseline_rows, fragments, leaderboard_tab

TITLES = ["Adapter", "Source", "Accuracy, %", "F1", "Training, minutes", "One text, ms"]
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

    def make(baselines: dict, dataset: str = "films", base: str = "base") -> Entry:
        found = results.read(trained)
        found.dataset.id = dataset
        found.evaluation = dataclasses.replace(found.evaluation, baselines=baselines)
        adapter = Adapter("one", Path(), "lora", base, found.labels, None)
        return Entry("one", dataclasses.replace(adapter, results=found))

    return make


def test_baselines_lie_above_the_untrained_base(entry_of):
    majority = dataclasses.replace(TFIDF, accuracy=0.5, c=None)
    entry = entry_of({"majority": majority, "tfidf": TFIDF})
    first, second, third = baseline_rows.cells([entry, entry], TITLES)
    assert first == ["Majority class", "not fine-tuned", "50.00 <small>87.0–89.0</small>", "0.879", "–", "–"]
    assert second == [
        "TF-IDF + logistic regression", "not fine-tuned", "88.00 <small>87.0–89.0</small>", "0.879", "1.5", "–",
    ]  # fmt: skip
    assert third[0] == "Untrained"
    assert third[2].startswith(f"{100 * entry.results.evaluation.baseline.accuracy:.2f} <small>")


def test_results_without_baselines_add_no_rows(entry_of):
    assert baseline_rows.cells([entry_of({}), Entry("remote", remote=None, adapter=entry_of({}).adapter)], TITLES) == []


def test_several_data_sets_and_bases_are_told_apart(entry_of):
    entries = [
        entry_of({"probe": TFIDF, "tfidf": TFIDF}, "films<b>"),
        entry_of({"probe": dataclasses.replace(TFIDF, accuracy=0.9), "tfidf": TFIDF}, "films<b>", "other"),
        entry_of({"tfidf": TFIDF}, "toys"),
    ]
    assert [row[0] for row in baseline_rows.cells(entries, TITLES)] == [
        "TF-IDF + logistic regression · films&lt;b&gt;",
        "Frozen base + logistic regression, base · films&lt;b&gt;",
        "Frozen base + logistic regression, other · films&lt;b&gt;",
        "Untrained, base · films&lt;b&gt;",
        "Untrained, other · films&lt;b&gt;",
        "TF-IDF + logistic regression · toys",
        "Untrained, base · toys",
    ]


def test_the_board_has_them_in_its_foot(entry_of):
    table = leaderboard_tab._table([entry_of({"tfidf": TFIDF})])
    body, _, foot = table.partition("</tbody>")
    assert "TF-IDF" not in body
    assert foot.startswith("<tfoot><tr><td>TF-IDF + logistic regression</td><td>not fine-tuned</td>")
    assert "<tfoot>" not in fragments.table([], [])
