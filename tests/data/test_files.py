"""Data files as people have them: what is read of each kind, or the line that refuses it."""

import bz2
import csv
import gzip
import json
import lzma
import zipfile

import datasets
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from adapter_arena.data import load, sources, summary, tables
from adapter_arena.errors import DataError
from adapter_arena.train import recipes

THINGS = ["screen", "meal", "parcel", "chair", "garden", "visit", "phone"]


def rows(n: int, start: int = 0, labels=("bad", "good")) -> list[tuple[str, str]]:
    return [
        (f"The {THINGS[i % 7]} was late, and the {THINGS[i % 5]} was neat: {i}.", labels[i % len(labels)])
        for i in range(start, start + n)
    ]


def frame(n: int = 60, start: int = 0, labels=("bad", "good"), columns=("text", "label")) -> pandas.DataFrame:
    return pandas.DataFrame(rows(n, start, labels), columns=list(columns))


def csv_of(content: pandas.DataFrame, **options) -> str:
    return content.to_csv(index=False, **options)


def splits_of(dataset, **fields) -> load.Splits:
    return load.load_splits(recipes.resolve("lora", dataset=str(dataset), name="x", **fields)[0])


def texts_of(splits: load.Splits) -> set[str]:
    return {*splits.train.frame()["text"], *splits.validation["text"], *splits.test["text"]}


def assert_reads(dataset, texts, **fields) -> load.Splits:
    splits = splits_of(dataset, **fields)
    assert texts_of(splits) == set(texts)
    assert splits.labels == ["bad", "good"]
    return splits


def assert_refused(dataset, message: str, **fields) -> None:
    with pytest.raises(DataError, match=message) as refused:
        splits_of(dataset, **fields)
    assert len(str(refused.value).splitlines()) == 1


# ---------------------------------------------------------------- several files of a split, and what is not used


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        ["train_2.csv", "train_10.csv"],
        ["train.csv", "train_extra.csv"],
        ["train.csv", "train (1).csv"],
        ["TRAIN-0.CSV", "train-1.Jsonl"],
        ["train/a.csv", "train/b.csv"],
        ["data/train-00000-of-00002-0a1b2c3d4e5f6a7b.parquet", "data/train-00001-of-00002-0a1b2c3d4e5f6a7b.parquet"],
        ["data/train/0000.parquet", "data/train/0001.parquet"],
        ["reviews_train_a.tsv", "reviews_train_b.tsv"],
        ["part-00000.parquet", "part-00001.parquet"],
    ],
)
def test_all_files_of_a_split_are_read_in_order(tmp_path, names):
    for number, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, frame(40, 100 * number))
    splits = assert_reads(tmp_path, [*frame(40)["text"], *frame(40, 100)["text"]])
    assert splits.files["train"] == names
    assert splits.train.texts.to_pylist()[::40] == [rows(1)[0][0], rows(1, 100)[0][0]]


def write_table(path, content: pandas.DataFrame) -> None:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        content.to_parquet(path)
    elif suffix == ".jsonl":
        content.to_json(path, orient="records", lines=True)
    else:
        content.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")


def test_files_that_are_not_used_are_named_with_the_reason(tmp_path):
    """As on Kaggle: the test rows have no labels."""
    frame().to_csv(tmp_path / "train.csv", index=False)
    frame().to_parquet(tmp_path / "train.parquet")
    frame(20, 500)[["text"]].to_csv(tmp_path / "test.csv", index=False)
    frame(20).to_csv(tmp_path / "sample_submission.csv", index=False)
    (tmp_path / "training_params.json").write_text("{}")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "old").mkdir()
    for _ in range(2):  # also if the rows are cached
        splits = assert_reads(tmp_path, frame()["text"])
        assert splits.notes == [
            "Not used, no split in the name: sample_submission.csv.",
            "Not used, the same file in another format is read: train.csv.",
            "Not used, tables of another format are read: training_params.json.",
            "Not used, not a table: picture.png.",
            "Not used, a folder that is not named after a split: old.",
            "test.csv has no column label: its test rows have no labels.",
        ]
        assert summary.lines(splits)[-6:] == [f"note         {note}" for note in splits.notes]


def test_files_of_a_split_need_the_same_columns_in_any_case(tmp_path):
    frame(40).to_csv(tmp_path / "train_a.csv", index=False)
    frame(40, 100, columns=("Text", " LABEL")).to_csv(tmp_path / "train_b.csv", index=False)
    assert_reads(tmp_path, [*frame(40)["text"], *frame(40, 100)["text"]])
    frame(40, 100, columns=("words", "label")).to_csv(tmp_path / "train_b.csv", index=False)
    assert_refused(tmp_path, r"Split train has no column text \(train_b.csv has words, label\)")


@pytest.mark.parametrize("validation", ["dev", "val", "valid", "validation", "eval"])
def test_the_layout_of_glue(tmp_path, validation):
    for name, start, n in (("train", 0, 60), (validation, 1000, 20), ("test", 2000, 20)):
        content = frame(n, start, columns=("sentence", "label"))
        content = content[["sentence"]].reset_index() if name == "test" else content
        content.to_csv(tmp_path / f"{name}.tsv", sep="\t", index=False, quoting=csv.QUOTE_NONE)
    splits = assert_reads(tmp_path, [*frame()["text"], *frame(20, 1000)["text"]])
    assert len(splits.validation) == 20


def test_a_folder_without_a_train_split_names_the_choices(tmp_path):
    frame(60).to_csv(tmp_path / "first.csv", index=False)
    frame(20, 500).to_csv(tmp_path / "held-out.csv", index=False)
    frame(20, 900).to_csv(tmp_path / "test.csv", index=False)
    assert_refused(tmp_path, "only first.csv, held-out.csv, test.csv: name the one to train on with --train-split")
    splits = assert_reads(
        tmp_path,
        [*frame(60)["text"], *frame(20, 500)["text"]],
        train_split="first",
        test_split="held-out.csv",
        n_validation=100,
    )
    assert splits.notes == ["Not used, another split was chosen: test.csv."]
    assert_refused(tmp_path, "Unknown split .* 'held': did you mean 'held-out.csv'", test_split="held")
    assert_refused(tmp_path / "first.csv", "has no splits to choose from: leave out --test-split", test_split="test")


def test_splits_that_are_swapped_are_read_again(tmp_path):
    frame(60).to_csv(tmp_path / "train.csv", index=False)
    frame(30, 500).to_csv(tmp_path / "test.csv", index=False)
    assert len(splits_of(tmp_path).test) == 30
    assert len(splits_of(tmp_path, train_split="test", test_split="train").test) == 60


def test_a_folder_per_class_is_refused(tmp_path):
    (tmp_path / "train" / "pos").mkdir(parents=True)
    assert_refused(tmp_path, r"has a folder per class \(pos\), which is not supported: write a table")


# ---------------------------------------------------------------- configurations


def test_a_configuration_of_what_has_none_is_refused(tmp_path):
    frame(60).to_csv(tmp_path / "train.csv", index=False)
    assert_refused(tmp_path, "has no configurations: leave out --dataset-config en", dataset_config="en")


def test_a_folder_per_configuration(tmp_path):
    for number, name in enumerate(("en", "fr")):
        (tmp_path / name).mkdir()
        frame(60, 100 * number).to_csv(tmp_path / name / "train.csv", index=False)
    assert_refused(tmp_path, "has several configurations: en, fr. Choose one with --dataset-config")
    assert_refused(tmp_path, "Unknown configuration .* 'frr': did you mean 'fr'", dataset_config="frr")
    assert_reads(tmp_path, frame(60, 100)["text"], dataset_config="fr")


def test_configurations_of_a_dataset_card(tmp_path):
    for number, name in enumerate(("en", "fr")):
        frame(60, 100 * number).to_csv(tmp_path / f"{name}-all.csv", index=False)
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files: en-all.csv\n- config_name: fr\n  data_files:\n"
        "  - split: main\n    path: fr-*.csv\n  - split: far\n    path: ../*.csv\n---\n"
    )
    assert_refused(tmp_path, "has several configurations: en, fr")
    assert_refused(tmp_path, "has no train split, only main: choose one with --train-split", dataset_config="fr")
    splits = assert_reads(tmp_path, frame(60, 100)["text"], dataset_config="fr", train_split="main")
    assert splits.notes == [f"Configuration fr of {tmp_path.name} is used; not used: en."]


def test_configurations_on_the_hub(monkeypatch):
    def load_dataset(dataset, config=None, **options):
        if config != "fr":
            raise ValueError("Config name is missing.\nPlease pick one among the available configs.")
        return datasets.DatasetDict({"main": datasets.Dataset.from_pandas(frame(60)), "extra": labelled(20, 500)})

    monkeypatch.setattr(sources.network, "hub_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda dataset: ["en", "fr"])
    name = "fancyzhx/ag_news"
    assert_refused(name, f"Dataset {name} has several configurations: en, fr. Choose one with --dataset-config")
    assert_refused(name, "Unknown configuration .* 'de'", dataset_config="de")
    assert_refused(name, "has no train split, only main, extra: choose one with --train-split", dataset_config="fr")
    splits = assert_reads(name, frame(60)["text"], dataset_config="fr", train_split="main")
    assert splits.notes == [
        "Splits that are not used: extra (choose with --train-split, --validation-split or --test-split)."
    ]
    splits = splits_of(name, dataset_config="fr", train_split="main", test_split="extra")
    assert set(splits.test["text"]) == set(frame(20, 500)["text"])


# ---------------------------------------------------------------- what the `datasets` library writes


def labelled(n: int, start: int = 0) -> datasets.Dataset:
    """Return a dataset whose labels are numbers of named classes."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    content = frame(n, start)
    return datasets.Dataset.from_dict({"text": content["text"], "label": [i % 2 for i in range(n)]}, features)


def test_a_saved_dataset(tmp_path):
    labelled(60).save_to_disk(str(tmp_path / "saved"), num_shards=3)
    splits = assert_reads(tmp_path / "saved", frame()["text"])
    assert (
        dict(zip(splits.test["text"], splits.test["label"])).items()
        <= {text: ["bad", "good"].index(label) for text, label in rows(60)}.items()
    )


def test_a_saved_dictionary_of_datasets(tmp_path):
    content = datasets.DatasetDict({"first": labelled(60), "test": labelled(20, 500), "rest": labelled(20, 900)})
    content.save_to_disk(str(tmp_path / "saved"))
    assert_refused(tmp_path / "saved", "has no train split, only first, test, rest")
    splits = splits_of(tmp_path / "saved", train_split="first")
    assert set(splits.test["text"]) == set(frame(20, 500)["text"])
    assert splits.files == {"train": ["first"], "test": ["test"]}
    assert_reads(tmp_path / "saved" / "first", frame()["text"])


def test_splits_that_were_saved_one_by_one(tmp_path):
    labelled(60).save_to_disk(str(tmp_path / "train"))
    labelled(20, 500).save_to_disk(str(tmp_path / "test"))
    assert_reads(tmp_path, [*frame()["text"], *frame(20, 500)["text"]])


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_class_names_in_the_metadata_of_a_file(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    labels = [0, 1] * 29 + [-1, 7]
    content = labelled(60).remove_columns("label").add_column("label", labels)
    content = content.cast_column("label", datasets.ClassLabel(names=["bad", "good", *"cdefgh"]))
    if suffix == ".parquet":
        content.to_parquet(str(path))
    else:
        content.save_to_disk(str(tmp_path / "saved"))
        path = next((tmp_path / "saved").glob("*.arrow"))
    (part,) = sources.find(recipes.resolve("lora", dataset=str(path), name="x")[0]).splits["train"]
    labels = [label for found in part.read([]) for label in found["label"]]
    assert labels[:2] == ["bad", "good"]
    assert labels[-2:] == [None, "h"]


# ---------------------------------------------------------------- suffixes and compression


@pytest.mark.parametrize(
    "name", ["DATA.CSV", "data.CSV.gz", "data.tsv.GZ", "data.jsonl.gz", "data.json.bz2", "data.csv.xz"]
)
def test_suffixes_in_any_case_and_compressed(tmp_path, name):
    path = tmp_path / name
    plain = tmp_path / f"plain{tables.table_suffix(path)}"
    if plain.suffix == ".json":
        frame().to_json(plain, orient="records")
    else:
        write_table(plain, frame())
    openers = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    with openers.get(path.suffix.lower(), open)(path, "wb") as file:
        file.write(plain.read_bytes())
    assert_reads(path, frame()["text"])


def test_a_zip_archive_of_one_table(tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/data.csv", csv_of(frame()))
        archive.writestr("__MACOSX/._data.csv", "x")
    assert_reads(path, frame()["text"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.csv", csv_of(frame()))
    assert_refused(path, "it must contain one table, and it contains folder/data.csv, more.csv; unpack it")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv.gz",
            gzip.compress(b"text,label\n" * 999, mtime=0)[:30],
            "cannot be read as .csv: Compressed file ended",
        ),
        ("a.csv.gz", b"text,label\n", "cannot be read as .csv: Not a gzipped file"),
        ("a.zip", b"text,label\n", "cannot be read as .zip"),
        ("a.csv.zst", b"text,label\n", "cannot be read as .csv"),
        ("a.xlsx", b"PK\x03\x04", "cannot be read as .xlsx"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer, not the data; download"),
        ("a.txt", b"One text.\nAnother, with a comma.\n", "no table with a separator in each line"),
        ("a.doc", b"x", r"Or name a file or folder|is not a \.csv"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    assert_refused(path, message)


# ---------------------------------------------------------------- separators, encodings and headers


@pytest.mark.parametrize(
    ("separator", "first_line", "line_end", "encoding", "suffix"),
    [
        (";", "sep=;", "\n", "utf-8", ".csv"),
        (";", '"sep=;"', "\r\n", "utf-8-sig", ".csv"),
        ("\t", "sep=\t", "\r\n", "utf-16", ".csv"),
        ("|", None, "\n", "utf-8", ".csv"),
        (",", None, "\r", "utf-8", ".csv"),
        (",", None, "\n", "utf-8", ".tsv"),
        ("\t", None, "\r\n", "utf-16-be", ".tsv"),
        (";", None, "\n", "utf-8", ".txt"),
    ],
)
def test_separators_and_encodings(tmp_path, separator, first_line, line_end, encoding, suffix):
    content = csv_of(frame(), sep=separator, lineterminator=line_end)
    if first_line:
        content = f"{first_line}{line_end}{content}"
    if encoding == "utf-16-be":
        content = f"\ufeff{content}"
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content.encode(encoding))
    assert_reads(path, frame()["text"])


@pytest.mark.parametrize("separator", ["\t", ","])
@pytest.mark.parametrize("order", [["text", "label"], ["label", "text"]])
def test_two_columns_without_a_header_are_named(tmp_path, separator, order):
    path = tmp_path / "data.csv"
    path.write_text(csv_of(frame()[order], sep=separator, header=False))
    splits = assert_reads(path, frame()["text"])
    assert splits.notes == [
        f"data.csv has no header, its first row is data: its columns were named {', '.join(order)}."
    ]


def test_rows_that_two_separators_split_are_refused(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(csv_of(frame(), sep=";", header=False))  # every text has a comma
    assert_refused(path, "its rows can be split at ; or ,; write a first line with the column names")


def test_three_columns_without_a_header_have_to_be_named(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("".join(f'"{label}","Title {i}","{text}"\n' for i, (text, label) in enumerate(rows(60))))
    assert_refused(path, "train.csv has no header, its first row is data.* name it with --text-column")
    assert_reads(path, frame()["text"], text_column="column 3", label_column="column 1")


def test_headers_that_are_numbers_are_repeated_or_have_spaces(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(csv_of(pandas.DataFrame(rows(60))))
    assert_reads(path, frame()["text"], text_column="0", label_column="1")
    path.write_text(csv_of(frame(30)) + csv_of(frame(30, 30)))
    assert assert_reads(path, frame()["text"]).notes == ["data.csv: 1 rows that repeat the header were left out."]
    path.write_text(csv_of(frame(columns=(" Text", "LABEL "))))
    assert_reads(path, frame()["text"])


def test_rows_joined_by_stray_quotation_marks_are_noted(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text('text,label\n"a ""good"" film",1\n"dull",0\n"fine\nbut long",1\n"bad",0\n')
    notes: list[str] = []
    assert sum(len(frame) for frame in tables.iter_frames(path, notes)) == 4
    assert notes == ["data.csv: 1 rows have line breaks within a quoted cell, the first ends in line 5."]


# ---------------------------------------------------------------- quotation marks


@pytest.mark.parametrize(
    "quote",
    [
        lambda number, text: f'"{text}' if number % 13 == 0 else text,
        lambda number, text: f'"{text}"' if number % 13 == 0 else text,
        lambda number, text: f'"{text[:9]}" {text[9:]}' if number % 13 == 0 else text,
        lambda number, text: f'"{text}' if number % 20 == 0 else f'{text}"' if number % 20 == 5 else text,
    ],
)
def test_tab_separated_files_without_quotation_are_read_completely(tmp_path, quote):
    """As GLUE and the Hub write them: a quotation mark is a part of the text."""
    texts = [quote(number, text) for number, (text, _) in enumerate(rows(60))]
    path = tmp_path / "data.tsv"
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\t{row[1]}\n" for text, row in zip(texts, rows(60))))
    assert assert_reads(path, texts).notes == [
        "data.tsv: quotation marks are read as parts of the texts, not as marks around cells."
    ]


@pytest.mark.parametrize(
    ("separator", "quoting"), [("\t", csv.QUOTE_MINIMAL), ("\t", csv.QUOTE_ALL), (",", csv.QUOTE_MINIMAL)]
)
def test_properly_quoted_cells_are_read_completely(tmp_path, separator, quoting):
    content = frame()
    content["text"] = "Dear all, hello\n" + content["text"]
    content.loc[3, "text"] = 'He said "go",\r\n\r\nI "went"'
    content.loc[4, "text"] = 'A\ttab, and a "word"'
    path = tmp_path / "data.tsv"
    path.write_bytes(csv_of(content, sep=separator, quoting=quoting).encode())
    [note] = assert_reads(path, content["text"]).notes
    assert note.startswith("data.tsv: 59 rows have line breaks within a quoted cell, the first ends in line 3.")


def damaged(quoted: dict[int, str], label_first: bool = False) -> str:
    """Return a table with quotation marks before or after the texts of some rows."""
    lines = ["label,text" if label_first else "text,label"]
    for number, (text, label) in enumerate(rows(60)):
        text = quoted.get(number, "{}").format(text.replace(",", " -"))
        lines.append(f"{label},{text}" if label_first else f"{text},{label}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (damaged({10: '"{}'}), "line 12 opens a quotation mark that is never closed"),
        (damaged({10: '"{}', 20: '{}"'}), "line 12 opens a quotation mark that joins it with the lines after it"),
        (damaged({10: '"{}', 11: '{}"'}, label_first=True), "line 12 opens a quotation mark that joins it"),
        (damaged({number: '{}"' if number % 2 else '"{}' for number in range(60)}), "line 2 opens a quotation mark"),
        (damaged({10: '"{}', 20: '"{}'}), "the row from line 12 on has a quotation mark within a quoted cell"),
        (damaged({10: '"He \\"said\\" {}"'}), "the row from line 12 on has a quotation mark within a quoted cell"),
        (damaged({10: "one\ntwo {}"}), "line 12 has 1 cells for 2 columns; quote cells that contain a line break"),
        (damaged({10: "one, {}"}), "line 12 has 3 cells for 2 columns; quote cells that contain the separator"),
    ],
)
def test_rows_that_cannot_be_parsed_safely_are_refused_with_the_line(tmp_path, content, message):
    path = tmp_path / "data.csv"
    path.write_text(content)
    assert_refused(path, message)


# ---------------------------------------------------------------- JSON


RECORDS = [{"text": text, "label": label} for text, label in rows(60)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(RECORDS)),
        ("a.json", json.dumps(RECORDS, indent=2)),
        ("a.json", "\n".join(map(json.dumps, RECORDS))),
        ("a.ndjson", "\n".join(map(json.dumps, RECORDS))),
        ("a.json", json.dumps({"version": "1", "data": RECORDS})),
        ("a.json", json.dumps(frame().to_dict(orient="list"))),
        ("a.json", frame().to_json(orient="columns")),
        ("a.json", frame().to_json(orient="index")),
        ("a.json", frame().to_json(orient="split")),
    ],
)
def test_json_in_every_layout(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    assert_reads(path, frame()["text"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": RECORDS, "test": RECORDS}, r"it has several tables \(train, test\); write each to a file"),
        ({"text": ["a", "b"], "label": ["x"]}, r"different numbers of rows \(text 2, label 1\)"),
        (["a", "b"], "entry 1 is not a JSON object"),
        (5, "it is not a list of objects"),
        ({"a": {"x": 1}, "b": {"y": 2}}, "do not all have the same keys"),
    ],
)
def test_json_without_rows_is_refused(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert_refused(path, message)


def test_numbers_stay_as_they_were_written(tmp_path):
    """With a missing cell in the column, pandas would make 1 into 1.0."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"label": 1}\n{"label": null}\n{"label": 9007199254740993}\n{"label": 1.5}\n{"label": true}')
    (found,) = tables.iter_frames(path)
    assert [repr(label) for label in found["label"]] == ["1", "None", "9007199254740993", "1.5", "True"]
    pyarrow.parquet.write_table(pyarrow.table({"label": [1, None, 9007199254740993]}), tmp_path / "a.parquet")
    (found,) = tables.iter_frames(tmp_path / "a.parquet")
    assert found["label"].tolist() == [1, None, 9007199254740993]


# ---------------------------------------------------------------- columns that cannot be used


def test_objects_are_refused_with_the_fields_to_choose(tmp_path):
    path = tmp_path / "a.jsonl"
    records = [{"review": {"body": text, "by": {"id": 1}}, "label": {"name": label}} for text, label in rows(60)]
    path.write_text("\n".join(map(json.dumps, records)))
    assert_refused(path, "objects, not a text: choose a field with --text-column: review.body, review.by.id")
    assert_refused(
        path, "objects, not a label: choose a field with --label-column: label.name", text_column="review.body"
    )
    assert_refused(path, "Unknown column 'review.boddy': did you mean 'review.body'", text_column="review.boddy")
    assert_reads(path, frame()["text"], text_column="review.body", label_column="label.name")


def test_class_names_with_separators_are_single_labels(tmp_path):
    path = tmp_path / "a.csv"
    names = ("Sci|Tech", "Arts, leisure", "Sport; games", "1,5")
    path.write_text(csv_of(frame(80, labels=names)))
    assert set(splits_of(path).labels) == set(names)


def test_lists_of_words_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    frame().assign(text=lambda content: content["text"].str.split()).to_parquet(path)
    assert_refused(path, "Column text holds lists, not a text: join each list to one text")
