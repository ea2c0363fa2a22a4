"""What Batch shows: the report, the rows in the chosen order, what is withheld, and the example file."""

import dataclasses
import json
import threading

import pandas
import pytest
from conftest import ROOT

from adapter_arena.adapters.store import Adapter
from adapter_arena.data import tables
from adapter_arena.serve import batch_outcome
from adapter_arena.serve.batch import Scoring
from adapter_arena.serve.entries import Entry
from adapter_arena.serve.served import Prediction
from adapter_arena.ui import batch_example, batch_input, batch_report, batch_rows

TEXTS = ["sure", "unsure", "sure and wrong"]


def answers(texts):
    predictions = []
    for text in texts:
        confidence = 0.6 if text == "unsure" else 0.95
        scores = {"good": confidence, "bad": 1 - confidence}
        predictions.append(Prediction("good", confidence, scores, "fake", 1, False))
    return predictions


@pytest.fixture
def outcome():
    frame = pandas.DataFrame({"text": TEXTS, "label": ["good", "bad", "bad"]})
    scoring = Scoring(frame, "text", ["good", "bad"], "label")
    list(scoring.run(answers, threading.Event()))
    return scoring.outcome()


def rows_of(outcome, order=batch_rows.UNCERTAIN, only_mistakes=False) -> list[str]:
    return batch_rows.select(outcome, order, only_mistakes)["text"].tolist()


def test_withheld_answers_are_counted_and_the_rest_is_scored(outcome):
    shown = batch_outcome.abstain(outcome, 0.9)
    assert "abstained (1)" in batch_report.counts(shown)
    sentence = batch_report.coverage(shown)
    assert "Answers <b>66.7 %</b> of the texts at <b>50.00 %" in sentence
    assert "1 abstained" in sentence
    assert "labels of 2 rows" in batch_report.comparison(shown)
    assert batch_rows.render(shown, batch_rows.UNCERTAIN, False).count("good <small>abstained</small>") == 1
    assert "Answers <b>100.0 %</b> of the texts at <b>33.33 %" in batch_report.coverage(outcome)
    for render in (batch_report.summary, batch_report.counts, batch_report.comparison, batch_report.coverage):
        assert "abstained" not in render(outcome)


def test_rows_are_shown_with_the_most_uncertain_first_or_as_chosen(outcome):
    assert batch_rows.orders(outcome)[0] == batch_rows.UNCERTAIN
    assert rows_of(outcome) == ["unsure", "sure", "sure and wrong"]
    assert rows_of(outcome, batch_rows.CERTAIN, only_mistakes=True) == ["sure and wrong", "unsure"]
    assert rows_of(outcome, batch_rows.FILE_ORDER) == TEXTS
    withheld = batch_outcome.abstain(outcome, 0.9)
    assert rows_of(withheld, only_mistakes=True) == ["sure and wrong"]
    table = batch_rows.render(outcome, batch_rows.UNCERTAIN, False)
    assert table.count('aria-label="wrong"') == 2
    assert table.count('aria-label="right"') == 1


def test_a_regression_shows_its_errors_with_the_largest_first():
    frame = pandas.DataFrame({"text": ["a", "ab", "abc"], "stars": ["1", "5", "2"]})
    scoring = Scoring(frame, "text", ["stars"], "stars", task="regression")

    def lengths(texts):
        return [Prediction("", None, {"stars": float(len(t))}, "fake", 1, False, value=len(t)) for t in texts]

    list(scoring.run(lengths, threading.Event()))
    outcome = scoring.outcome()
    assert batch_rows.orders(outcome) == [batch_rows.LARGEST_ERROR, batch_rows.FILE_ORDER]
    assert rows_of(outcome, batch_rows.LARGEST_ERROR) == ["ab", "abc", "a"]
    assert not batch_rows.has_mistakes(outcome)
    assert "-3" in batch_rows.render(outcome, batch_rows.LARGEST_ERROR, False)
    assert "Mean absolute error" in batch_report.comparison(outcome)
    assert batch_report.counts(outcome) == ""
    marks = json.loads(batch_report.chart(outcome).plot)["layer"][-1]["data"]["values"]
    assert marks[1] == {"row": 2, "truth": 5, "answer": 2}
    without_labels = dataclasses.replace(outcome, comparison=None)
    assert "%" not in batch_report.chart(without_labels).plot


def adapter(labels: list[str], task: str = "single-label") -> Adapter:
    return Adapter("a", ROOT, "lora", "base", labels, None, task=task)


@pytest.mark.parametrize(
    ("labels", "task", "expected"),
    [
        (["negative", "positive"], "single-label", {"negative", "positive"}),
        (["POS", "NEG"], "single-label", {"POS", "NEG"}),
        (["World", "Sports", "Business", "Sci/Tech"], "single-label", {"World", "Sports", "Business", "Sci/Tech"}),
        (["spam", "ham"], "single-label", {"spam", "ham"}),
        (["art", "law", "sea"], "multi-label", {"art", "law", "sea", "art|law", "law|sea", "sea|art"}),
    ],
)
def test_the_example_fits_the_labels_of_the_adapter(labels, task, expected):
    made = adapter(labels, task)
    frame = batch_example.make(made)
    assert len(frame) == batch_example.ROWS
    assert set(frame["label"]) <= expected
    if task == "single-label":
        assert set(frame["label"]) == expected
    columns = batch_input.guess_columns(tables.Table(frame, []), Entry("a", made))
    assert (columns.text, columns.label) == ("text", "label")
    assert batch_example.render(frame).count("<tr>") == 5


def test_the_example_of_a_regression_has_no_labels():
    assert list(batch_example.make(adapter(["stars"], "regression"))) == ["text"]
