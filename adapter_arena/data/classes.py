"""The classes of a dataset: which value of the label column is which class, and in which order they are numbered."""

import collections
import re
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas

from adapter_arena.data.labels import LabelIndex, label_key, label_name
from adapter_arena.errors import DataError, shortened_list
from adapter_arena.recipe import Recipe

Frames = dict[str, pandas.DataFrame]
"""A frame for each of the splits `train`, `validation` and `test` that there are."""
MISSING_NAMES = frozenset(
    {"#N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null", "-nan", "-NaN"}
)
"""Strings that programs write for a missing label, as `pandas.read_csv` reads them. `none` is the name of a class."""
_UNKNOWN_NUMBER = "-1"
"""The number of no class in datasets whose labels are secret, such as GLUE's test splits."""
_MAX_LABELS = 1000
_MAX_PARTS = 5
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_NAMES_OF_TRUTH = {"True": "1", "False": "0", "1": "True", "0": "False"}


class Note(NamedTuple):
    """A line about the data for the user, printed before training."""

    heading: str
    """One word."""
    text: str


@dataclass(frozen=True)
class ClassMap:
    """The class that each value of the label column is an example of."""

    classes: dict[str, str]
    """Name of the class by value; '' for a value that is a missing label."""
    joined: dict[str, list[str]] = field(default_factory=dict)
    """Different spellings of one class, by its name."""
    unlabelled: dict[str, int] = field(default_factory=dict)
    """Rows by the value that is a missing label, without empty cells."""

    def apply(self, frames: Frames) -> Frames:
        """Return the frames with the name of the class in column `label`."""
        return {split: frame.assign(label=frame["label"].map(self.classes)) for split, frame in frames.items()}

    def notes(self) -> list[Note]:
        """Return what the user should know about labels that are not used as they are written."""
        notes = []
        if self.joined:
            parts = [f"{', '.join(map(repr, spellings))} as {name!r}" for name, spellings in self.joined.items()]
            notes.append(Note("joined", "; ".join(parts[:_MAX_PARTS]) + ("; …" if len(parts) > _MAX_PARTS else "")))
        if self.unlabelled:
            notes.append(Note("unlabelled", self.unlabelled_text()))
        return notes

    def unlabelled_text(self) -> str:
        """Return the values that are missing labels with their rows, and what to do if they are a class."""
        parts = [f"{name!r} ({rows:,} rows)" for name, rows in self.unlabelled.items()]
        return f"{shortened_list(parts)}; if that is a class, name every class with --label-names VALUE=NAME"


def map_values(frames: Frames, recipe: Recipe, class_names: list[str]) -> ClassMap:
    """Return the class of each value of the label column over all splits. Raises DataError.

    `class_names` are the dataset's own names of the classes by number, if it has them. Values that differ in case only
    are one class, whose name is the most frequent of them, unless the recipe or the dataset names both.
    """
    counts = _count_values(frames)
    given = _names_of_recipe(recipe)
    own_names = [*class_names, *given]
    rows_of_name = collections.Counter()
    for value, rows in counts.items():
        rows_of_name[label_name(value)] += rows
    missing = _missing_names(rows_of_name, own_names)
    representative = _join_cases(rows_of_name, missing, own_names)
    joined: dict[str, list[str]] = {}
    classes = {}
    for value in counts:
        name = label_name(value)
        classes[value] = "" if name in missing else representative[name]
        if name not in missing:
            joined.setdefault(classes[value], []).append(value)
    if given:
        names = _given_names(representative, given, class_names, recipe.dataset, rows_of_name)
        classes = {value: names[name] if name else "" for value, name in classes.items()}
    return ClassMap(
        classes=classes,
        joined={name: spellings for name, spellings in joined.items() if len(spellings) > 1},
        unlabelled={name: rows_of_name[name] for name in missing if name},
    )


def _names_of_recipe(recipe: Recipe) -> dict[str, str]:
    """Return the recipe's names of classes by value, without those that it leaves empty. Raises DataError."""
    names = {}
    for value, name in (recipe.label_names or {}).items():
        if name is None or not str(name).strip():
            continue
        key = label_name(value)
        if names.setdefault(key, str(name)) != str(name):
            raise DataError(f"label_names names class {key!r} twice, {names[key]!r} and {name!r}: leave one out.")
    return names


def _count_values(frames: Frames) -> collections.Counter:
    """Return the rows of each value of the label column, in the order in which they appear, training rows first."""
    counts = collections.Counter()
    for split in ("train", "validation", "test"):
        if split in frames:
            counts.update(frames[split]["label"].value_counts(sort=False).to_dict())
    return counts


def _missing_names(rows_of_name: collections.Counter, own_names: list[str]) -> set[str]:
    """Return the names that are missing labels: those of `MISSING_NAMES`, and -1 among numbers from 0 up.

    With only one other number, -1 is a class: -1 and 1 are the two classes of many datasets.
    """
    missing = {name for name in rows_of_name if name == "" or name in MISSING_NAMES}
    others = rows_of_name.keys() - missing - {_UNKNOWN_NUMBER}
    are_numbers = all(_NUMBER.fullmatch(name) and not name.startswith("-") for name in others)
    if _UNKNOWN_NUMBER in rows_of_name and len(others) > 1 and are_numbers:
        missing.add(_UNKNOWN_NUMBER)
    return missing - (set(own_names) - {""})


def _join_cases(rows_of_name: collections.Counter, missing: set[str], own_names: list[str]) -> dict[str, str]:
    """Return for each name the one that stands for it: names in other cases are the same class.

    Several names of `own_names` that differ in case only remain different classes.
    """
    own_keys = collections.Counter(label_key(name) for name in dict.fromkeys(own_names))
    groups: dict[str, list[str]] = {}
    for name in rows_of_name:
        if name not in missing:
            key = label_key(name)
            groups.setdefault(name if own_keys[key] > 1 else key, []).append(name)
    representative = {}
    for names in groups.values():
        own = [name for name in names if name in own_names]
        shown = own[0] if own else max(names, key=rows_of_name.__getitem__)  # the first one of equally many rows
        representative.update(dict.fromkeys(names, shown))
    return representative


def _given_names(
    representative: dict[str, str],
    given: dict[str, str],
    class_names: list[str],
    dataset: str,
    rows_of_name: collections.Counter,
) -> dict[str, str]:
    """Return the recipe's name of each class. Raises DataError for classes that it does not name.

    The recipe names a class by its value, by its number if the dataset has its own names, or by its new name.
    """
    by_value = LabelIndex(given)
    by_new_name = LabelIndex(dict.fromkeys(given.values()))
    numbers = {name: str(number) for number, name in enumerate(class_names)}
    names = {}
    unnamed = []
    for name in dict.fromkeys(representative.values()):
        key = by_value.find(name)
        for other_spelling in (numbers.get(name), _NAMES_OF_TRUTH.get(name)):
            if key is None and other_spelling is not None:
                key = by_value.find(other_spelling)
        new_name = by_new_name.find(name) if key is None else given[key]
        if new_name is None:
            unnamed.append(f"{name!r} ({rows_of_name[name]:,} rows)")
        else:
            names[name] = new_name
    if unnamed:
        raise DataError(
            f"label_names has no name for class {shortened_list(unnamed)} of {dataset}, only for "
            f"{shortened_list(list(given))}: add a name, or remove these rows."
        )
    return names


# ---------------------------------------------------------------- numbers


def number_labels(frames: Frames, recipe: Recipe, class_map: ClassMap) -> tuple[Frames, list[str]]:
    """Return the frames with the index of each class in column `label`, and the names in order. Raises DataError."""
    if recipe.label_names:
        labels = list(dict.fromkeys(_names_of_recipe(recipe).values()))
    else:
        labels = _sorted_names(frames["train"])
    problem = _label_problem(frames, labels, recipe.dataset)
    if problem:
        if class_map.unlabelled:
            problem += f" Rows that count as unlabelled: {class_map.unlabelled_text()}."
        raise DataError(problem)
    numbers = {name: number for number, name in enumerate(labels)}
    numbered = {}
    for split, frame in frames.items():
        numbered[split] = frame.assign(label=frame["label"].map(numbers).astype("int64"))
    return numbered, labels


def _sorted_names(frame: pandas.DataFrame) -> list[str]:
    """Return the distinct classes of a frame: by value if all are numbers, or else by name."""
    labels = frame["label"].unique().tolist()
    all_numeric = all(_NUMBER.fullmatch(label) for label in labels)
    return sorted(labels, key=float if all_numeric else str)


def _label_problem(frames: Frames, labels: list[str], dataset: str) -> str | None:
    found = frames["train"]["label"].nunique()
    if found == 0:
        return f"{dataset} has no rows with both a text and a label: check the columns."
    if len(labels) > _MAX_LABELS:
        return f"The label column of {dataset} has {len(labels)} different values: name another with --label-column."
    if found == 1:
        only = frames["train"]["label"].iloc[0]
        return f"All rows of {dataset} have the label {only!r}: a classifier needs at least two classes."
    for split, frame in frames.items():
        unseen = sorted(set(frame["label"].unique()) - set(labels))
        if unseen:
            return f"Split {split} of {dataset} has labels not seen in training: {', '.join(unseen[:5])}."
    return None
