import os
import sys
import time
from pathlib import Path

import datasets
import numpy
import pandas
import pytest
from conftest import ROOT, run_process, temporary_folder

from adapter_arena import files
from adapter_arena.data import load, parsers, sources
from adapter_arena.data import rows as row_cache
from adapter_arena.data.splits import balanced
from adapter_arena.errors import DataError
from adapter_arena.models import loading, tokens
from adapter_arena.train import recipes, trainer

WORDS = ["good film", "bad film", "fine cast", "dull plot", "sharp script"]


def rows(n: int, labels=("bad", "good")) -> pandas.DataFrame:
    return pandas.DataFrame(
        {"text": [f"{WORDS[i % 5]} number {i}" for i in range(n)], "label": [labels[i % len(labels)] for i in range(n)]}
    )


def splits_of(dataset, **overrides) -> load.Splits:
    return load.load_splits(recipes.resolve("lora", dataset=str(dataset), name="x", **overrides)[0])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_file_format_reads_the_same(tmp_path, suffix):
    frame = rows(60)
    path = tmp_path / f"reviews{suffix}"
    writers = {
        ".csv": lambda: frame.to_csv(path, index=False),
        ".tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        ".parquet": lambda: frame.to_parquet(path),
    }
    writers[suffix]()
    splits = splits_of(path)
    assert splits.labels == ["bad", "good"]
    everything = pandas.concat([splits.train.frame(), splits.validation, splits.test])
    assert set(everything["text"]) == set(frame["text"])
    assert splits.facts.splits == {"train": 44, "validation": 4, "test": 12}


def test_splits_of_a_folder_are_used_unchanged(tmp_path):
    for name, n in (("train", 30), ("dev", 6), ("test", 8)):
        frame = rows(n)
        frame["text"] += f" {name}"
        frame.to_parquet(tmp_path / f"{name}.parquet")
    splits = splits_of(tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (30, 6, 8)


def test_duplicates_empty_rows_and_leaks_are_removed_and_counted(tmp_path):
    train = pandas.concat(
        [rows(30), rows(3), pandas.DataFrame({"text": ["  ", None, "no label"], "label": ["good", "good", None]})]
    )
    train.to_parquet(tmp_path / "train.parquet")
    rows(34).tail(6).to_parquet(tmp_path / "test.parquet")  # two of them are also in train
    splits = splits_of(tmp_path, n_validation=4)
    assert splits.facts.empty_removed == 2
    assert splits.facts.unlabelled_removed == 1
    assert splits.facts.duplicates_removed == 3
    assert splits.facts.leaked_removed == 2
    assert not set(splits.train.frame()["text"]) & set(splits.test["text"])
    assert len(splits.test) == 6


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ((0, 1), ["0", "1"]),
        ((1, 2, 10), ["1", "2", "10"]),
        ((1.0, 5.0), ["1", "5"]),
        ((True, False), ["False", "True"]),
        (("spam", "ham", "eggs"), ["eggs", "ham", "spam"]),
    ],
)
def test_labels_of_any_type(tmp_path, labels, names):
    rows(90, labels).to_parquet(tmp_path / "all.parquet")
    assert splits_of(tmp_path / "all.parquet").labels == names


def test_recipe_can_name_the_labels(tmp_path):
    rows(60, (0, 1)).to_parquet(tmp_path / "all.parquet")
    splits = splits_of(tmp_path / "all.parquet", label_names={0: "negative", 1: "positive"})
    assert splits.labels == ["negative", "positive"]
    assert set(splits.train.frame()["label"]) == {0, 1}


def test_sub_sample_is_balanced_seeded_and_stable(tmp_path):
    frame = pandas.concat([rows(80, ("a",)), rows(20, ("b",))]).reset_index(drop=True)
    first, again, other = (balanced(frame, 30, seed) for seed in (1, 1, 2))
    assert first["label"].value_counts().to_dict() == {"a": 15, "b": 15}
    assert first.equals(again)
    assert not first.equals(other)
    assert balanced(frame, 60, 1)["label"].value_counts().to_dict() == {"a": 40, "b": 20}


def test_a_local_folder_may_be_called_sample(tmp_path):
    folder = tmp_path / "sample"
    folder.mkdir()
    rows(60).to_csv(folder / "train.csv", index=False)
    assert (splits_of(folder).facts.id, splits_of(folder).facts.source) == ("sample", "local")
    assert splits_of("sample").facts.source == "made"


def test_sample_is_deterministic_balanced_and_large_enough():
    splits = splits_of("sample")
    assert splits.facts.revision == "07664b6aefec986d2a51a6455068979a2c2bc5247ae09b0a276f3edb73a034db"
    assert sum(splits.facts.splits.values()) >= 1500
    assert numpy.bincount(splits.train.frame()["label"]).tolist() == [576, 576]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"text,label\n", "no rows with both a text and a label"),
        (b"text,label\n" + b"".join(b"film %d,good\n" % i for i in range(20)), "all rows .* have the label 'good'"),
        (b"text,mark\na,1\n", "No label column among text, mark: name it with --label-column"),
        (b"words,label\na,1\n", "No text column among words, label"),
        ("text,label\ncaf\xe9,1\n".encode("latin-1"), "is not UTF-8"),
        (b'text,label\n"open,1\nx,y,z,w\n', "cannot be read as .csv"),
        (b"text,label\na,1\nb,2\nc,1\n", "too few rows to carve"),
    ],
)
def test_faults_of_a_file_are_reported_in_one_line(tmp_path, content, message):
    path = tmp_path / "reviews.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"(?i){message}") as caught:
        splits_of(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_files_of_another_format_than_their_suffix_are_rejected(tmp_path, suffix):
    path = tmp_path / f"reviews{suffix}"
    path.write_bytes(b"\x00\x01 not it")
    with pytest.raises(DataError, match="cannot be read as"):
        splits_of(path)


def test_a_row_of_a_million_characters_is_kept(tmp_path):
    frame = rows(60)
    frame.loc[7, "text"] = "long " * 200_000
    frame.to_parquet(tmp_path / "all.parquet")
    splits = splits_of(tmp_path / "all.parquet")
    assert max(len(t) for f in (splits.train.frame(), splits.validation, splits.test) for t in f["text"]) == 999_999


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"text_column": "txt"}, "Unknown column 'txt': did you mean 'text'"),
        ({"label_column": "lable"}, "Unknown column 'lable': did you mean 'label'"),
        ({"label_column": "text"}, "different values|too few rows|All rows"),
    ],
)
def test_an_unknown_column_is_reported_with_the_nearest_one(tmp_path, overrides, message):
    rows(60).to_parquet(tmp_path / "all.parquet")
    with pytest.raises(DataError, match=message):
        splits_of(tmp_path / "all.parquet", **overrides)


def test_split_with_an_unseen_label_is_rejected(tmp_path):
    rows(40).to_parquet(tmp_path / "train.parquet")
    pandas.DataFrame({"text": ["new"], "label": ["ugly"]}).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(DataError, match="labels not seen in training: ugly"):
        splits_of(tmp_path)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("missing.csv", "There is no file missing.csv"),
        ("stanfordnlp/imdb", "Hub cannot be reached to fetch stanfordnlp/imdb"),
        ("smaple", "did you mean 'sample'"),
    ],
)
def test_missing_datasets_are_reported(dataset, message):
    with pytest.raises(DataError, match=message):
        splits_of(dataset)


def cached() -> dict[str, float]:
    """Return the files in the cache of rows, with the time each was last written or used."""
    return {path.name: path.stat().st_mtime for path in (files.cache_folder() / "rows").glob("*")}


def test_rows_are_read_again_only_if_the_file_has_changed(tmp_path, monkeypatch):
    path = tmp_path / "all.csv"
    reads = []
    parts = sources.tables.iter_frames
    monkeypatch.setattr(sources.tables, "iter_frames", lambda path, *rest: reads.append(path) or parts(path, *rest))
    rows(60).to_csv(path, index=False)
    first = splits_of(path)
    assert len(reads) == 2  # the columns' names, then the rows
    assert splits_of(path).train.frame().equals(first.train.frame())
    assert len(reads) == 3  # the columns' names
    rows(90).to_csv(path, index=False)
    assert sum(splits_of(path).facts.splits.values()) == 90


def test_rows_are_cached_by_column(tmp_path):
    frame = rows(60).assign(other=[f"another text {i}" for i in range(60)])
    frame.to_csv(tmp_path / "all.csv", index=False)
    assert splits_of(tmp_path / "all.csv").test["text"].str.contains("number").all()
    assert splits_of(tmp_path / "all.csv", text_column="other").test["text"].str.contains("another").all()


def test_token_ids_are_cached_by_column(tmp_path, tiny):
    rows(60).assign(other=[f"another text {i}" for i in range(60)]).to_csv(tmp_path / "all.csv", index=False)
    tokenizer = loading.load_tokenizer(tiny)
    for column in ("text", "other"):
        train = splits_of(tmp_path / "all.csv", text_column=column).train
        wanted = [row.ids for row in tokens.encode(tokenizer, train.frame()["text"].tolist(), 64)]
        assert row_cache.token_ids(tokenizer, train, 64)["ids"].to_pylist() == wanted


def test_several_values_may_have_one_label_name(tmp_path):
    rows(80, (1, 2, 4, 5)).to_csv(tmp_path / "all.csv", index=False)
    names = {1: "negative", 2: "negative", 4: "positive", 5: "positive"}
    splits = splits_of(tmp_path / "all.csv", label_names=names)
    assert splits.labels == ["negative", "positive"]
    assert numpy.bincount(splits.train.labels).tolist() == [29, 29]
    assert recipes.resolve("lora", label_names=names)[0].num_labels == 2


def test_a_split_without_labels_is_replaced_by_training_rows(tmp_path):
    rows(60).to_csv(tmp_path / "train.csv", index=False)
    rows(10).assign(text=lambda f: f["text"] + " more", label="").to_csv(tmp_path / "test.csv", index=False)
    splits = splits_of(tmp_path)
    assert splits.facts.splits == {"train": 44, "validation": 4, "test": 12}
    assert not splits.test["text"].str.contains("more").any()
    assert (splits.facts.empty_removed, splits.facts.unlabelled_removed) == (0, 10)


def test_rows_do_not_depend_on_the_size_of_the_frames(tmp_path, monkeypatch):
    frame = pandas.concat([rows(250), rows(30), rows(40).assign(text=" ")])
    frame.to_json(tmp_path / "all.jsonl", orient="records", lines=True)
    expected = splits_of(tmp_path / "all.jsonl", n_train=50, n_test=20)
    monkeypatch.setattr(parsers, "_ROWS_PER_FRAME", 7)
    monkeypatch.setattr(row_cache, "_CACHE_VERSION", 0)  # not from the cache
    splits = splits_of(tmp_path / "all.jsonl", n_train=50, n_test=20)
    assert len(splits.train.texts.chunks) > 10
    for name in ("validation", "test"):
        assert getattr(splits, name).equals(getattr(expected, name))
    assert splits.train.frame().equals(expected.train.frame())
    assert (splits.facts.duplicates_removed, splits.facts.empty_removed) == (30, 40)


def test_token_ids_are_computed_once_per_rows_and_length(tmp_path, tiny, monkeypatch):
    rows(60).to_csv(tmp_path / "all.csv", index=False)
    tokenizer = loading.load_tokenizer(tiny)
    tokenizer.backend_tokenizer.enable_truncation(128)  # as the default base's; the first call resets it
    calls = []
    encode = row_cache.tokens.encode
    monkeypatch.setattr(row_cache.tokens, "encode", lambda *args: calls.append(args) or encode(*args))
    splits = splits_of(tmp_path / "all.csv")
    first = trainer.EncodedRows(tokenizer, splits.train, 16)
    texts = splits.train.frame()["text"].tolist()
    assert [first[i]["input_ids"] for i in range(len(first))] == [row.ids for row in encode(tokenizer, texts, 16)]
    assert first.lengths == [len(first[i]["input_ids"]) for i in range(len(first))]
    trainer.EncodedRows(tokenizer, splits_of(tmp_path / "all.csv").train, 16)
    assert len(calls) == 1
    trainer.EncodedRows(tokenizer, splits.train, 5)
    trainer.EncodedRows(tokenizer, splits_of(tmp_path / "all.csv", n_train=20).train, 16)
    trainer.EncodedRows(tokenizer, splits_of(tmp_path / "all.csv", n_train=20, data_seed=7).train, 16)
    assert len(calls) == 4


def test_cached_files_unused_for_a_month_are_deleted(tmp_path):
    rows(60).to_csv(tmp_path / "old.csv", index=False)
    before = set(cached())
    splits_of(tmp_path / "old.csv")
    (old,) = set(cached()) - before
    os.utime(files.cache_folder() / "rows" / old, (0, time.time() - 31 * 24 * 3600))
    rows(61).to_csv(tmp_path / "new.csv", index=False)
    splits_of(tmp_path / "new.csv")
    assert old not in cached()


def test_a_cache_that_cannot_be_written_is_reported(tmp_path, monkeypatch):
    rows(60).to_csv(tmp_path / "all.csv", index=False)
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("ARENA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"The rows cannot be cached in .* set ARENA_CACHE"):
        splits_of(tmp_path / "all.csv")


def test_a_failed_read_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    path = tmp_path / "all.csv"
    rows(60).to_csv(path, index=False)
    path.write_text(path.read_text() + "one,two,three,four\n")
    before = cached()
    with pytest.raises(DataError, match=r"cannot be read as \.csv"):
        splits_of(path)
    assert cached() == before


def test_a_stream_is_read_no_further_than_needed_with_even_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(parsers, "_ROWS_PER_FRAME", 100)
    frame = pandas.concat([rows(400, ("bad",)), rows(4000).assign(text=lambda f: f["text"] + " more")])
    frame.to_csv(tmp_path / "all.csv", index=False)
    splits = splits_of(tmp_path / "all.csv", streaming=True, n_train=200, n_validation=20, n_test=50)
    assert splits.facts.splits == {"train": 200, "validation": 20, "test": 50}
    assert len(splits.train.texts) < 1000
    assert numpy.bincount(splits.train.labels).tolist() == [100, 100]
    again = splits_of(tmp_path / "all.csv", streaming=True, n_train=200, n_validation=20, n_test=50)
    assert again.train.frame().equals(splits.train.frame())


def test_a_stream_needs_the_number_of_rows(tmp_path):
    rows(60).to_csv(tmp_path / "all.csv", index=False)
    with pytest.raises(DataError, match="needed: give --n-train, --n-test"):
        splits_of(tmp_path / "all.csv", streaming=True)


@pytest.mark.parametrize("streaming", [False, True])
def test_hub_rows_have_class_names(streaming):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    split = datasets.Dataset.from_dict({"text": [f"film {i}" for i in range(50)], "label": [0, 1] * 25}, features)
    if streaming:
        split = split.to_iterable_dataset(num_shards=2)
    frame = pandas.concat(sources.hub_rows(split, 7 if streaming else None))
    assert set(frame["text"]) == {f"film {i}" for i in range(50)}
    assert all((label == "pos") == int(text.split()[1]) % 2 for text, label in zip(frame["text"], frame["label"]))
    assert (frame["text"].tolist() == [f"film {i}" for i in range(50)]) != streaming


def on_hub(monkeypatch, label_names: list[str], **splits: list[int]) -> None:
    """Replace the Hub by one dataset, with the labels of each split as numbers of the named classes."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=label_names)})
    dataset = datasets.DatasetDict({
        name: datasets.Dataset.from_dict({"text": [f"{name} film {i}" for i in range(len(labels))], "label": labels}, features)
        for name, labels in splits.items()
    })  # fmt: skip
    monkeypatch.setenv("ARENA_CACHE", str(temporary_folder("arena-test-")))  # rows are cached by id and revision
    monkeypatch.setattr(sources.network, "hub_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: dataset)


@pytest.mark.parametrize("name", ["minilm-imdb-lora", "roberta-imdb-full", "distilbert-imdb-lora", "bert-imdb-qlora"])
def test_imdb_recipes_read_the_imdb_of_the_hub(monkeypatch, name):
    """Its classes are neg and pos; the recipes name 0 and 1, which local files have."""
    on_hub(monkeypatch, ["neg", "pos"], train=[0, 1] * 50, test=[0] * 10 + [1] * 10, unsupervised=[-1] * 10)
    splits = load.load_splits(recipes.resolve(recipe=name, n_train=40, n_test=20, n_validation=10)[0])
    assert splits.labels == ["negative", "positive"]
    assert all(
        label == int(text.split()[2]) % 2 for text, label in zip(splits.train.frame()["text"], splits.train.labels)
    )
    assert splits.test["label"].tolist() == [0] * 10 + [1] * 10


@pytest.mark.parametrize(("names", "given", "labels"), [
    (["neg", "pos"], {"neg": "bad", "pos": "good"}, ["bad", "good"]),
    (["neg", "pos"], {"0": "bad", "1": "good"}, ["bad", "good"]),  # as results.json gives it back
    (["negative", "positive"], None, ["negative", "positive"]),
    (["1", "0"], {"1": "one", "0": "zero"}, ["one", "zero"]),  # names before numbers
])  # fmt: skip
def test_classes_of_the_hub_are_named_by_name_or_number(monkeypatch, names, given, labels):
    on_hub(monkeypatch, names, train=[0, 1] * 50, test=[0] * 10 + [1] * 10)
    splits = splits_of("fancyzhx/ag_news", label_names=given)
    assert splits.labels == labels
    assert splits.test["label"].tolist() == [0] * 10 + [1] * 10


def test_a_hub_test_split_with_secret_labels_is_replaced_by_training_rows(monkeypatch):
    on_hub(monkeypatch, ["neg", "pos"], train=[0, 1] * 50, test=[-1] * 10)
    splits = splits_of("fancyzhx/ag_news")
    assert splits.facts.splits == {"train": 72, "validation": 8, "test": 20}


def test_a_failure_of_the_hub_is_reported_in_one_line(monkeypatch):
    class Broken:
        features = None

        def iter(self, batch_size):
            yield {"text": ["a film"], "label": [1]}
            raise ConnectionError("connection reset\nby peer")

    with pytest.raises(DataError, match=r"from the Hub failed: connection reset by peer\. Run the same command again"):
        list(sources.hub_rows(Broken(), None))


def peak_mb(path, rows_n: int) -> float:
    """Return the peak of anonymous memory, minus that before, while a file of so many rows of 1,600 characters is read."""
    text = "the film takes its time but it stays with you for longer than you would think " * 20
    with path.open("w") as file:
        file.write("text,label\n")
        file.writelines(f"{i} {text},{('bad', 'good')[i % 2]}\n" for i in range(rows_n))
    code = f"""
import threading, time
from adapter_arena.data import load
from adapter_arena.train import recipes
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1e3
load.load_splits(recipes.resolve("lora", dataset="sample", name="x")[0])  # what is imported on first use
before, peak = anonymous(), [0.0]
def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
splits = load.load_splits(recipes.resolve("lora", dataset={str(path)!r}, n_test=100, n_validation=100, name="x")[0])
print(len(splits.train), peak[0] - before)
"""
    done = run_process([sys.executable, "-c", code], check=True, cwd=ROOT)
    rows_left, megabytes = done.stdout.split()
    assert int(rows_left) == rows_n * 0.8 * 0.9
    return float(megabytes)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux reports anonymous memory")
def test_memory_does_not_grow_with_the_texts(tmp_path):
    small = peak_mb(tmp_path / "small.csv", 25_000)
    large = peak_mb(tmp_path / "large.csv", 100_000)
    assert (tmp_path / "large.csv").stat().st_size > 150e6
    assert large < small + 40  # 75,000 more labels, hashes and places, not 117 MB more of texts
