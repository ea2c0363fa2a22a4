import csv
import threading
import tracemalloc

import numpy
import pandas
import pytest

from adapter_arena.data import tables
from adapter_arena.errors import BusyError, DataError, RequestError
from adapter_arena.serve import batch, batch_outcome, batch_truth
from adapter_arena.serve.batch import Scoring
from adapter_arena.serve.batch_outcome import Outcome, save
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.served import Prediction
from adapter_arena.stats import wilson

LABELS = ["negative", "positive"]
HTML = '<img src=x onerror="alert(1)"><script>steal()</script>'


def predict(texts):
    """Predict positive if the text contains "good"; the confidence grows with its length, up to 99 %."""
    answers = []
    for text in texts:
        confidence = min(0.99, 0.5 + len(text) / 100)
        label = LABELS["good" in text]
        scores = {label: confidence, LABELS["good" not in text]: 1 - confidence}
        answers.append(Prediction(label, confidence, scores, "fake", len(text.split()), len(text) > 1000))
    return answers


def run(scoring, predict=predict, stop=None):
    return list(scoring.run(predict, stop or threading.Event()))


def scored(frame, label_column=None, predict=predict) -> Outcome:
    scoring = Scoring(frame, "text", LABELS, label_column)
    run(scoring, predict)
    return scoring.outcome()


def films(n: int) -> pandas.DataFrame:
    return pandas.DataFrame(
        {"text": [f"{'good' if i % 3 else 'bad'} film {i} " + "x" * (i * 7 % 50) for i in range(n)]}
    )


def test_every_row_has_an_answer_in_the_order_of_the_file():
    frame = films(3000)
    outcome = scored(frame)
    assert outcome.frame["row"].tolist() == list(range(1, 3001))
    assert outcome.frame["text"].tolist() == frame["text"].tolist()
    assert outcome.frame["label"].tolist() == [LABELS[i % 3 > 0] for i in range(3000)]
    assert outcome.counts == {"negative": 1000, "positive": 2000}
    assert outcome.errors == 0
    assert outcome.comparison is None
    assert list(outcome.frame) == ["row", "text", "label", "confidence", "p_negative", "p_positive", "tokens", "truncated", "error"]  # fmt: skip
    first = outcome.frame.iloc[1]
    expected = predict([frame["text"][1]])[0]
    assert first["confidence"] == pytest.approx(expected.confidence)
    assert first["p_negative"] == pytest.approx(expected.scores["negative"])
    assert first["tokens"] == expected.tokens
    assert sum(outcome.histogram) == 3000
    assert len(outcome.edges) == len(outcome.histogram) + 1


def test_a_chunk_has_texts_of_similar_length_from_one_window():
    chunks = []
    scored(films(2500), predict=lambda texts: chunks.append(texts) or predict(texts))
    assert max(map(len, chunks)) == batch.CHUNK
    assert [len(text) for chunk in chunks[:16] for text in chunk] == sorted(
        (len(text) for text in films(2500)["text"][: batch.WINDOW]), reverse=True
    )


def test_progress_is_reported_after_each_chunk():
    progress = run(Scoring(films(300), "text", LABELS))
    assert [step.done for step in progress] == [0, 64, 128, 192, 256, 300]
    assert {step.total for step in progress} == {300}
    assert progress[0].seconds_left is None
    assert progress[-1].seconds_left == 0
    assert all(step.seconds_left > 0 for step in progress[1:-1])


def test_a_stopped_scoring_can_be_resumed():
    scoring = Scoring(films(1000), "text", LABELS)
    stop = threading.Event()
    for progress in scoring.run(predict, stop):
        if progress.done >= 128:
            stop.set()
    outcome = scoring.outcome()
    assert len(outcome.frame) == 128
    assert outcome.total == 1000
    assert outcome.frame["row"].is_monotonic_increasing
    assert outcome.frame["label"].notna().all()
    assert run(scoring)[0].done == 128
    assert scoring.outcome().frame.equals(scored(films(1000)).frame)


def test_answers_are_kept_if_the_page_is_closed():
    scoring = Scoring(films(1000), "text", LABELS)
    steps = scoring.run(predict, threading.Event())
    next(steps), next(steps)
    steps.close()
    assert len(scoring.outcome().frame) == 64


def test_answers_are_kept_if_the_adapter_is_unloaded():
    scoring = Scoring(films(300), "text", LABELS)
    calls = []

    def unloaded_after_two_calls(texts):
        calls.append(texts)
        if len(calls) == 3:
            raise RequestError("This base model was just unloaded to make room for another.")
        return predict(texts)

    with pytest.raises(RequestError, match="unloaded"):
        run(scoring, unloaded_after_two_calls)
    assert len(scoring.outcome().frame) == 128


def test_a_row_that_cannot_be_scored_has_an_error():
    cells = ["good", "", "  ", None, float("nan"), 7, ["good"], "fails", "bad \ud83d"]
    frame = pandas.DataFrame({"text": pandas.Series(cells, dtype=object)})
    requested = []

    def failing(texts):
        requested.extend(texts)
        return [RequestError("The model failed.") if text == "fails" else predict([text])[0] for text in texts]

    outcome = scored(frame, predict=failing)
    assert sorted(requested) == ["bad \ud83d", "fails", "good"]
    assert outcome.frame["error"].fillna("").tolist() == [
        "",
        *["The text is empty."] * 4,
        "The cell is not a text (int).",
        "The cell is not a text (list).",
        "The model failed.",
        "",
    ]
    assert outcome.frame["label"].notna().tolist() == [True, *[False] * 7, True]
    assert outcome.frame["text"].tolist() == ["good", "", "  ", "", "", "7", "['good']", "fails", "bad ?"]
    assert outcome.errors == 7
    assert outcome.frame.loc[1, ["confidence", "tokens", "truncated"]].isna().all()


def test_a_file_without_texts_makes_no_request():
    scoring = Scoring(pandas.DataFrame({"text": ["", " "]}), "text", LABELS)
    assert [step.done for step in run(scoring, lambda texts: pytest.fail("requested"))] == [2]
    assert scoring.outcome().errors == 2
    assert scoring.outcome().counts == {"negative": 0, "positive": 0}


def test_answers_with_other_labels_are_errors():
    other = Prediction("ham", 0.9, {"ham": 0.9, "spam": 0.1}, "fake", 3, False)
    outcome = scored(films(3), predict=lambda texts: [other for _ in texts])
    assert outcome.frame["error"].str.contains("other labels").all()


def test_a_missing_column_is_reported_with_the_nearest_one():
    with pytest.raises(DataError, match="Unknown column 'txt': did you mean 'text'"):
        Scoring(films(3), "txt", LABELS)
    with pytest.raises(DataError, match="Unknown column 'lable'"):
        Scoring(films(3).assign(label="0"), "text", LABELS, "lable")
    wide = pandas.DataFrame([["x"] * 10_000], columns=[f"c{i}" for i in range(10_000)])
    with pytest.raises(DataError, match="and 9,980 more") as caught:
        Scoring(wide, "text", LABELS)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "own",
    [
        ["negative", "positive"],
        ["NEG", "Pos"],
        ["0", "1"],
        [0, 1],
        [0.0, 1.0],
        ["1", "5"],
        [2, 4],
    ],
)
def test_answers_are_compared_with_labels_in_every_accepted_spelling(own):
    texts = ["bad one", "good one, really", "good but called bad, sorry", "bad"]
    outcome = scored(pandas.DataFrame({"text": texts, "label": [own[0], own[1], own[0], own[0]]}), "label")
    comparison = outcome.comparison
    assert (comparison.n, comparison.right, comparison.accuracy, comparison.unlabelled) == (4, 3, 0.75, 0)
    assert comparison.scores["accuracy"].ci95 == list(wilson(3, 4))
    assert comparison.per_class["negative"].recall == pytest.approx(2 / 3)
    assert (comparison.majority.label, comparison.majority.accuracy) == ("negative", 0.75)
    assert comparison.confusion_matrix == [[2, 1], [0, 1]]
    assert outcome.frame["truth"].tolist() == ["negative", "positive", "negative", "negative"]
    assert outcome.frame["right"].tolist() == [True, True, False, True]


def test_rows_without_a_label_or_an_answer_are_not_compared():
    frame = pandas.DataFrame({"text": ["good", "bad", "", "good", "good"], "stars": ["5", "3", "1", "", "many"]})
    outcome = scored(frame, "stars")
    assert (outcome.comparison.n, outcome.comparison.right, outcome.comparison.unlabelled) == (1, 1, 3)
    assert outcome.frame["right"].isna().tolist() == [False, True, True, True, True]
    assert outcome.frame["truth"].fillna("").tolist() == ["positive", "", "negative", "", ""]


def test_the_outcome_may_be_empty(tmp_path):
    outcome = Scoring(films(5).assign(label=["0", "1", "0", "1", "1"]), "text", LABELS, "label").outcome()
    assert len(outcome.frame) == 0
    assert outcome.comparison.accuracy is None
    assert outcome.comparison.scores == {}
    for suffix in (".csv", ".parquet"):
        save(outcome, tmp_path / f"none{suffix}")


@pytest.mark.parametrize("values", [["1", "2"], ["", ""], ["yes\nno", "x" * 9000]])
def test_a_column_of_other_labels_is_rejected(values):
    with pytest.raises(DataError, match="none of which is clearly one of the labels negative, positive") as caught:
        Scoring(pandas.DataFrame({"text": ["a", "b"], "own": values}), "text", LABELS, "own")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


# ---------------------------------------------------------------- saving

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", "＝1", '=HYPERLINK("http://x","y")']


def test_formulas_in_a_csv_file_are_escaped_and_numbers_are_not(tmp_path):
    labels = ["=cmd|'/C calc'!A0", "+fine"]
    frame = pandas.DataFrame({"text": [*FORMULAS, "a = b", HTML], "own": [labels[0]] * 11})

    def one_sided(texts):
        return [Prediction(labels[1], 0.75, {labels[0]: 0.25, labels[1]: 0.75}, "x", 2, False) for _ in texts]

    scoring = Scoring(frame, "text", labels, "own")
    run(scoring, one_sided)
    save(scoring.outcome(), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    header = rows.pop(0)
    assert not [cell for row in [header, *rows] for cell in row if cell.startswith(tuple("=+-@\t\r\n＝"))]
    by_name = [dict(zip(header, row)) for row in rows]
    assert [row["text"] for row in by_name] == [*(f"'{text}" for text in FORMULAS), "a = b", HTML]
    assert {row["label"] for row in by_name} == {"'+fine"}
    assert {row["truth"] for row in by_name} == {"'=cmd|'/C calc'!A0"}
    assert {(row["row"], row["confidence"], row["tokens"], row["right"]) for row in by_name[:1]} == {("1", "0.75", "2", "False")}  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_saved_results_can_be_read_again(tmp_path, suffix):
    texts = ["good, really", 'bad "quoted"\nand more\r\nlines', "", "good 映画 🎬 " + "x" * 200_000]
    outcome = scored(pandas.DataFrame({"text": texts, "label": ["1", "0", "0", "0"]}), "label")
    path = tmp_path / f"out{suffix}"
    save(outcome, path)
    again = tables.read(path, tables.Limits()).frame
    assert list(again) == list(outcome.frame)
    assert again["text"].tolist() == texts
    assert again["confidence"].astype(str).replace("", "nan").astype(float).tolist() == pytest.approx(
        outcome.frame["confidence"].tolist(), nan_ok=True
    )


def test_a_failed_save_is_reported(tmp_path):
    outcome = scored(films(2))
    (tmp_path / "full.csv").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"full.csv cannot be written .No space left"):
        save(outcome, tmp_path / "full.csv")


# ---------------------------------------------------------------- size, and the real engine


def test_fifty_thousand_rows_need_little_memory_beyond_their_frame():
    frame = pandas.DataFrame({"text": [f"good film {i} " + "word " * 40 for i in range(50_000)]})
    size = frame.memory_usage(deep=True).sum()
    answer = predict(["good"])[0]
    tracemalloc.start()
    scoring = Scoring(frame, "text", LABELS)
    for _ in scoring.run(lambda texts: [answer] * len(texts), threading.Event()):
        pass
    current, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(scoring.outcome().frame) == 50_000
    assert current < 0.3 * size
    assert peak < 0.5 * size


def test_the_engine_answers_other_requests_while_it_scores_a_file(tiny, trained):
    engine = Engine(tiny)
    adapter = engine.add_folder(trained)
    frame = films(400)
    frame.loc[5, "text"] = ""
    scoring = Scoring(frame, "text", adapter.labels)
    other_answers = []
    for progress in scoring.run(lambda texts: engine.predict(texts, adapter.name), threading.Event()):
        if progress.done == 65:
            other_answers.append(engine.predict(["another request"], adapter.name))
    outcome = scoring.outcome()
    engine.close()
    assert len(other_answers) == 1
    assert outcome.frame["error"].notna().sum() == 1
    together = outcome.frame.drop(index=5)
    assert numpy.allclose(together[[f"p_{label}" for label in adapter.labels]].sum(axis=1), 1)
    assert together["confidence"].equals(together[[f"p_{label}" for label in adapter.labels]].max(axis=1))


def test_a_file_waits_while_the_engine_is_busy(monkeypatch):
    requested = []

    def sometimes(texts):
        requested.append(len(texts))
        if len(requested) < 3:
            raise BusyError("Too many texts wait")
        return predict(texts)

    monkeypatch.setattr(threading.Event, "wait", lambda *_: False)
    assert run(Scoring(films(2), "text", LABELS), sometimes)[-1].done == 2
    assert requested == [2, 2, 2]


def test_answers_below_the_least_confidence_are_abstained_and_not_wrong():
    """Confidence grows with the length: 0.54 for the four letters of `good`, 0.99 for long texts."""
    texts = ["good", "bad", "good " + "x" * 60, "bad " + "x" * 60, "", "good " + "y" * 60]
    frame = pandas.DataFrame({"text": texts, "label": ["0", "1", "1", "1", "1", ""]})
    scoring = Scoring(frame, "text", LABELS, "label")
    run(scoring)
    outcome = scoring.outcome(min_confidence=0.9)
    assert outcome.abstained == 2
    assert outcome.frame["abstained"].tolist() == [True, True, False, False, pandas.NA, False]
    assert outcome.frame["label"].notna().tolist() == [True, True, True, True, False, True]
    assert outcome.counts == {"negative": 1, "positive": 2}
    comparison = outcome.comparison
    assert (comparison.n, comparison.right, comparison.unlabelled) == (2, 1, 1)
    assert outcome.frame["row"][outcome.frame["right"].eq(False).fillna(False)].tolist() == [4]
    everything = scoring.outcome()
    again = batch_outcome.abstain(everything, 0.9)
    assert again.frame.equals(outcome.frame)
    assert (again.counts, again.comparison) == (outcome.counts, comparison)
    assert again.coverage == 3 / 5
    assert "abstained" not in everything.frame
    assert (everything.abstained, everything.comparison.n, everything.comparison.right) == (0, 4, 1)


def test_a_confidence_that_equals_the_least_one_is_answered():
    answer = Prediction("positive", float(numpy.float32(0.9)), {"positive": 0.9, "negative": 0.1}, "fake", 1, False)
    scoring = Scoring(films(1), "text", LABELS)
    run(scoring, lambda texts: [answer])
    assert scoring.outcome(min_confidence=0.9).abstained == 0
    assert scoring.outcome(min_confidence=0.91).abstained == 1


# ---------------------------------------------------------------- several labels, and numbers


def topics(texts):
    """Give the labels that the text names, and the likeliest first: the one that is named last."""
    labels = ["art", "law", "sea"]
    answers = []
    for text in texts:
        given = [label for label in reversed(text.split()) if label in labels]
        scores = {label: 0.9 - 0.1 * given.index(label) if label in given else 0.1 for label in labels}
        answers.append(Prediction("|".join(given), max(scores.values()), scores, "fake", 3, False, given))
    return answers


@pytest.mark.parametrize(
    "own",
    [
        ["art|law", "sea", "[]", "art"],
        ["law; ART", "sea", "[]", "art"],
        ["['art', 'law']", "['sea']", "[]", '["art"]'],
        [["law", "art"], ["sea"], [], ["art"]],
        [numpy.array(["art", "law"]), numpy.array(["sea"]), numpy.array([]), numpy.array(["art"])],
        ["0|1", "2", "[]", "0"],
    ],
)
def test_lists_of_labels_are_compared_in_every_accepted_spelling(own):
    frame = pandas.DataFrame({"text": ["art law", "sea", "none", "art sea"], "tags": pandas.Series(own, dtype=object)})
    assert batch_truth.guess_column(frame, ["art", "law", "sea"], "multi-label", ["text"]) == "tags"
    scoring = Scoring(frame, "text", ["art", "law", "sea"], "tags", task="multi-label")
    run(scoring, topics)
    outcome = scoring.outcome()
    assert outcome.frame["truth"].tolist() == ["art|law", "sea", "", "art"]
    assert outcome.frame["label"].tolist() == ["law|art", "sea", "", "sea|art"]
    assert outcome.frame["right"].tolist() == [True, True, True, False]
    comparison = outcome.comparison
    assert (comparison.n, comparison.right, comparison.unlabelled) == (4, 3, 0)
    assert comparison.scores["f1_micro"].value == pytest.approx(2 * 4 / (5 + 4))
    assert comparison.scores["f1"].value == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert comparison.scores["subset_accuracy"].value == 0.75
    assert comparison.per_class["sea"].precision == 0.5


def test_rows_with_an_unknown_label_or_none_are_unlabelled():
    frame = pandas.DataFrame({"text": ["art", "law", "sea"], "tags": ["art|music", "", "sea"]})
    scoring = Scoring(frame, "text", ["art", "law", "sea"], "tags", task="multi-label")
    run(scoring, topics)
    assert (scoring.outcome().comparison.n, scoring.outcome().comparison.unlabelled) == (1, 2)
    assert batch_truth.guess_column(frame, ["art", "law", "sea"], "multi-label", ["text"]) is None
    with pytest.raises(DataError, match="none of which is clearly one of the labels art, law"):
        Scoring(frame.assign(tags="music"), "text", ["art", "law"], "tags", task="multi-label")


def lengths(texts):
    return [Prediction(str(len(t)), None, {"stars": float(len(t))}, "fake", 1, False, value=len(t)) for t in texts]


def test_numbers_are_compared_with_their_errors(tmp_path):
    frame = pandas.DataFrame({"text": ["a", "ab", "abc", "", "abcd"], "stars": ["1", "2,5", 2, 7, "many"]})
    assert batch_truth.guess_column(frame.head(4), ["stars"], "regression", ["text"]) == "stars"
    assert batch_truth.guess_column(frame, ["stars"], "regression", ["text"]) is None
    scoring = Scoring(frame, "text", ["stars"], "stars", task="regression")
    run(scoring, lengths)
    outcome = scoring.outcome(min_confidence=0.9)
    assert outcome.frame["difference"].tolist() == pytest.approx([0, -0.5, 1, numpy.nan, numpy.nan], nan_ok=True)
    comparison = outcome.comparison
    assert (comparison.n, comparison.unlabelled, comparison.accuracy) == (3, 1, None)
    assert comparison.scores["mae"].value == pytest.approx(0.5)
    assert comparison.scores["rmse"].value == pytest.approx((1.25 / 3) ** 0.5)
    assert comparison.scores["pearsonr"].value == pytest.approx(numpy.corrcoef([1, 2, 3], [1, 2.5, 2])[0, 1])
    save(outcome, tmp_path / "out.csv")
    saved = tables.read(tmp_path / "out.csv", tables.Limits()).frame
    assert batch_truth.guess_column(saved, ["stars"], "regression", ["text"]) == "truth"
    with pytest.raises(DataError, match="none of which is a number"):
        Scoring(frame, "text", ["stars"], "text", task="regression")
