"""Pairs of texts in files: which columns are read, and rows that are not used."""

import re

import pandas
import pytest

from adapter_arena.data import load, rows, summary
from adapter_arena.errors import DataError
from adapter_arena.models import loading, tokens
from adapter_arena.train import recipes, trainer


def pairs_frame(n: int = 60, names=("premise", "hypothesis", "label")) -> pandas.DataFrame:
    """Return rows that only both texts together tell apart."""
    content = [(f"first {i % 5}", f"second {i // 5}", ("no", "yes")[i % 2]) for i in range(n)]
    return pandas.DataFrame(content, columns=list(names))


def splits_of(frame, place, name="all.csv", **fields) -> load.Splits:
    frame.to_csv(place / name, index=False)
    recipe, _ = recipes.resolve("lora", dataset=str(place / name), **fields)
    return load.load_splits(recipe)


def texts_of(splits: load.Splits) -> list:
    return [*splits.train.frame()["text"], *splits.validation["text"], *splits.test["text"]]


def columns_line(splits: load.Splits) -> str:
    return next(line for line in summary.lines(splits) if line.startswith("columns"))


@pytest.mark.parametrize(
    "names",
    [
        ("sentence1", "sentence2"),
        ("Premise", "Hypothesis"),
        ("question", "answer"),
        ("query", "passage"),
        ("question", "sentence"),
        ("question1", "question2"),
        ("text_a", "text_b"),
        ("text1", "text2"),
        ("text", "text_pair"),
    ],
)
def test_the_usual_columns_of_a_pair_are_read_and_printed(tmp_path, names):
    splits = splits_of(pairs_frame(names=(*names, "label")), tmp_path)
    frame = pairs_frame()
    assert sorted(texts_of(splits)) == sorted(zip(frame["premise"], frame["hypothesis"]))
    assert f"pair {names[0]!r} and {names[1]!r}, label 'label'" in columns_line(splits)
    assert splits.facts.text_columns == list(names)
    assert splits.facts.duplicates_removed == splits.facts.leaked_removed == 0


def test_columns_can_be_named_and_single_texts_stay_single(tmp_path):
    frame = pairs_frame(names=("a", "b", "label"))
    both = splits_of(frame, tmp_path, text_column="b", text_pair_column="a")
    assert both.train.frame()["text"][0][0].startswith("second")
    single = splits_of(pairs_frame().assign(text=[f"text {i}" for i in range(60)]), tmp_path)
    assert single.facts.text_columns == ["text"]
    assert "not used: premise, hypothesis" in columns_line(single)
    unique = pairs_frame().assign(hypothesis=[f"second {i}" for i in range(60)])
    half = splits_of(unique, tmp_path, text_column="hypothesis")
    assert half.facts.text_columns == ["hypothesis"]
    partner = splits_of(pairs_frame(), tmp_path, text_pair_column="hypothesis")
    assert partner.facts.text_columns == ["premise", "hypothesis"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"text_pair_column": "c"}, "Unknown column 'c'"),
        ({"text_pair_column": "b"}, "No text column among a, b, label: name it with --text-column"),
        ({"text_column": "a", "text_pair_column": "a"}, "Column a is both texts of the pair"),
        ({"text_column": "a", "text_pair_column": "label"}, "Column label is a text and the label"),
    ],
)
def test_impossible_columns_are_refused(tmp_path, fields, reason):
    with pytest.raises(DataError, match=re.escape(reason)):
        splits_of(pairs_frame(names=("a", "b", "label")), tmp_path, **fields)


def test_a_column_of_lists_is_refused_as_second_text(tmp_path):
    frame = pairs_frame().assign(hypothesis=[["a", "list"]] * 60)
    frame.to_parquet(tmp_path / "all.parquet")
    recipe, _ = recipes.resolve("lora", dataset=str(tmp_path / "all.parquet"))
    with pytest.raises(DataError, match=r"Column hypothesis holds lists, not a text.*--text-pair-column"):
        load.load_splits(recipe)


def test_duplicates_contradictions_and_empty_sides_are_those_of_the_pair(tmp_path):
    more = pandas.DataFrame(
        [
            ("first 0", "second 0", "no"),  # a duplicate
            ("first 1", "second 0", "no"),  # row 2 says yes
            ("second 0", "first 0", "yes"),  # in the other order it is another pair
            ("first 9", " ", "yes"),
            (None, "second 9", "yes"),
            ("", "", "yes"),
        ],
        columns=["premise", "hypothesis", "label"],
    )
    splits = splits_of(pandas.concat([pairs_frame(), more]), tmp_path)
    facts = splits.facts
    assert (facts.duplicates_removed, facts.contradictions_removed, facts.empty_removed) == (1, 2, 3)
    assert sum(facts.splits.values()) == 60 - 1 + 1
    lines = "\n".join(summary.lines(splits))
    assert "half empty   pairs with only one text left out: 2 of train (row 64)" in lines


def test_leaks_between_splits_are_those_of_the_pair(tmp_path):
    pairs_frame().to_csv(tmp_path / "train.csv", index=False)
    test = pairs_frame(10)
    test.loc[:7, "hypothesis"] = "another"
    test.drop_duplicates().to_csv(tmp_path / "test.csv", index=False)
    recipe, _ = recipes.resolve("lora", dataset=str(tmp_path))
    assert load.load_splits(recipe).facts.leaked_removed == 2


def test_tokenised_pairs_are_cached_with_their_types(tmp_path, tiny):
    splits = splits_of(pairs_frame(), tmp_path)
    tokenizer = loading.load_tokenizer(tiny)
    encoded = tokens.encode(tokenizer, splits.train.frame()["text"].tolist(), 16)
    for _ in range(2):
        table = rows.token_ids(tokenizer, splits.train, 16)
        assert table["ids"].to_pylist() == [row.ids for row in encoded]
        assert table["types"].to_pylist() == [row.types for row in encoded]
    trained_on = trainer.EncodedRows(tokenizer, splits.train, 16, reads_token_types=True)
    assert trained_on[0]["token_type_ids"] == encoded[0].types
    assert "token_type_ids" not in trainer.EncodedRows(tokenizer, splits.train, 16)[0]
    validation = rows.Rows.from_frame(splits.validation)
    assert validation.frame()["text"].tolist() == splits.validation["text"].tolist()
