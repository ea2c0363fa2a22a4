import dataclasses

import numpy
import pandas
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from adapter_arena import results
from adapter_arena.data import load
from adapter_arena.data.load import Splits
from adapter_arena.models.truncation import Encoded
from adapter_arena.results import Baseline, DatasetFacts
from adapter_arena.serve.engine import Engine
from adapter_arena.stats import (
    bootstrap,
    expected_calibration_error,
    fit_temperature,
    majority,
    scores,
    shortcomings,
    wilson,
)
from adapter_arena.train import evaluation
from adapter_arena.train.evaluation import excerpt


def test_wilson_interval_matches_published_values():
    # Newcombe 1998, table I: 81/263 and 0/20
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_calibration_error_by_hand():
    # 4 answers at 0.95 confidence, 3 right: gap 0.2; 2 answers at 0.6, both right: gap 0.4
    confidence = numpy.array([0.95] * 4 + [0.6] * 2)
    probabilities = numpy.stack([1 - confidence, confidence], axis=1)
    truth = numpy.array([1, 1, 1, 0, 1, 1])
    assert expected_calibration_error(probabilities, truth) == pytest.approx((4 * 0.2 + 2 * 0.4) / 6)


def test_temperature_undoes_overconfidence():
    rng = numpy.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 1.5
    truth = numpy.array([rng.choice(3, p=p) for p in softmax(logits, axis=1)])
    assert fit_temperature(4 * logits, truth) == pytest.approx(4, rel=0.05)
    overconfident = expected_calibration_error(softmax(4 * logits, axis=1), truth)
    assert expected_calibration_error(softmax(logits, axis=1), truth) < overconfident / 5


def test_evaluation_adds_up(trained):
    found = results.read(trained).evaluation
    right = sum(found.confusion_matrix[i][i] for i in range(2))
    assert found.accuracy == right / found.n
    assert found.majority.accuracy == max(map(sum, found.confusion_matrix)) / found.n
    assert [row.n for row in found.per_class.values()] == [sum(row) for row in found.confusion_matrix]
    assert sum(map(sum, found.baseline.confusion_matrix)) == found.n
    for measured in (found, found.baseline):
        for name in ("accuracy", "f1"):
            low, high = getattr(measured, f"{name}_ci95")
            assert 0 <= low <= getattr(measured, name) <= high <= 1
    correct = results.correct_rows(found)
    assert correct.shape == (found.n,)
    assert correct.sum() == right
    for by in ("tokens", "window", "confidence"):
        parts = [part for part in found.slices if part.by == by]
        assert sum(part.n for part in parts) == found.n
        assert sum(part.n * part.accuracy for part in parts) == pytest.approx(right)
    assert sum(b.n for b in found.reliability) == found.n
    assert found.ece == pytest.approx(sum(b.n * abs(b.accuracy - b.confidence) for b in found.reliability) / found.n)
    assert len(found.mistakes) == min(10, found.n - right)
    assert not any(correct[mistake.row] for mistake in found.mistakes)
    assert all(correct[example.row] for example in found.examples.values())


def made(n: int, labels: int, seed: int = 0) -> tuple[numpy.ndarray, numpy.ndarray]:
    """True and predicted labels of a classifier that is right on at least three rows of four."""
    rng = numpy.random.default_rng(seed)
    truth = rng.choice(labels, n, p=numpy.arange(1, labels + 1) / sum(range(1, labels + 1)))
    return truth, numpy.where(rng.random(n) < 0.75, truth, rng.integers(labels, size=n))


def test_scores_are_those_of_scikit_learn():
    truth, predicted = made(300, 4)
    truth[truth == 2] = 3  # label 2 is never true
    predicted[predicted == 1] = 0  # label 1 is never predicted
    ours = scores(confusion_matrix(truth, predicted, labels=range(5)))  # label 4 is neither
    each = precision_recall_fscore_support(truth, predicted, labels=range(5), zero_division=0)
    assert ours[:, :-1] == pytest.approx(numpy.stack(each[:3]))
    macro = precision_recall_fscore_support(truth, predicted, average="macro", zero_division=0)
    assert ours[:, -1] == pytest.approx(macro[:3])


def test_bootstrap_agrees_with_drawing_the_rows_themselves():
    truth, predicted = made(400, 3)
    rng = numpy.random.default_rng(1)
    draws = []
    for _ in range(2000):
        rows = rng.integers(400, size=400)
        draws.append(scores(confusion_matrix(truth[rows], predicted[rows], labels=range(3))))
    direct = numpy.quantile(draws, (0.025, 0.975), axis=0)
    ours = bootstrap(confusion_matrix(truth, predicted))
    assert numpy.abs(ours - direct).max() < 0.02  # a class of 67 rows, 2,000 draws
    assert (ours == bootstrap(confusion_matrix(truth, predicted))).all()


class FakeEngine:
    """Returns the given logits; a text's tokens are its words, truncated to eight."""

    precision = "nf4"
    dtype = torch.float32

    def __init__(self, logits: dict[str, list[float]]):
        self._logits = logits

    def merge(self, name):
        self.is_merged = True

    def logits(self, texts, name):
        assert self.is_merged
        return torch.tensor([self._logits[text] for text in texts])

    def encode(self, texts, name):
        return [Encoded(text.split()[:8], len(text.split()) > 8) for text in texts]


def evaluated(source: str, share_texts: bool = False):
    """Evaluate 40 rows: every fifth answer is wrong, confidence grows with the row, and so does the length."""
    texts = [f"row {i}\n" + "word " * i + "." * (200 if i == 39 else 0) for i in range(40)]
    truth = [i % 2 for i in range(40)]
    logits = {}
    for i, text in enumerate(texts):
        is_wrong = i % 5 == 4
        predicted = 1 - truth[i] if is_wrong else truth[i]
        confidence = 1 + i / 10
        logits[text] = [0.0, confidence if predicted == 1 else -confidence]
    frame = pandas.DataFrame({"text": texts, "label": truth})
    splits = Splits(frame, frame, frame, ["no", "yes"], DatasetFacts("d", "r", source))
    return evaluation.evaluate(FakeEngine(logits), "a", splits, Baseline(0.5, 0.5), share_texts)


def test_mistakes_are_the_most_confident_ones_and_examples_are_short():
    found = evaluated("hub")
    assert [m.row for m in found.mistakes] == [39, 34, 29, 24, 19, 14, 9, 4]
    first, last = found.mistakes[0], found.mistakes[-1]
    assert (first.truth, first.predicted, first.tokens, first.truncated) == ("yes", "no", 8, True)
    assert first.text.startswith("row 39 word word")
    assert first.text.endswith("…")
    assert len(first.text) == 100
    assert (last.text, last.truncated) == ("row 4 word word word word", False)
    assert {label: example.row for label, example in found.examples.items()} == {"no": 18, "yes": 17}
    assert [(s.name, s.n) for s in found.slices if s.by == "window"] == [("complete", 7), ("truncated", 33)]
    assert [s.name for s in found.slices if s.by == "tokens"] == ["2–8"]


def test_local_texts_are_shared_only_on_request():
    hidden = evaluated("local")
    assert [m.row for m in hidden.mistakes] == [m.row for m in evaluated("hub").mistakes]
    assert {m.text for m in hidden.mistakes} | {e.text for e in hidden.examples.values()} == {None}
    assert evaluated("local", share_texts=True).mistakes[-1].text == "row 4 word word word word"


def test_excerpt_is_one_printable_line():
    assert excerpt("  a\n\tb\u202e\ud800c ") == "a b c"
    assert excerpt("x" * 100) == "x" * 100
    assert excerpt("x" * 101) == "x" * 99 + "…"


@pytest.mark.parametrize("n", [1, 7, 8, 9, 64])
def test_correct_rows_round_trip(n):
    correct = numpy.random.default_rng(n).random(n) < 0.5
    found = evaluated("hub")
    packed = dataclasses.replace(found, n=n, correct=numpy.packbits(correct).tobytes().hex())
    assert (results.correct_rows(packed) == correct).all()
    assert results.correct_rows(dataclasses.replace(found, correct=None)) is None


def test_baseline_is_measured_once_for_the_same_rows(tiny, recipe_for, monkeypatch):
    recipe = recipe_for("lora", n_test=24)
    engine, splits = Engine(tiny), load.load_splits(recipe)
    first = evaluation.measure_baseline(engine, splits, recipe)
    assert first.accuracy_ci95[0] < first.accuracy < first.accuracy_ci95[1]
    monkeypatch.delattr(evaluation, "logits_of")
    assert evaluation.measure_baseline(engine, splits, recipe) == first
    splits.test["label"] = 1 - splits.test["label"]
    with pytest.raises(NameError):
        evaluation.measure_baseline(engine, splits, recipe)


def test_majority_class_is_scored_like_a_model():
    truth, _ = made(300, 4)
    answers = numpy.full(300, numpy.bincount(truth).argmax())
    found = majority(confusion_matrix(truth, made(300, 4)[1]), ["a", "b", "c", "d"])
    macro = precision_recall_fscore_support(truth, answers, average="macro", zero_division=0)
    assert (found.label, found.accuracy, found.f1) == ("d", pytest.approx((truth == 3).mean()), pytest.approx(macro[2]))


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        ([[60, 0], [40, 0]], ["never predicts 'ham' (40 test texts)", "60.0% (95 % interval 50.2% to 69.1%) cannot be told apart from the 60.0% of always answering 'spam'"]),
        ([[55, 5], [30, 10]], ["65.0% (95 % interval 55.3% to 73.6%) cannot be told apart from the 60.0%"]),
        ([[10, 50], [20, 20]], ["30.0% (95 % interval 21.9% to 39.6%) is below the 60.0%"]),
        ([[55, 5], [5, 35]], []),
        ([[90, 0], [0, 0]], ["cannot be told apart from the 100.0%"]),  # a class without test rows may go unpredicted
    ],
)  # fmt: skip
def test_shortcomings_are_named(trained, matrix, says):
    matrix = numpy.array(matrix)
    right, n = int(matrix.trace()), int(matrix.sum())
    found = results.read(trained)
    found.labels = ["spam", "ham"]
    found.evaluation = dataclasses.replace(
        found.evaluation,
        n=n,
        correct=None,
        baselines={},
        confusion_matrix=matrix.tolist(),
        accuracy=right / n,
        accuracy_ci95=list(wilson(right, n)),
        majority=majority(matrix, found.labels),
    )
    sentences = shortcomings(found)
    assert len(sentences) == len(says)
    for sentence, part in zip(sentences, says):
        assert part in sentence
    found.evaluation.majority = None  # results of earlier versions
    assert shortcomings(found) == []
