import json

import numpy
import pandas
import pytest

from adapter_arena.data import load, summary
from adapter_arena.errors import DataError
from adapter_arena.recipe import Recipe

WORDS = ("good", "bad", "long", "short", "loud", "quiet", "warm", "cold")


def texts(n: int) -> list[str]:
    return [f"text {i} {WORDS[i % 8]}" for i in range(n)]


def read(tmp_path, labels: list, **fields) -> load.Splits:
    """Return the splits of a file in which the labels repeat over 80 rows."""
    path = tmp_path / "a.jsonl"
    rows = [{"text": text, "label": labels[i % len(labels)]} for i, text in enumerate(texts(80))]
    path.write_text("\n".join(map(json.dumps, rows)))
    return load.load_splits(Recipe(name="x", dataset=str(path), **fields))


def all_labels(splits: load.Splits) -> list:
    return [*splits.train.labels, *splits.validation["label"], *splits.test["label"]]


@pytest.mark.parametrize(
    ("labels", "names", "sets"),
    [
        ([["rude"], ["rude", "spam"]], ["rude", "spam"], {(0,), (0, 1)}),
        ([[0], [0, 1]], ["0", "1"], {(0,), (0, 1)}),
        (["[2, 3]", "[3]"], ["2", "3"], {(0, 1), (1,)}),
        (["['rude']", '["spam", "Rude"]', "[]"], ["rude", "spam"], {(0,), (0, 1), ()}),
        (["rude", "spam", "rude|spam"], ["rude", "spam"], {(0,), (1,), (0, 1)}),
        (["rude, spam", "spam", "rude"], ["rude", "spam"], {(0,), (1,), (0, 1)}),
    ],
)
def test_lists_and_joined_labels_are_read_as_several_labels(tmp_path, labels, names, sets):
    splits = read(tmp_path, labels)
    assert splits.task == "multi-label"
    assert [name.lower() for name in splits.labels] == names
    assert set(all_labels(splits)) == sets
    assert any(line.startswith("task         multi-label (") for line in summary.lines(splits))


def test_an_empty_list_is_no_label_and_an_empty_cell_is_a_row_without_one(tmp_path):
    splits = read(tmp_path, [["a"], [], ["a", "b"], None])
    assert splits.facts.unlabelled_removed == 20
    assert all_labels(splits).count(()) == 20
    assert splits.targets(numpy.array([(0, 1), ()], dtype=object)).tolist() == [[1, 1], [0, 0]]
    assert any("20 rows with an empty list" in line for line in summary.lines(splits))


def test_columns_of_zero_and_one_are_labels(tmp_path):
    content = pandas.DataFrame({"text": texts(60), "toxic": [0, 1] * 30, "rude": [0, 0, 1] * 20, "id": range(60)})
    path = tmp_path / "a.csv"
    content.to_csv(path, index=False)
    for column in (None, "rude,toxic"):
        splits = load.load_splits(Recipe(name="x", dataset=str(path), label_column=column))
        assert splits.task == "multi-label"
        assert splits.labels == ["rude", "toxic"]
        assert sorted(all_labels(splits)).count(()) == 20
    assert load.load_splits(Recipe(name="x", dataset=str(path), label_column="rude")).task == "single-label"
    with pytest.raises(DataError, match="Column id holds '2', but a column per label holds only 0 and 1"):
        load.load_splits(Recipe(name="x", dataset=str(path), label_column="rude,id"))


def test_a_test_file_without_all_label_columns_has_no_labels(tmp_path):
    content = pandas.DataFrame({"text": texts(60), "toxic": [0, 1] * 30, "rude": [0, 0, 1] * 20})
    content.to_csv(tmp_path / "train.csv", index=False)
    content.drop(columns="rude").assign(text="new " + content["text"]).to_csv(tmp_path / "test.csv", index=False)
    splits = load.load_splits(Recipe(name="x", dataset=str(tmp_path)))
    assert "test.csv has no column toxic, rude: its test rows have no labels." in splits.notes
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 60


def test_many_numbers_are_a_regression_and_few_are_classes(tmp_path):
    splits = read(tmp_path, [i / 4 for i in range(40)])
    assert splits.task == "regression"
    assert splits.labels == ["label"]
    assert sorted(all_labels(splits)) == sorted(2 * [i / 4 for i in range(40)])
    scaled = splits.targets(splits.train.labels)
    assert scaled.shape == (len(splits.train), 1)
    assert scaled.mean() == pytest.approx(0, abs=1e-6)
    assert scaled.std() == pytest.approx(1, abs=1e-6)
    assert read(tmp_path, [1, 2, 3, 4, 5]).task == "single-label"
    assert read(tmp_path, [1, 2, 3, 4, 5], task="regression").labels == ["label"]
    assert read(tmp_path, [i / 2 for i in range(1, 6)]).task == "single-label"


@pytest.mark.parametrize(
    ("labels", "fields", "message"),
    [
        ([["a"], ["a", ""], ["b"]], {}, r"label has an empty or missing entry in a list of labels"),
        ([["a"], ["a", None], ["b"]], {}, r"label has an empty or missing entry"),
        ([["a"], ["b"]], {"label_names": {"a": "A"}}, r"label_names has no name for class 'b'"),
        (["['a' 'b']", "['a']"], {}, r"which is not a list: write \[\"a\", \"b\"\] or a\|b"),
        ([["a"], ["a", "b"]], {"task": "single-label"}, "label holds lists, which --task single-label cannot learn"),
        ([*(i / 4 for i in range(40)), "great"], {}, r"not finite numbers \('great'\)"),
        ([1, 2, "three"], {"task": "regression"}, r"not finite numbers \('three'\)"),
        ([3.5], {"task": "regression"}, "label is 3.5 in all rows of .*: there is nothing to learn"),
        ([1, 2], {"task": "regression", "label_names": {"1": "one"}}, "label_names names classes"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused_in_one_line(tmp_path, labels, fields, message):
    with pytest.raises(DataError, match=message) as found:
        read(tmp_path, labels, **fields)
    assert "\n" not in str(found.value)


def test_what_few_training_rows_lack_is_said(tmp_path):
    splits = read(tmp_path, [["a"]] * 19 + [["b"]], n_train=2)
    assert "untrained    no training row has b" in summary.lines(splits)
    with pytest.raises(DataError, match=r"label is \S+ in all 1 training rows: raise --n-train"):
        read(tmp_path, [i / 4 for i in range(40)], n_train=1)


def test_a_label_that_is_not_in_the_training_rows_is_refused(tmp_path):
    for split, second in (("train", "b"), ("test", "c")):
        frame = pandas.DataFrame({"text": [f"{split} {i}" for i in range(40)], "label": ["a", f"a|{second}"] * 20})
        frame.loc[0, "label"] = second
        frame.to_csv(tmp_path / f"{split}.csv", index=False)
    with pytest.raises(DataError, match=r"Split test of .* has labels not seen in training: c"):
        load.load_splits(Recipe(name="x", dataset=str(tmp_path)))
