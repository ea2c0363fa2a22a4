"""Clean the rows of a dataset and divide them into train, validation and test.

The functions work on one frame per split with columns `label`, `key` (a hash of the text) and `row` (its position in
the split as read), so that the texts need not be in memory.
"""

import re

import pandas
from sklearn.model_selection import train_test_split

from adapter_arena.data.labels import label_name
from adapter_arena.data.sources import Source
from adapter_arena.errors import DataError
from adapter_arena.recipe import Recipe
from adapter_arena.results import DatasetFacts

Frames = dict[str, pandas.DataFrame]
"""A frame for each of the splits `train`, `validation` and `test` that there are."""
_MAX_LABELS = 1000
_SHARES = {"test": 0.2, "validation": 0.1}
"""Share of the training rows that a missing split takes, in this order."""


def clean(frames: Frames, facts: DatasetFacts) -> Frames:
    """Return the frames without empty rows, duplicates and leaks, and count these in `facts`.

    A row is empty if its column `is_complete` is false. A leak is a row of train or validation whose text is also in a
    later split. A validation or test split without a single complete row, for example with secret labels, is dropped.
    """
    cleaned = {}
    for name, frame in frames.items():
        complete = frame[frame["is_complete"]].drop(columns="is_complete")
        distinct = complete.drop_duplicates("key")
        facts.empty_removed += len(frame) - len(complete)
        facts.duplicates_removed += len(complete) - len(distinct)
        if name == "train" or not distinct.empty:
            cleaned[name] = distinct
    for earlier, later in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if earlier in cleaned and later in cleaned:
            is_leak = cleaned[earlier]["key"].isin(cleaned[later]["key"])
            facts.leaked_removed += int(is_leak.sum())
            cleaned[earlier] = cleaned[earlier][~is_leak]
    return cleaned


def number_labels(frames: Frames, recipe: Recipe, source: Source) -> tuple[Frames, list[str]]:
    """Return the frames with the index of each label, and the label names in order. Raises DataError."""
    if recipe.label_names:
        frames = _rename_labels(frames, recipe, source.class_names)
        labels = list(dict.fromkeys(str(name) for name in recipe.label_names.values()))
    else:
        labels = _sorted_labels(frames["train"])
    problem = _label_problem(frames, labels, recipe.dataset)
    if problem:
        raise DataError(problem)
    numbers = {name: number for number, name in enumerate(labels)}
    numbered = {}
    for split, frame in frames.items():
        numbered[split] = frame.assign(label=frame["label"].map(numbers).astype("int64"))
    return numbered, labels


def _rename_labels(frames: Frames, recipe: Recipe, class_names: list[str]) -> Frames:
    """Return the frames with the recipe's names for the values of the label column.

    The recipe may name a class by its number, as files have it, even if the Hub's dataset has a name for that class.
    """
    given = {label_name(value): str(name) for value, name in recipe.label_names.items()}
    numbers = {name: str(number) for number, name in enumerate(class_names)}
    renamed = {}
    for split, frame in frames.items():
        names = {}
        for value in frame["label"].unique():
            names[value] = given.get(value) or given.get(numbers.get(value), value)
        renamed[split] = frame.assign(label=frame["label"].map(names))
    return renamed


def _sorted_labels(frame: pandas.DataFrame) -> list[str]:
    """Return the distinct labels of a frame: by value if all are numbers, or else by name."""
    labels = frame["label"].unique().tolist()
    all_numeric = all(re.fullmatch(r"-?\d+(\.\d+)?", label) for label in labels)
    return sorted(labels, key=float if all_numeric else str)


def _label_problem(frames: Frames, labels: list[str], dataset: str) -> str | None:
    """Return why no classifier can be trained on these labels."""
    found = frames["train"]["label"].nunique()
    if found == 0:
        return f"{dataset} has no rows with both a text and a label: check the columns."
    if len(labels) > _MAX_LABELS:
        return f"The label column of {dataset} has {len(labels)} different values: name another with --label-column."
    if found == 1:
        return f"All rows of {dataset} have the label {labels[0]!r}: a classifier needs at least two classes."
    for split, frame in frames.items():
        unseen = sorted(set(frame["label"].unique()) - set(labels))
        if unseen:
            return f"Split {split} of {dataset} has labels not seen in training: {', '.join(unseen[:5])}."
    return None


def carve_missing(frames: Frames, labels: list[str], seed: int, dataset: str) -> Frames:
    """Return the frames of all three splits, in the order of their rows; missing ones are carved from train.

    Test takes a fifth and then validation a tenth of the training rows, with classes in proportion. Raises DataError.
    """
    carved = dict(frames)
    for name, share in _SHARES.items():
        if name in frames:
            continue
        train = carved["train"]
        rows = int(share * len(train))
        class_sizes = train["label"].value_counts()
        if class_sizes.min() < 2 or rows < len(class_sizes):
            rarest = labels[class_sizes.idxmin()]
            raise DataError(
                f"{dataset} has too few rows to carve a {name} split: {len(train)} rows, "
                f"{class_sizes.min()} of class {rarest!r}; add rows or a {name} file."
            )
        carved["train"], carved[name] = train_test_split(
            train, test_size=rows, random_state=seed, stratify=train["label"]
        )
    return {name: carved[name].sort_values("row") for name in ("train", "validation", "test")}


def balanced(frame: pandas.DataFrame, n: int | None, seed: int) -> pandas.DataFrame:
    """Return `n` rows in their order, spread over the classes as evenly as possible; all rows for None."""
    if n is None or n >= len(frame):
        return frame.reset_index(drop=True)
    shuffled = frame.sample(frac=1, random_state=seed)
    rank_in_class = shuffled.groupby("label").cumcount()
    chosen = rank_in_class.sort_values(kind="stable").index[:n]  # the first row of each class, then the second, …
    return frame.loc[chosen.sort_values()].reset_index(drop=True)
