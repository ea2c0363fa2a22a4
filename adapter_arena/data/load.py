"""Datasets: a Hub id, a local file or folder, or the made sample; cleaned and split."""

import collections
import functools
import hashlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import pandas
from sklearn.model_selection import train_test_split

from adapter_arena import hub, network
from adapter_arena.data import sample, tables
from adapter_arena.data.labels import LABEL_COLUMNS, TEXT_COLUMNS, label_name, usual_columns
from adapter_arena.data.rows import Rows, table
from adapter_arena.errors import DataError, some, unknown
from adapter_arena.recipe import Recipe
from adapter_arena.results import DatasetFacts

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
_SHUFFLED = 10_000  # rows of a stream among which the next is drawn


@dataclass(frozen=True)
class HubDataset:
    """A dataset known by its Hub id; revision None takes the newest and records its commit."""

    revision: str | None
    text_column: str = "text"


HUB_DATASETS = {
    "stanfordnlp/imdb": HubDataset("e6281661ce1c48d982bc483cf8a173c1bbeb5d31"),
    "fancyzhx/amazon_polarity": HubDataset(None, text_column="content"),
    "fancyzhx/ag_news": HubDataset("eb185aade064a813bc0b7f42de02595523103ca4"),
}


@dataclass(frozen=True)
class Splits:
    """The rows to train on, and in memory the others, as frames with columns `text` and `label` (index into `labels`)."""

    train: Rows
    validation: pandas.DataFrame
    test: pandas.DataFrame
    labels: list[str]
    facts: DatasetFacts


def load_splits(recipe: Recipe) -> Splits:
    """The recipe's dataset, cleaned, split and sub-sampled the same way every time. Raises DataError."""
    sources, facts, classes = _read(recipe)
    columns = functools.cache(lambda: _columns(next(sources["train"]()), recipe))
    kept, frames, keys = {}, {}, {}
    for name, source in sources.items():
        key = [facts.id, facts.revision, name, recipe.text_column, recipe.label_column]
        key += [recipe.data_seed, _needed(recipe)] if recipe.streaming else []
        keys[name] = repr(key)
        kept[name] = table(keys[name], functools.partial(_rows, source, columns, name, recipe))
        frames[name] = kept[name].select(["label", "key"]).to_pandas()
        frames[name]["is_whole"] = kept[name]["text"].is_valid().to_numpy() & (frames[name]["label"] != "")
    labels = _tidy(frames, recipe, classes, facts)
    of = {name: name if name in frames else "train" for name in ("train", "validation", "test")}
    frames = _split(frames, labels, recipe.data_seed, facts)
    limits = {"train": recipe.n_train, "validation": recipe.n_validation, "test": recipe.n_test}
    chosen = {}
    for name, limit in limits.items():
        frame = balanced(frames[name], limit, recipe.data_seed)
        chosen[name] = Rows(kept[of[name]]["text"], frame["row"].to_numpy(), frame["label"].to_numpy(), keys[of[name]])
        facts.splits[name] = len(frame)
    return Splits(chosen["train"], chosen["validation"].frame(), chosen["test"].frame(), labels, facts)


def balanced(frame: pandas.DataFrame, n: int | None, seed: int) -> pandas.DataFrame:
    """`n` rows, as evenly spread over the classes as they last, in their old order; all rows for None."""
    if n is None or n >= len(frame):
        return frame.reset_index(drop=True)
    shuffled = frame.sample(frac=1, random_state=seed)
    turn = shuffled.groupby("label").cumcount()  # each class's first row, then each one's second, …
    return frame.loc[turn.sort_values(kind="stable").index[:n].sort_values()].reset_index(drop=True)


Source = Callable[[], Iterator[pandas.DataFrame]]
"""Reads a split from its start, some thousands of rows at a time."""


def _read(recipe: Recipe) -> tuple[dict[str, Source], DatasetFacts, list[str]]:
    """How to read each split, what is known of the dataset, and its classes by number where it says so."""
    dataset, path = recipe.dataset, Path(recipe.dataset)
    if dataset == "sample":
        frame = sample.make()
        digest = hashlib.sha256(frame.to_json().encode()).hexdigest()
        return {"train": lambda: iter([frame])}, DatasetFacts("sample", digest, "made"), []
    if path.is_dir():
        files = {
            _split_name(file): file for file in sorted(path.iterdir()) if file.suffix in SUFFIXES and _split_name(file)
        }
        if "train" not in files:
            raise DataError(
                f"Folder {dataset} has no train file: it needs train.parquet (or {', '.join(SUFFIXES[:3])})."
            )
        digest = hashlib.sha256("".join(map(_digest, files.values())).encode()).hexdigest()
        facts = DatasetFacts(path.resolve().name, digest, "local")
        return {name: functools.partial(tables.parts, file) for name, file in files.items()}, facts, []
    if path.suffix in SUFFIXES or path.is_file():
        if not path.is_file():
            raise DataError(f"There is no file {dataset}: check the path.")
        if path.suffix not in SUFFIXES:
            raise DataError(f"{path} is no {', '.join(SUFFIXES)} file: convert it to one of these.")
        return {"train": functools.partial(tables.parts, path)}, DatasetFacts(path.name, _digest(path), "local"), []
    return _read_hub(recipe)


def _split_name(file: Path) -> str | None:
    return _SPLIT_NAMES.get(re.split(r"[-_.]", file.stem.lower())[0])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_hub(recipe: Recipe) -> tuple[dict[str, Source], DatasetFacts, list[str]]:
    dataset, known = recipe.dataset, HUB_DATASETS.get(recipe.dataset)
    if known is None and not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
        raise DataError(unknown("dataset", dataset, [*HUB_DATASETS, "sample"]) + " Or name a file or folder.")
    if not network.hub_reachable():
        raise DataError(
            f"The Hub cannot be reached, so {dataset} cannot be fetched: name a local file or folder, or use --dataset sample."
        )
    import datasets  # slow to import, and only the Hub needs it

    try:
        revision = (known and known.revision) or hub.api().dataset_info(dataset).sha
        loaded = datasets.load_dataset(dataset, revision=revision, streaming=recipe.streaming)
    except (*hub.FAILURES, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"Dataset {dataset} cannot be fetched: {' '.join(str(error).split())[:200]}. Check the id."
        ) from error
    sources = {
        _SPLIT_NAMES[name]: functools.partial(hub_rows, split, recipe.data_seed if recipe.streaming else None)
        for name, split in loaded.items()
        if name in _SPLIT_NAMES
    }
    if "train" not in sources:
        raise DataError(f"Dataset {dataset} has no train split, only {', '.join(loaded)}: choose another.")
    classes = _classes(loaded["train"])
    usual = usual_columns(classes, LABEL_COLUMNS)
    label = recipe.label_column or (usual[0] if usual else None)
    return sources, DatasetFacts(dataset, revision, "hub"), classes.get(label, [])


def _classes(split) -> dict[str, list[str]]:
    """Class names by number, of each column of a `datasets` split that has them."""
    import datasets

    return {c: f.names for c, f in (split.features or {}).items() if isinstance(f, datasets.ClassLabel)}


def hub_rows(split, seed: int | None) -> Iterator[pandas.DataFrame]:
    """Rows of a `datasets` split, classes by name; one that is streamed is shuffled by `seed`, files and rows.

    A label that is kept secret, -1 in many test splits, is none.
    """
    if seed is not None:
        split = split.shuffle(seed=seed, buffer_size=_SHUFFLED)
    classes = _classes(split)
    try:
        for batch in split.iter(batch_size=_SHUFFLED):
            frame = pandas.DataFrame(dict(batch))
            for column, names in classes.items():
                frame[column] = frame[column].map(dict(enumerate(names)))
            yield frame
    except hub.FAILURES as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"Reading the dataset from the Hub broke off: {reason}. Run the same command again.") from error


def _needed(recipe: Recipe) -> int:
    """Rows of a stream from which every split can be had, were all carved from it."""
    wanted = {"--n-train": recipe.n_train, "--n-test": recipe.n_test, "--n-validation": recipe.n_validation}
    if missing := [flag for flag, n in wanted.items() if n is None]:
        raise DataError(f"--streaming reads only what is needed, so say how much that is: {', '.join(missing)}.")
    return math.ceil(max(recipe.n_test / 0.2, recipe.n_validation / 0.08, recipe.n_train / 0.72))


def _rows(
    source: Source, columns: Callable[[], tuple[str, str]], name: str, recipe: Recipe
) -> Iterator[pandas.DataFrame]:
    """A split's texts and label names, as strings; of a stream as many as are needed."""
    text, label = columns()
    wanted, counts = _needed(recipe) if recipe.streaming else math.inf, collections.Counter()
    for frame in source():
        if missing := {text, label} - set(frame.columns):
            raise DataError(f"Split {name} lacks column {', '.join(missing)}: every split needs the same columns.")
        texts = frame[text].where(frame[text].notna(), "").astype(str)
        found = pandas.DataFrame({"text": texts, "label": frame[label].map(label_name).fillna("")})
        yield found
        counts.update(found["label"])
        # Rows may be sorted by class, and a rare class gets time to come up to its share.
        is_even = len(counts) >= recipe.num_labels and min(counts.values()) >= wanted / len(counts)
        if counts.total() >= (wanted if is_even else 4 * wanted):
            return


def _columns(raw: pandas.DataFrame, recipe: Recipe) -> tuple[str, str]:
    """The names of the columns with the text and the label."""
    columns = [str(column) for column in raw.columns]

    def choose(wanted: str | None, usual: tuple[str, ...], what: str) -> str:
        if wanted is not None:
            if wanted not in columns:
                raise DataError(unknown("column", wanted, columns))
            return wanted
        found = usual_columns(columns, usual)
        if not found:
            raise DataError(f"No {what} column among {some(columns)}: name it with --{what}-column.")
        return found[0]

    known = HUB_DATASETS.get(recipe.dataset)
    text = choose(recipe.text_column or (known and known.text_column), TEXT_COLUMNS, "text")
    label = choose(recipe.label_column, LABEL_COLUMNS, "label")
    return text, label


def _tidy(frames: dict[str, pandas.DataFrame], recipe: Recipe, classes: list[str], facts: DatasetFacts) -> list[str]:
    """Empty rows, duplicates and leaks out of `frames`, labels as indices into the names that are returned.

    A split that has no label at all, as a test split whose labels are kept secret, is none.
    """
    for name, frame in frames.items():
        frame = frame.assign(row=numpy.arange(len(frame)))
        whole = frame[frame["is_whole"]].drop(columns="is_whole")
        frames[name] = whole.drop_duplicates("key")
        facts.empty_removed += len(frame) - len(whole)
        facts.duplicates_removed += len(whole) - len(frames[name])
    for name in ("validation", "test"):
        if name in frames and frames[name].empty:
            del frames[name]
    for later, earlier in (("train", ("validation", "test")), ("validation", ("test",))):
        for other in earlier:
            if later in frames and other in frames:
                leaked = frames[later]["key"].isin(frames[other]["key"])
                facts.leaked_removed += int(leaked.sum())
                frames[later] = frames[later][~leaked]
    labels = _names(frames, recipe, classes)
    index = {name: position for position, name in enumerate(labels)}
    for name, frame in frames.items():
        frames[name] = frame.assign(label=frame["label"].map(index).astype("int64"))
    return labels


def _names(frames: dict[str, pandas.DataFrame], recipe: Recipe, classes: list[str]) -> list[str]:
    """Label names in order; replaces the values in `frames` by them where the recipe names them.

    It may name a class by its number, as files have it, where the Hub's dataset has a name for that.
    """
    if len(frames["train"]) == 0:
        raise DataError(f"{recipe.dataset} has no rows with both a text and a label: check the columns.")
    if recipe.label_names:
        given = {label_name(key): str(name) for key, name in recipe.label_names.items()}
        numbers = {name: str(number) for number, name in enumerate(classes)}
        for name, frame in frames.items():
            names = {
                value: given.get(value) or given.get(numbers.get(value), value) for value in frame["label"].unique()
            }
            frames[name] = frame.assign(label=frame["label"].map(names))
        labels = list(dict.fromkeys(given.values()))
    else:
        found = set(frames["train"]["label"].unique())
        numeric = all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in found)
        labels = sorted(found, key=float if numeric else str)
    if len(labels) > 1000:
        raise DataError(
            f"The label column of {recipe.dataset} has {len(labels)} different values: name another with --label-column."
        )
    if frames["train"]["label"].nunique() < 2:
        raise DataError(
            f"All rows of {recipe.dataset} have the label {labels[0]!r}: a classifier needs at least two classes."
        )
    for name, frame in frames.items():
        if strange := set(frame["label"].unique()) - set(labels):
            raise DataError(
                f"Split {name} of {recipe.dataset} has labels not seen in training: {', '.join(sorted(strange)[:5])}."
            )
    return labels


def _split(
    frames: dict[str, pandas.DataFrame], labels: list[str], seed: int, facts: DatasetFacts
) -> dict[str, pandas.DataFrame]:
    """Carve a missing test split (a fifth) and validation split (a tenth) from train, classes kept in proportion."""
    for name, share in (("test", 0.2), ("validation", 0.1)):
        if name in frames:
            continue
        rare = frames["train"]["label"].value_counts()
        rows = int(share * len(frames["train"]))
        if rare.min() < 2 or rows < len(rare):
            raise DataError(
                f"{facts.id} has too few rows to carve a {name} split: {len(frames['train'])} rows, "
                f"{rare.min()} of class {labels[rare.idxmin()]!r}; add rows or a {name} file."
            )
        frames["train"], frames[name] = train_test_split(
            frames["train"], test_size=rows, random_state=seed, stratify=frames["train"]["label"]
        )
    return {name: frames[name].sort_values("row") for name in ("train", "validation", "test")}
