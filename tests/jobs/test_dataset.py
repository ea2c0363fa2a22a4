"""What is read of a file that is dropped in Train."""

import json

import pytest

from adapter_arena import tasks
from adapter_arena.errors import DataError
from adapter_arena.jobs import dataset


def write(path, header: str, rows: list[str]):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_columns_classes_and_splits_are_found(tmp_path):
    rows = [f"text number {n},{'good' if n % 3 else 'bad'},{n}" for n in range(300)]
    found = dataset.read(write(tmp_path / "a.csv", "review,sentiment,id", rows))
    assert (found.rows, found.columns, found.problem) == (300, ["review", "sentiment", "id"], "")
    assert (found.task, found.text_columns, found.label_columns) == (tasks.SINGLE_LABEL, ["review"], ["sentiment"])
    assert found.labels == ["bad", "good"]
    assert sum(found.counts) == found.splits["train"]
    assert sum(found.splits.values()) == 300
    assert 10 < found.characters < 20


def test_a_column_without_a_usual_name_is_chosen_by_its_length_or_by_hand(tmp_path):
    rows = [f"a longer text about {n},{'x' if n % 2 else 'y'}" for n in range(200)]
    path = write(tmp_path / "a.csv", "words,which", rows)
    found = dataset.read(path)
    assert "No label column among words, which" in found.problem
    assert (found.rows, found.columns) == (200, ["words", "which"])
    found = dataset.read(path, label_column="which")
    assert (found.problem, found.text_columns, found.labels) == ("", ["words"], ["x", "y"])


def test_several_labels_and_numbers(tmp_path):
    several = tmp_path / "several.jsonl"
    rows = [{"text": f"row {n}", "labels": ["a", "b"] if n % 2 else ["a"]} for n in range(200)]
    several.write_text("\n".join(map(json.dumps, rows)))
    found = dataset.read(several)
    assert (found.task, found.labels, found.counts[0]) == (tasks.MULTI_LABEL, ["a", "b"], found.splits["train"])
    numbers = write(tmp_path / "numbers.csv", "text,label", [f"row {n},{n / 7 + 2:.2f}" for n in range(200)])
    found = dataset.read(numbers)
    assert (found.problem, found.task, found.counts) == ("", tasks.REGRESSION, [])


def test_the_number_of_rows_is_limited(tmp_path):
    rows = [f"row {n},{n % 2}" for n in range(500)]
    found = dataset.read(write(tmp_path / "a.csv", "text,label", rows), rows=100)
    assert found.splits["train"] == 100
    assert any("--n-train" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.pdf", b"%PDF-1.4", "is not a .csv, .tsv, .jsonl, .parquet file"),
        ("a.parquet", b"PAR1 and then nothing", "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        dataset.read(path)
