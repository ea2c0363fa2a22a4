"""Datasets: a Hub id, a local file or folder, or the made sample; cleaned and split."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy
import pandas
from sklearn.model_selection import train_test_split

from . import network, sample, tables
from .bases import sha256_of
from .errors import DataError, some, unknown
from .recipes import Recipe
from .results import DatasetFacts

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
TEXT_COLUMNS = ("text", "review", "content", "sentence", "body", "comment")
LABEL_COLUMNS = ("label", "labels", "sentiment", "stars", "rating", "class", "target")


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
    """Frames with columns `text` (str) and `label` (index into `labels`), and what was done to get them."""

    train: pandas.DataFrame
    validation: pandas.DataFrame
    test: pandas.DataFrame
    labels: list[str]
    facts: DatasetFacts


def load(recipe: Recipe) -> Splits:
    """The recipe's dataset, cleaned, split and sub-sampled the same way every time. Raises DataError."""
    raw, facts = _read(recipe.dataset)
    text, label = _columns(raw, recipe)
    frames, labels = _tidy(raw, text, label, recipe, facts)
    frames = _split(frames, labels, recipe.data_seed, facts)
    limits = {"train": recipe.n_train, "validation": recipe.n_validation, "test": recipe.n_test}
    for name, limit in limits.items():
        frames[name] = balanced(frames[name], limit, recipe.data_seed)
        facts.splits[name] = len(frames[name])
    return Splits(labels=labels, facts=facts, **frames)


def balanced(frame: pandas.DataFrame, n: int | None, seed: int) -> pandas.DataFrame:
    """`n` rows, as evenly spread over the classes as they last, in their old order; all rows for None."""
    if n is None or n >= len(frame):
        return frame.reset_index(drop=True)
    shuffled = frame.sample(frac=1, random_state=seed)
    turn = shuffled.groupby("label").cumcount()  # each class's first row, then each one's second, …
    return frame.loc[turn.sort_values(kind="stable").index[:n].sort_values()].reset_index(drop=True)


def _read(dataset: str) -> tuple[dict[str, pandas.DataFrame], DatasetFacts]:
    path = Path(dataset)
    if dataset == "sample":
        frame = sample.make()
        digest = hashlib.sha256(frame.to_json().encode()).hexdigest()
        return {"train": frame}, DatasetFacts("sample", digest, "made")
    if path.is_dir():
        files = {
            _split_name(file): file for file in sorted(path.iterdir()) if file.suffix in SUFFIXES and _split_name(file)
        }
        if "train" not in files:
            raise DataError(
                f"Folder {dataset} has no train file: it needs train.parquet (or {', '.join(SUFFIXES[:3])})."
            )
        digest = hashlib.sha256("".join(sha256_of(file) for file in files.values()).encode()).hexdigest()
        facts = DatasetFacts(path.resolve().name, digest, "local")
        return {name: _read_file(file) for name, file in files.items()}, facts
    if path.suffix in SUFFIXES or path.is_file():
        if not path.is_file():
            raise DataError(f"There is no file {dataset}: check the path.")
        return {"train": _read_file(path)}, DatasetFacts(path.name, sha256_of(path), "local")
    return _read_hub(dataset)


def _split_name(file: Path) -> str | None:
    return _SPLIT_NAMES.get(re.split(r"[-_.]", file.stem.lower())[0])


def _read_file(path: Path) -> pandas.DataFrame:
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} is no {', '.join(SUFFIXES)} file: convert it to one of these.")
    return tables.read(path).frame


def _read_hub(dataset: str) -> tuple[dict[str, pandas.DataFrame], DatasetFacts]:
    known = HUB_DATASETS.get(dataset)
    if known is None and not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
        raise DataError(unknown("dataset", dataset, [*HUB_DATASETS, "sample"]) + " Or name a file or folder.")
    if not network.hub_reachable():
        raise DataError(
            f"The Hub cannot be reached, so {dataset} cannot be fetched: name a local file or folder, or use --dataset sample."
        )
    import datasets  # slow to import, and only the Hub needs it

    try:
        loaded = datasets.load_dataset(dataset, revision=known.revision if known else None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"Dataset {dataset} cannot be fetched: {' '.join(str(error).split())[:200]}. Check the id."
        ) from error
    frames = {}
    for name, split in loaded.items():
        if name in _SPLIT_NAMES:
            frame = split.to_pandas()
            for column, feature in split.features.items():
                if isinstance(feature, datasets.ClassLabel):
                    frame[column] = feature.int2str(frame[column].tolist())
            frames[_SPLIT_NAMES[name]] = frame
    if "train" not in frames:
        raise DataError(f"Dataset {dataset} has no train split, only {', '.join(loaded)}: choose another.")
    commits = re.findall(r"@([0-9a-f]{40})/", " ".join(loaded["train"].info.download_checksums or {}))
    return frames, DatasetFacts(dataset, (known and known.revision) or next(iter(commits), "unknown"), "hub")


def _columns(raw: dict[str, pandas.DataFrame], recipe: Recipe) -> tuple[str, str]:
    columns = [str(column) for column in raw["train"].columns]

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
    for name, frame in raw.items():
        if missing := {text, label} - set(frame.columns):
            raise DataError(f"Split {name} lacks column {', '.join(missing)}: every split needs the same columns.")
    return text, label


def usual_columns(columns: Iterable[str], usual: tuple[str, ...]) -> list[str]:
    """Those of `columns` with one of the `usual` names, in whatever case, in the order of `usual`."""
    columns = list(columns)
    return [column for name in usual for column in columns if column.lower() == name]


def label_name(value: object) -> str:
    """A label as people write it: 5.0 -> '5', True -> 'True', None and NaN -> ''."""
    if value is None or (isinstance(value, float) and numpy.isnan(value)):
        return ""
    if isinstance(value, float | numpy.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _tidy(
    raw: dict[str, pandas.DataFrame], text: str, label: str, recipe: Recipe, facts: DatasetFacts
) -> tuple[dict[str, pandas.DataFrame], list[str]]:
    """Text and label as strings; empty rows and duplicates out; label names to indices."""
    frames = {}
    for name, frame in raw.items():
        texts = frame[text].where(frame[text].notna(), "").astype(str).str.strip()
        frame = pandas.DataFrame({"text": texts, "label": frame[label].map(label_name)})
        whole = frame[(frame["text"] != "") & (frame["label"].fillna("") != "")]
        unique = whole.drop_duplicates("text")
        facts.empty_removed += len(frame) - len(whole)
        facts.duplicates_removed += len(whole) - len(unique)
        frames[name] = unique
    for later, earlier in (("train", ("validation", "test")), ("validation", ("test",))):
        for other in earlier:
            if later in frames and other in frames:
                leaked = frames[later]["text"].isin(frames[other]["text"])
                facts.leaked_removed += int(leaked.sum())
                frames[later] = frames[later][~leaked]
    labels = _names(frames, recipe)
    index = {name: position for position, name in enumerate(labels)}
    return {name: frame.assign(label=frame["label"].map(index)) for name, frame in frames.items()}, labels


def _names(frames: dict[str, pandas.DataFrame], recipe: Recipe) -> list[str]:
    """Label names in order; replaces the values in `frames` by them where the recipe names them."""
    if len(frames["train"]) == 0:
        raise DataError(f"{recipe.dataset} has no rows with both a text and a label: check the columns.")
    if recipe.label_names:
        given = {label_name(key): str(name) for key, name in recipe.label_names.items()}
        for name, frame in frames.items():
            frames[name] = frame.assign(label=frame["label"].map(lambda value: given.get(value, value)))
        labels = list(given.values())
    else:
        found = set(frames["train"]["label"])
        numeric = all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in found)
        labels = sorted(found, key=float if numeric else str)
    if len(labels) > 1000:
        raise DataError(
            f"The label column of {recipe.dataset} has {len(labels)} different values: name another with --label-column."
        )
    if len(set(frames["train"]["label"])) < 2:
        raise DataError(
            f"All rows of {recipe.dataset} have the label {labels[0]!r}: a classifier needs at least two classes."
        )
    for name, frame in frames.items():
        if strange := set(frame["label"]) - set(labels):
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
    return {name: frames[name].sort_index() for name in ("train", "validation", "test")}
