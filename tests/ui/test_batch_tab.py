"""The report of Batch when it abstains from answers of low confidence."""

import threading

import pandas

from adapter_arena.serve.batch import Scoring
from adapter_arena.serve.served import Prediction
from adapter_arena.ui import batch_tab

TEXTS = ["sure", "unsure", "sure and wrong"]


def answers(texts):
    predictions = []
    for text in texts:
        confidence = 0.6 if text == "unsure" else 0.95
        scores = {"good": confidence, "bad": 1 - confidence}
        predictions.append(Prediction("good", confidence, scores, "fake", 1, False))
    return predictions


def test_abstained_answers_are_counted_and_the_rest_is_scored():
    scoring = Scoring(
        pandas.DataFrame({"text": TEXTS, "label": ["good", "bad", "bad"]}), "text", ["good", "bad"], "label"
    )
    list(scoring.run(answers, threading.Event()))
    outcome = scoring.outcome(min_confidence=0.9)
    assert batch_tab._summary(outcome) == "3 rows scored, 1 abstained"
    assert "abstained (1)" in batch_tab._render_counts(outcome)
    comparison = batch_tab._render_comparison(outcome)
    assert "<b>50.00 %</b>" in comparison
    assert "on 2 rows" in comparison
    assert "Abstained answers (1)" in comparison
    assert batch_tab._render_rows(outcome).count("good <small>abstained</small>") == 1
    everything = scoring.outcome()
    for render in (batch_tab._summary, batch_tab._render_counts, batch_tab._render_comparison, batch_tab._render_rows):
        assert "abstained" not in render(everything)
