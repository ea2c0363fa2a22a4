"""Where the rows of a dataset come from: the made sample, a local file or folder, or the Hub."""

import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas
import pyarrow.parquet

from adapter_arena import hub, network
from adapter_arena.data import sample, tables
from adapter_arena.data.labels import LABEL_COLUMNS, names_in_metadata, usual_columns
from adapter_arena.errors import DataError, one_line, unknown
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
_HUB_BATCH_ROWS = 10_000
"""Rows read from the Hub at a time; a stream is shuffled in a buffer of as many."""


@dataclass(frozen=True)
class HubDataset:
    """A dataset known by its Hub id; revision None means the newest, whose commit is recorded."""

    revision: str | None
    text_column: str | None = None


HUB_DATASETS = {
    "stanfordnlp/imdb": HubDataset("e6281661ce1c48d982bc483cf8a173c1bbeb5d31", text_column="text"),
    "fancyzhx/amazon_polarity": HubDataset(None, text_column="content"),
    "fancyzhx/ag_news": HubDataset("eb185aade064a813bc0b7f42de02595523103ca4", text_column="text"),
}

ReadSplit = Callable[[], Iterator[pandas.DataFrame]]
"""Reads a split from its start, some thousands of rows at a time."""


@dataclass(frozen=True)
class Source:
    """How to read each split of a dataset, and what is known about it."""

    splits: dict[str, ReadSplit]
    facts: DatasetFacts
    text_column: str | None = None
    class_names: list[str] = field(default_factory=list)
    """Names of the classes by number, if the dataset has them."""


def is_local(dataset: str) -> bool:
    """Return whether the dataset can be read without the Hub."""
    path = Path(dataset)
    return dataset == "sample" or path.exists() or path.suffix in SUFFIXES


def find(recipe: Recipe) -> Source:
    """Return the source of the recipe's dataset. Raises DataError."""
    path = Path(recipe.dataset)
    if recipe.dataset == "sample":
        return _sample()
    if path.is_dir():
        return _folder(path, recipe)
    if path.is_file() or path.suffix in SUFFIXES:
        return _file(path, recipe)
    return _hub(recipe)


# ---------------------------------------------------------------- made and local rows


def _sample() -> Source:
    frame = sample.make()
    digest = hashlib.sha256(frame.to_json().encode()).hexdigest()
    return Source({"train": lambda: iter([frame])}, DatasetFacts("sample", digest, "made"))


def _folder(path: Path, recipe: Recipe) -> Source:
    """Return the source of a folder with a file for each split, for example train.parquet and test.parquet."""
    files = {}
    for file in sorted(path.iterdir()):
        split = _SPLIT_NAMES.get(re.split(r"[-_.]", file.stem.lower())[0])
        if split and file.suffix in SUFFIXES:
            files[split] = file
    if "train" not in files:
        raise DataError(f"Folder {path} has no train file: it needs train.parquet (or {', '.join(SUFFIXES[:3])}).")
    digest = hashlib.sha256()
    splits = {}
    for split, file in files.items():
        digest.update(_digest(file).encode())
        splits[split] = functools.partial(_local_rows, file)
    facts = DatasetFacts(path.resolve().name, digest.hexdigest(), "local")
    return Source(splits, facts, class_names=_names_of_labels(_names_in_file(files["train"]), recipe))


def _file(path: Path, recipe: Recipe) -> Source:
    tables.check_file(path)
    facts = DatasetFacts(path.name, _digest(path), "local")
    splits = {"train": functools.partial(_local_rows, path)}
    return Source(splits, facts, class_names=_names_of_labels(_names_in_file(path), recipe))


def _local_rows(path: Path) -> Iterator[pandas.DataFrame]:
    """Yield the rows of a file, with classes by name if a Parquet file's metadata name them. Raises DataError."""
    class_names = _names_in_file(path)
    for frame in tables.iter_frames(path):
        yield _with_class_names(frame, class_names)


def _names_in_file(path: Path) -> dict[str, list[str]]:
    """Return the class names, by number, of each column of a Parquet file that has them; none for other files."""
    if path.suffix.lower() != ".parquet":
        return {}
    try:
        return names_in_metadata(pyarrow.parquet.read_schema(path))
    except (OSError, pyarrow.ArrowException):
        return {}  # `tables` reports why the file cannot be read


def _names_of_labels(class_names: dict[str, list[str]], recipe: Recipe) -> list[str]:
    """Return the class names of the label column, as far as its name tells which column that is."""
    columns = [recipe.label_column] if recipe.label_column else usual_columns(class_names, LABEL_COLUMNS)
    return class_names.get(columns[0], []) if columns else []


def _with_class_names(frame: pandas.DataFrame, class_names: dict[str, list[str]]) -> pandas.DataFrame:
    """Return the frame with the names of numbered classes; a number without a name, such as -1, becomes missing."""
    named = {}
    for column, names in class_names.items():
        if column in frame.columns:
            named[column] = frame[column].map(dict(enumerate(names)))
    return frame.assign(**named)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- rows from the Hub


def _hub(recipe: Recipe) -> Source:
    _check_hub_id(recipe.dataset)
    loaded, revision = _load_from_hub(recipe)
    shuffle_seed = recipe.data_seed if recipe.streaming else None
    splits = {}
    for name, split in loaded.items():
        if name in _SPLIT_NAMES:
            splits[_SPLIT_NAMES[name]] = functools.partial(hub_rows, split, shuffle_seed)
    if "train" not in splits:
        raise DataError(f"Dataset {recipe.dataset} has no train split, only {', '.join(loaded)}: choose another.")
    known = HUB_DATASETS.get(recipe.dataset)
    return Source(
        splits,
        DatasetFacts(recipe.dataset, revision, "hub"),
        text_column=known.text_column if known else None,
        class_names=_names_of_labels(_class_names(loaded["train"]), recipe),
    )


def _check_hub_id(dataset: str) -> None:
    """Raise DataError if the name cannot be one of a Hub dataset or if the Hub cannot be reached."""
    problem = None
    if dataset not in HUB_DATASETS and not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
        problem = unknown("dataset", dataset, [*HUB_DATASETS, "sample"]) + " Or name a file or folder."
    elif not network.hub_reachable():
        problem = f"The Hub cannot be reached to fetch {dataset}: name a local file or folder, or use --dataset sample."
    if problem:
        raise DataError(problem)


def _load_from_hub(recipe: Recipe) -> tuple[dict, str]:
    """Return the splits of a Hub dataset by their names there, and the commit they are from. Raises DataError."""
    import datasets  # slow to import, and only needed for the Hub

    dataset = recipe.dataset
    known = HUB_DATASETS.get(dataset)
    try:
        revision = (known and known.revision) or hub.api().dataset_info(dataset).sha
        return datasets.load_dataset(dataset, revision=revision, streaming=recipe.streaming), revision
    except (*hub.FAILURES, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"Dataset {dataset} cannot be fetched: {one_line(error)}. Check the id.") from error


def _class_names(split) -> dict[str, list[str]]:
    """Return the class names, by number, of each column of a `datasets` split that has them."""
    import datasets

    names = {}
    for column, feature in (split.features or {}).items():
        if isinstance(feature, datasets.ClassLabel):
            names[column] = feature.names
    return names


def hub_rows(split, shuffle_seed: int | None) -> Iterator[pandas.DataFrame]:
    """Yield the rows of a `datasets` split, with classes by name; shuffled if there is a seed.

    The label -1, which many test splits have because their labels are secret, becomes a missing label. Raises DataError.
    """
    if shuffle_seed is not None:
        split = split.shuffle(seed=shuffle_seed, buffer_size=_HUB_BATCH_ROWS)
    class_names = _class_names(split)
    try:
        for batch in split.iter(batch_size=_HUB_BATCH_ROWS):
            yield _with_class_names(pandas.DataFrame(dict(batch)), class_names)
    except hub.FAILURES as error:
        raise DataError(
            f"Reading the dataset from the Hub failed: {one_line(error)}. Run the same command again."
        ) from error
