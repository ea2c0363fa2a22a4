"""Labels: one name per class for training, Batch and label_names; what is missing or contradictory is counted."""

import dataclasses
import decimal
import json
import threading

import datasets
import numpy
import pandas
import pytest
import yaml

from adapter_arena.data import load, summary, tables
from adapter_arena.data.labels import label_name
from adapter_arena.errors import DataError
from adapter_arena.serve.batch import Scoring
from adapter_arena.serve.batch_outcome import save
from adapter_arena.serve.served import Prediction
from adapter_arena.train import recipes


def frame_of(labels: list, dtype=object, rows: int = 60) -> pandas.DataFrame:
    """Return so many different texts with these labels in turn."""
    repeated = [labels[i % len(labels)] for i in range(rows)]
    return pandas.DataFrame(
        {"text": [f"film number {i}" for i in range(rows)], "label": pandas.Series(repeated, dtype=dtype)}
    )


def splits_of(dataset, **overrides) -> load.Splits:
    return load.load_splits(recipes.resolve("lora", dataset=str(dataset), name="x", **overrides)[0])


def decision(splits: load.Splits, heading: str) -> str:
    """Return what a run prints under this heading; "" if nothing."""
    return "; ".join(note.text for note in splits.decisions if note.heading == heading)


def rows_of_class(splits: load.Splits) -> dict[str, int]:
    """Return the rows of each class over all splits."""
    numbers = [*splits.train.labels, *splits.validation["label"], *splits.test["label"]]
    counts = numpy.bincount(numbers, minlength=len(splits.labels))
    return dict(zip(splits.labels, counts.tolist()))


# ---------------------------------------------------------------- one name

ONES = [1, 1.0, "1", "1.0", "1.00", "1e0", "+1", " 1\xa0", numpy.int8(1), numpy.float32(1), decimal.Decimal("1.00")]
MISSING = [None, float("nan"), pandas.NA, pandas.NaT, numpy.datetime64("NaT"), "", " \u3000"]


@pytest.mark.parametrize("value", ONES)
def test_a_number_has_one_name(value):
    assert label_name(value) == "1"


@pytest.mark.parametrize("value", MISSING)
def test_a_missing_value_has_no_name(value):
    assert label_name(value) == ""


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("01", "01"),
        ("-0.50", "-0.5"),
        ("1.5", "1.5"),
        ("1e999", "1e999"),
        ("1.2.3", "1.2.3"),
        (numpy.float32(0.1), "0.1"),
        (True, "True"),
        (numpy.bool_(False), "False"),
        ("true", "True"),
        ("FALSE", "False"),
        (" very \xa0 good\ufeff", "very good"),
        ("Cafe\u0301", "Café"),
        ("None", "None"),
        ("'=sum", "=sum"),
        ("'tis", "'tis"),
    ],
)
def test_the_name_of_a_label(value, name):
    assert label_name(value) == name


def test_numbers_are_one_class_across_rows_splits_and_formats(tmp_path):
    frame_of(["0", "1.0", "0.0", "1"]).to_csv(tmp_path / "train.csv", index=False)
    validation = frame_of([0.0, 1.0, None], "float64").assign(text=lambda frame: frame["text"] + " validation")
    validation.to_parquet(tmp_path / "validation.parquet")
    test = frame_of([0, 1, None], "Int64").assign(text=lambda frame: frame["text"] + " test")
    test.to_parquet(tmp_path / "test.parquet")
    splits = splits_of(tmp_path)
    assert splits.labels == ["0", "1"]
    assert rows_of_class(splits) == {"0": 30 + 20 + 20, "1": 30 + 20 + 20}
    assert splits.facts.unlabelled_removed == 40
    assert "'1' as '1'" in decision(splits, "joined")


def test_booleans_are_the_same_in_every_format(tmp_path):
    frame_of([True, False], bool).to_json(tmp_path / "train.jsonl", orient="records", lines=True)
    frame_of(["true", "FALSE"]).assign(text=lambda frame: frame["text"] + " more").to_csv(tmp_path / "test.csv")
    splits = splits_of(tmp_path)
    assert splits.labels == ["False", "True"]
    assert len(splits.test) == 60


def test_case_and_spaces_make_no_class_and_the_most_frequent_spelling_is_shown(tmp_path):
    frame_of(["bad", "Good", "bad", " good ", "BAD", "Good"]).to_csv(tmp_path / "all.csv", index=False)
    splits = splits_of(tmp_path / "all.csv")
    assert rows_of_class(splits) == {"Good": 30, "bad": 30}
    assert decision(splits, "joined") == "'bad', 'BAD' as 'bad'; 'Good', ' good ' as 'Good'"


def test_of_equally_frequent_spellings_the_first_is_shown(tmp_path):
    frame_of(["bad", "Cafe\u0301", "bad", "CAFÉ"]).to_csv(tmp_path / "all.csv", index=False)
    assert splits_of(tmp_path / "all.csv").labels == ["Café", "bad"]


@pytest.mark.parametrize("spelling", ["Good", "GOOD"])
def test_a_split_in_another_case_has_the_same_classes(tmp_path, spelling):
    frame_of(["bad", "good"]).to_csv(tmp_path / "train.csv", index=False)
    frame_of(["Bad", spelling]).assign(text=lambda frame: frame["text"] + " test").to_csv(tmp_path / "test.csv")
    splits = splits_of(tmp_path)
    assert (splits.labels, len(splits.test)) == (["bad", "good"], 60)


def test_classes_that_differ_in_case_only_are_kept_apart_if_both_are_named(tmp_path):
    frame_of(["a", "A"]).to_csv(tmp_path / "all.csv", index=False)
    splits = splits_of(tmp_path / "all.csv", label_names={"a": "amp", "A": "ampere"})
    assert rows_of_class(splits) == {"amp": 30, "ampere": 30}


def test_class_names_of_a_parquet_file_are_used_and_kept_apart(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["none", "a", "A"])}
    )
    content = {"text": [f"film {i}" for i in range(60)], "label": [i % 4 - 1 for i in range(60)]}
    datasets.Dataset.from_dict(content, features).to_parquet(tmp_path / "all.parquet")
    splits = splits_of(tmp_path / "all.parquet")
    assert rows_of_class(splits) == {"A": 15, "a": 15, "none": 15}
    assert splits.facts.unlabelled_removed == 15
    named = splits_of(tmp_path / "all.parquet", label_names={0: "nothing", 1: "amp", 2: "ampere"})
    assert rows_of_class(named) == {"nothing": 15, "amp": 15, "ampere": 15}


# ---------------------------------------------------------------- missing


def test_missing_labels_of_every_type_are_counted_and_named(tmp_path):
    labels = ["good", "bad", None, "", "nan", "None", "<NA>", "N/A", "null", "none"]
    frame_of(labels, rows=200).to_json(tmp_path / "all.jsonl", orient="records", lines=True)
    splits = splits_of(tmp_path / "all.jsonl")
    assert rows_of_class(splits) == {"bad": 20, "good": 20, "none": 20}
    assert (splits.facts.unlabelled_removed, splits.facts.empty_removed) == (140, 0)
    for name in ("nan", "None", "<NA>", "N/A", "null"):
        assert f"{name!r} (20 rows)" in decision(splits, "unlabelled")


def test_none_is_a_class_if_it_is_named(tmp_path):
    frame_of(["For", "Against", "None"]).to_csv(tmp_path / "all.csv", index=False)
    names = {name: name.lower() for name in ("For", "Against", "None")}
    assert rows_of_class(splits_of(tmp_path / "all.csv", label_names=names)) == {"for": 20, "against": 20, "none": 20}


def test_an_error_names_what_was_left_out_as_unlabelled(tmp_path):
    frame_of(["Toxic", "None"]).to_csv(tmp_path / "all.csv", index=False)
    with pytest.raises(
        DataError, match=r"All rows of .* have the label 'Toxic'.* unlabelled: 'None' \(30 rows\); if that is"
    ):
        splits_of(tmp_path / "all.csv")


def test_a_text_none_is_a_text(tmp_path):
    frame = frame_of(["good", "bad"])
    frame.loc[:2, "text"] = ["None", "nan", "null"]
    frame.to_csv(tmp_path / "all.csv", index=False)
    assert splits_of(tmp_path / "all.csv").facts.empty_removed == 0


def test_missing_cells_of_categories_are_unlabelled(tmp_path):
    frame_of(["bad", "good", None]).astype({"label": "category"}).to_parquet(tmp_path / "all.parquet")
    assert splits_of(tmp_path / "all.parquet").facts.unlabelled_removed == 20


@pytest.mark.parametrize(
    ("labels", "names", "classes"),
    [
        ([0, 1, -1], None, {"0": 20, "1": 20}),
        (["0", "1.0", "-1.0"], None, {"0": 20, "1": 20}),
        ([-1, 1], None, {"-1": 30, "1": 30}),
        ([-2, -1, 1], None, {"-2": 20, "-1": 20, "1": 20}),
        (["a", "b", "-1"], None, {"-1": 20, "a": 20, "b": 20}),
        ([0, 1, -1], {-1: "bad", 0: "so-so", 1: "good"}, {"bad": 20, "so-so": 20, "good": 20}),
    ],
)
def test_minus_one_is_unlabelled_among_numbers_from_zero_up(tmp_path, labels, names, classes):
    frame_of(labels).astype({"label": str}).to_csv(tmp_path / "all.csv", index=False)
    splits = splits_of(tmp_path / "all.csv", label_names=names)
    assert rows_of_class(splits) == classes
    assert splits.facts.unlabelled_removed == 60 - sum(classes.values())
    assert bool(splits.facts.unlabelled_removed) == ("'-1' (20 rows)" in decision(splits, "unlabelled"))


def test_a_local_test_split_with_secret_labels_is_carved(tmp_path):
    frame_of([0, 1]).to_csv(tmp_path / "train.tsv", sep="\t", index=False)
    secret = frame_of([-1]).assign(text=lambda frame: frame["text"] + " test")
    secret.to_csv(tmp_path / "test.tsv", sep="\t", index=False)
    splits = splits_of(tmp_path)
    assert splits.facts.splits == {"train": 44, "validation": 4, "test": 12}
    assert not splits.test["text"].str.contains("test").any()
    assert decision(splits, "carved") == "validation, test (its own rows have no labels) from the training rows"


# ---------------------------------------------------------------- contradictions


def test_no_copy_of_a_text_with_contradicting_labels_is_used(tmp_path):
    frame = frame_of(["bad", "good"])
    extra = pandas.DataFrame(
        {"text": ["film number 2", "film number 2", "film number 3"], "label": ["good", "bad", "Good"]}
    )
    pandas.concat([frame, extra]).to_csv(tmp_path / "all.csv", index=False)
    splits = splits_of(tmp_path / "all.csv")
    facts = splits.facts
    assert (facts.contradictions_removed, facts.duplicates_removed) == (3, 1)
    assert sum(facts.splits.values()) == 59
    texts = [*splits.train.frame()["text"], *splits.validation["text"], *splits.test["text"]]
    assert "film number 2" not in texts
    assert texts.count("film number 3") == 1
    found = decision(splits, "contradicted")
    assert found.startswith("1 text of train")
    assert "row 3 'bad' and row 61 'good'" in found


def test_labels_of_one_class_do_not_contradict_each_other(tmp_path):
    twice = pandas.concat([frame_of([1, 4]), frame_of([2, 5])])
    twice.to_csv(tmp_path / "all.csv", index=False)
    splits = splits_of(tmp_path / "all.csv", label_names={1: "bad", 2: "bad", 4: "good", 5: "good"})
    assert (splits.facts.contradictions_removed, splits.facts.duplicates_removed) == (0, 60)


# ---------------------------------------------------------------- label_names


@pytest.mark.parametrize(
    ("labels", "keys"),
    [
        (["0", "1"], "{0: bad, 1: good}"),
        (["0.0", "1.0"], "{0: bad, 1: good}"),
        (["0", "1"], "{0.0: bad, 1.00: good}"),
        (["0", "1"], "{false: bad, true: good}"),
        (["False", "TRUE"], "{0: bad, 1: good}"),
        (["no", "yes"], "{no: bad, yes: good}"),
        (["off", "On"], "{off: bad, on: good}"),
        (["False", "True"], "{no: bad, yes: good}"),
        (["no", "yes"], "{false: bad, true: good}"),
        (["Neg", "POS"], "{neg: bad, pos: good}"),
        (["0", "good"], "{0: bad, 1: good}"),
    ],
)
def test_label_names_of_a_yaml_file_by_number_name_or_truth(tmp_path, labels, keys):
    frame_of(labels).to_csv(tmp_path / "all.csv", index=False)
    (tmp_path / "names.yaml").write_text(f"method: lora\nlabel_names: {keys}\n")
    recipe, _ = recipes.resolve(recipe=str(tmp_path / "names.yaml"), dataset=str(tmp_path / "all.csv"), name="x")
    splits = load.load_splits(recipe)
    assert splits.labels == ["bad", "good"]
    first = splits.test.iloc[0]
    assert first["label"] == int(first["text"].split()[-1]) % 2


def test_label_names_may_be_words_that_yaml_reads_as_booleans(tmp_path):
    frame_of(["0", "1"]).to_csv(tmp_path / "all.csv", index=False)
    (tmp_path / "names.yaml").write_text("label_names:\n  0: no\n  1: yes\n")
    recipe, _ = recipes.resolve(recipe=str(tmp_path / "names.yaml"), dataset=str(tmp_path / "all.csv"), name="x")
    assert load.load_splits(recipe).labels == ["no", "yes"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {0: "negative", 1: "positive"},
            r"has no name for class '2' \(20 rows\) of .*all.csv, only for 0, 1: add a name",
        ),
        ({0: "negative", 1: "positive", 2: None}, r"has no name for class '2' \(20 rows\)"),
        ({"0": "negative", "1": "positive", "1.0": "good", 2: "x"}, "names class '1' twice, 'positive' and 'good'"),
    ],
)
def test_a_class_without_a_name_is_named(tmp_path, names, message):
    frame_of(["0", "1", "2.0"]).to_csv(tmp_path / "all.csv", index=False)
    with pytest.raises(DataError, match=message):
        splits_of(tmp_path / "all.csv", label_names=names)


# ---------------------------------------------------------------- Batch


@pytest.mark.parametrize(
    ("own", "labels"),
    [
        (["0", "1.00"], ["0", "1"]),
        ([0.0, decimal.Decimal("1.0")], ["0", "1"]),
        (["false", True], ["False", "True"]),
        ([False, "TRUE"], ["no", "yes"]),
        ([" Cafe\u0301", "very\xa0good"], ["Café", "very good"]),
    ],
)
def test_batch_matches_labels_as_training_does(own, labels):
    frame = pandas.DataFrame({"text": ["a", "b", "c"], "label": pandas.Series([*own, "nan"], dtype=object)})
    scoring = Scoring(frame, "text", labels, "label")
    list(scoring.run(lambda texts: [answer(text, labels) for text in texts], threading.Event()))
    outcome = scoring.outcome()
    assert outcome.frame["truth"].fillna("").tolist() == [*labels, ""]
    assert (outcome.comparison.n, outcome.comparison.unlabelled) == (2, 1)


def answer(text: str, labels: list[str]) -> Prediction:
    return Prediction(labels[0], 0.75, {labels[0]: 0.75, labels[1]: 0.25}, "x", 2, False)


LABELS = ["=bad", "good, 'really'"]
TEXTS = ["=1+1", "'=1+1", "''-x", "'tis", "+1", "a\nb", '"quoted"', "None", "@home", "＝1", "x, y"]


def batch_file(folder) -> tuple[Scoring, list[str], list[str]]:
    """Write the answers for 55 texts to batch.csv; return their scoring, texts and true labels."""
    texts = [f"{text} {i}" for i in range(5) for text in TEXTS]
    truth = [LABELS[i % 2] for i in range(len(texts))]
    scoring = Scoring(pandas.DataFrame({"text": [*texts, ""], "own": [*truth, "?"]}), "text", LABELS, "own")
    list(scoring.run(lambda texts: [answer(text, LABELS) for text in texts], threading.Event()))
    save(scoring.outcome(), folder / "batch.csv")
    return scoring, texts, truth


def test_batch_reads_what_batch_wrote(tmp_path):
    first, texts, _ = batch_file(tmp_path)
    again = tables.read(tmp_path / "batch.csv", tables.Limits()).frame
    assert again["text"].tolist() == [*texts, ""]
    second = Scoring(again, "text", LABELS, "truth")
    list(second.run(lambda texts: [answer(text, LABELS) for text in texts], threading.Event()))
    assert second.outcome().frame.equals(first.outcome().frame)


def test_a_file_of_batch_can_be_trained_on(tmp_path):
    _, texts, truth = batch_file(tmp_path)
    splits = splits_of(tmp_path / "batch.csv")  # its column `label` has the answers, `truth` the labels
    assert splits.labels == LABELS
    assert decision(splits, "columns").startswith("text 'text', label 'truth'")
    read = pandas.concat([splits.train.frame(), splits.validation, splits.test])
    assert {text: LABELS[label] for text, label in zip(read["text"], read["label"])} == dict(zip(texts, truth))
    assert splits.facts.empty_removed == 1


# ---------------------------------------------------------------- what is printed


def test_the_summary_names_everything_in_twelve_lines(tmp_path):
    frame = frame_of(["bad", "Good", "good", None, "N/A"]).assign(id=1)
    pandas.concat([frame, frame.head(3).assign(label=["bad", "bad", "good"])]).to_csv(tmp_path / "all.csv", index=False)
    lines = summary.lines(splits_of(tmp_path / "all.csv", n_train=10))
    assert len(lines) <= 12
    printed = "\n".join(lines)
    for part in ("text 'text', label 'label'; not used: id", "24 without a label", "2 with contradicting labels",
                 "2 duplicate", "'Good', 'good' as 'good'", "'N/A' (12 rows)", "(--n-train 10)"):  # fmt: skip
        assert part in printed


def test_the_summary_of_many_classes_shows_the_largest_and_the_rarest(tmp_path):
    labels = [f"类 {i}" for i in range(20) for _ in range(5 + i)]
    frame = pandas.DataFrame({"text": [f"film {i}" for i in range(len(labels))], "label": labels})
    frame.to_csv(tmp_path / "all.csv", index=False)
    lines = summary.lines(splits_of(tmp_path / "all.csv"))
    assert len(lines) <= 12
    table = [line for line in lines if line.startswith(("class", "类", "…"))]
    assert table[1].startswith("类 19 ")
    assert table[-1].startswith("类 0 ")
    shown = len(table) - 2
    assert f"… {20 - shown} more classes" in table


def test_recipes_with_any_label_names_are_read_back(tmp_path):
    names = {"yes": "no", "1": "on", "01": "~", "null": "1.0", "a: b # c": '"quoted" | x', "中文": "- 标签"}
    recipe, _ = recipes.resolve("lora", name="x", label_names=names)
    content = dataclasses.asdict(recipe)
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    (tmp_path / "x.json").write_text(json.dumps(content), encoding="utf-8")
    for suffix in ("yaml", "json"):
        assert recipes.resolve(recipe=str(tmp_path / f"x.{suffix}"))[0] == recipe
