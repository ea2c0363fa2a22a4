"""Where the rows of a dataset come from: the made sample, a local file or folder, or the Hub."""

import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas

from adapter_arena import hub, network
from adapter_arena.data import folders, sample, saved, tables
from adapter_arena.data.compressed import table_suffix
from adapter_arena.data.labels import LABEL_COLUMNS, usual_columns
from adapter_arena.errors import DataError, one_line, shortened_list, unknown
from adapter_arena.recipe import Recipe
from adapter_arena.results import DatasetFacts

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


@dataclass(frozen=True)
class Part:
    """A file of a split, or the complete split."""

    name: str
    read: Callable[[list[str]], Iterator[pandas.DataFrame]]
    """Reads the rows from the start, some thousands at a time; appends what had to be guessed to the list."""


@dataclass(frozen=True)
class Source:
    """How to read each split of a dataset, and what is known about it."""

    splits: dict[str, list[Part]]
    facts: DatasetFacts
    text_column: str | None = None
    class_names: list[str] = field(default_factory=list)
    """Names of the classes by number, if the dataset has them."""
    notes: list[str] = field(default_factory=list)
    """Files and splits that are not used, one line each."""


def is_local(dataset: str) -> bool:
    """Return whether the dataset can be read without the Hub."""
    path = Path(dataset)
    return dataset == "sample" or path.exists() or table_suffix(path) in tables.TRAINING_SUFFIXES


def find(recipe: Recipe) -> Source:
    """Return the source of the recipe's dataset. Raises DataError."""
    path = Path(recipe.dataset)
    if recipe.dataset == "sample":
        return _sample()
    if folders.is_saved(path):
        return _saved(path, recipe)
    if path.is_dir():
        return _folder(path, recipe)
    if path.is_file() or table_suffix(path) in tables.TRAINING_SUFFIXES:
        return _file(path, recipe)
    return _hub(recipe)


def _wanted_splits(recipe: Recipe) -> folders.Wanted:
    return {"train": recipe.train_split, "validation": recipe.validation_split, "test": recipe.test_split}


def _names_of_labels(class_names: dict[str, list[str]], recipe: Recipe) -> list[str]:
    """Return the class names of the label column, given those of every column that has them."""
    columns = [recipe.label_column] if recipe.label_column else usual_columns(class_names, LABEL_COLUMNS)
    return class_names.get(columns[0], []) if columns else []


# ---------------------------------------------------------------- made and local rows


def _sample() -> Source:
    frame = sample.make()
    digest = hashlib.sha256(frame.to_json().encode()).hexdigest()
    part = Part("sample", lambda notes: iter([frame]))
    return Source({"train": [part]}, DatasetFacts("sample", digest, "made"))


def _folder(path: Path, recipe: Recipe) -> Source:
    """Return the source of a folder with files for each split, for example train.parquet and test.parquet."""
    found = folders.find(path, _wanted_splits(recipe), recipe.dataset_config)
    splits = {}
    for split, files in found.splits.items():
        splits[split] = [_part(file, str(file.relative_to(path))) for file in files]
    digest = hashlib.sha256()
    for file in sorted({file for files in found.splits.values() for file in files}):
        digest.update(_digest(file).encode())
    facts = DatasetFacts(path.resolve().name, digest.hexdigest(), "local")
    class_names = saved.class_names(found.splits["train"][0])
    return Source(splits, facts, class_names=_names_of_labels(class_names, recipe), notes=found.notes)


def _file(path: Path, recipe: Recipe) -> Source:
    _check_has_no_splits(path, recipe)
    tables.check_file(path)
    facts = DatasetFacts(path.name, _digest(path), "local")
    class_names = _names_of_labels(saved.class_names(path), recipe)
    return Source({"train": [_part(path, path.name)]}, facts, class_names=class_names)


def _saved(path: Path, recipe: Recipe) -> Source:
    """Return the source of a folder of `datasets.save_to_disk`."""
    loaded = saved.load(path)
    facts = DatasetFacts(path.resolve().name, _digest(path), "local")
    if not isinstance(loaded, dict):
        _check_has_no_splits(path, recipe)
        part = Part(path.name, lambda notes: hub_rows(loaded, None))
        return Source({"train": [part]}, facts, class_names=_names_of_labels(saved.names_of_features(loaded), recipe))
    chosen = folders.choose_splits(path.name, list(loaded), _wanted_splits(recipe))
    splits = {}
    for split, name in chosen.items():
        splits[split] = [Part(name, lambda notes, rows=loaded[name]: hub_rows(rows, None))]
    class_names = _names_of_labels(saved.names_of_features(loaded[chosen["train"]]), recipe)
    return Source(splits, facts, class_names=class_names, notes=_unused_splits(loaded, chosen))


def _check_has_no_splits(path: Path, recipe: Recipe) -> None:
    flags = {"--dataset-config": recipe.dataset_config}
    flags |= {f"--{split}-split": name for split, name in _wanted_splits(recipe).items()}
    given = [flag for flag, value in flags.items() if value is not None]
    if given:
        raise DataError(f"{path.name} has no splits to choose from: leave out {', '.join(given)}, or name a folder.")


def _unused_splits(names: Iterable[str], chosen: folders.Wanted) -> list[str]:
    unused = [name for name in names if name not in chosen.values()]
    if not unused:
        return []
    flags = "choose with --train-split, --validation-split or --test-split"
    return [f"Splits that are not used: {shortened_list(unused)} ({flags})."]


def _part(path: Path, name: str) -> Part:
    if folders.is_saved(path):
        return Part(name, lambda notes: hub_rows(saved.load(path), None))
    return Part(name, functools.partial(_named_rows, path))


def _named_rows(path: Path, notes: list[str]) -> Iterator[pandas.DataFrame]:
    """Yield the rows of a file, with classes by name if it has their names."""
    class_names = saved.class_names(path)
    for frame in tables.iter_frames(path, notes):
        yield saved.with_class_names(frame, class_names)


def _digest(path: Path) -> str:
    """Return a hash of a file, or of all files in a folder."""
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(_digest(file).encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- rows from the Hub


def _hub(recipe: Recipe) -> Source:
    _check_hub_id(recipe.dataset)
    loaded, revision = _load_from_hub(recipe)
    shuffle_seed = recipe.data_seed if recipe.streaming else None
    chosen = folders.choose_splits(f"Dataset {recipe.dataset}", list(loaded), _wanted_splits(recipe))
    splits = {}
    for split, name in chosen.items():
        splits[split] = [Part(name, lambda notes, rows=loaded[name]: hub_rows(rows, shuffle_seed))]
    known = HUB_DATASETS.get(recipe.dataset)
    return Source(
        splits,
        DatasetFacts(recipe.dataset, revision, "hub"),
        text_column=known.text_column if known else None,
        class_names=_names_of_labels(saved.names_of_features(loaded[chosen["train"]]), recipe),
        notes=_unused_splits(loaded, chosen),
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
    config = recipe.dataset_config
    known = HUB_DATASETS.get(dataset)
    try:
        revision = (known and known.revision) or hub.api().dataset_info(dataset).sha
        return datasets.load_dataset(dataset, config, revision=revision, streaming=recipe.streaming), revision
    except (*hub.FAILURES, datasets.exceptions.DatasetsError) as error:
        _check_config(dataset, config)
        raise DataError(f"Dataset {dataset} cannot be fetched: {one_line(error)}. Check the id.") from error


def _check_config(dataset: str, config: str | None) -> None:
    """Raise DataError, with the list, if a configuration of the dataset has to be chosen."""
    import datasets

    try:
        names = datasets.get_dataset_config_names(dataset)
    except (*hub.FAILURES, datasets.exceptions.DatasetsError):
        return  # the error of loading the dataset is reported
    folders.choose_config(f"Dataset {dataset}", names, config)


def hub_rows(split, shuffle_seed: int | None) -> Iterator[pandas.DataFrame]:
    """Yield the rows of a `datasets` split, with classes by name; shuffled if there is a seed.

    The label -1, which many test splits have because their labels are secret, becomes a missing label. Raises DataError.
    """
    if shuffle_seed is not None:
        split = split.shuffle(seed=shuffle_seed, buffer_size=_HUB_BATCH_ROWS)
    class_names = saved.names_of_features(split)
    try:
        for batch in split.iter(batch_size=_HUB_BATCH_ROWS):
            yield saved.with_class_names(pandas.DataFrame(dict(batch)), class_names)
    except hub.FAILURES as error:
        raise DataError(
            f"Reading the dataset from the Hub failed: {one_line(error)}. Run the same command again."
        ) from error
