import pandas
import pytest

from adapter_arena.data.labels import guess_label_column, guess_text_column, match_labels

SENTIMENT = ["negative", "positive"]
N, P = SENTIMENT


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"id": "a long long identifier", "Review": "short"}, "Review"),
        ({"comment": "x", "text": "y"}, "text"),
        ({"id": "7", "was er sagte": "ein langer Satz", "n": 3}, "was er sagte"),
        ({"only": 5}, "only"),
    ],
)
def test_text_column_is_guessed_by_name_or_by_length(columns, expected):
    assert guess_text_column(pandas.DataFrame([columns])) == expected


@pytest.mark.parametrize(
    ("values", "labels", "expected"),
    [
        ({N, P}, SENTIMENT, {N: N, P: P}),
        ({"Negative", " POSITIVE"}, SENTIMENT, {"Negative": N, " POSITIVE": P}),
        ({"neg", "POS"}, SENTIMENT, {"neg": N, "POS": P}),
        ({N, "Positive"}, ["NEG", "POS"], {N: "NEG", "Positive": "POS"}),
        ({"0", "1"}, SENTIMENT, {"0": N, "1": P}),
        ({"0", "3"}, ["World", "Sports", "Business", "Tech"], {"0": "World", "3": "Tech"}),
        ({"1", "2", "4", "5"}, SENTIMENT, {"1": N, "2": N, "4": P, "5": P}),
        ({"1", "3", "5"}, ["positive", "negative"], {"1": N, "3": None, "5": P}),
        ({"1", "2", "3", "4", "5"}, list("12345"), {n: n for n in "12345"}),
        ({"0", "LABEL_1"}, ["LABEL_0", "LABEL_1"], {"0": "LABEL_0", "LABEL_1": "LABEL_1"}),
        ({"good", P}, SENTIMENT, {P: P}),
        ({"a", "A"}, ["a", "A"], {"a": "a", "A": "A"}),
    ],
)
def test_every_accepted_spelling_of_a_label_is_matched(values, labels, expected):
    assert match_labels(values, labels) == expected


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ({"1", "2"}, SENTIMENT),  # places counted from one, or stars
        ({"1"}, SENTIMENT),
        ({"1", "2", "3"}, SENTIMENT),
        ({"0", "1", "5"}, SENTIMENT),
        ({"1", "5", "10"}, SENTIMENT),
        ({"4", "5"}, ["ham", "spam"]),
        ({"-1", "1.5", "²"}, SENTIMENT),
        ({"NEG"}, ["neg", "Negative"]),
    ],
)
def test_ambiguous_values_are_not_matched(values, labels):
    assert match_labels(values, labels) == {}


@pytest.mark.parametrize(
    ("column", "cells", "expected"),
    [
        ("Stars", ["1", "5", ""], "Stars"),
        ("Stars", [1.0, 5.0, None], "Stars"),
        ("label", ["0.0", "1.0", "0"], "label"),
        ("label", [True, False, True], None),
        ("label", ["1", "1", "9"], None),
        ("label", ["", "", ""], None),
        ("verified", ["0", "1", "1"], None),
        ("opinion", ["pos", "neg", "pos"], "opinion"),
        ("opinion", ["pos", "neg", "perhaps"], None),
        ("opinion", [["pos"], {"neg": 1}, None], None),
    ],
)
def test_label_column_is_guessed_only_if_every_value_matches(column, cells, expected):
    frame = pandas.DataFrame({"text": [N, P, N], column: cells})
    assert guess_label_column(frame, SENTIMENT, "text") == expected


def test_a_file_sorted_by_label_is_read_to_its_end():
    frame = pandas.DataFrame({"text": ["x"] * 1000, "label": ["1"] * 700 + ["0"] * 300})
    assert guess_label_column(frame, SENTIMENT, "text") == "label"


def test_label_column_may_have_categories_and_missing_cells():
    frame = pandas.DataFrame({"text": ["a", "b", "c"], "label": pandas.Categorical(["neg", None, "pos"])})
    assert guess_label_column(frame, SENTIMENT, "text") == "label"
