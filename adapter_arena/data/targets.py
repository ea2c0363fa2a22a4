"""What a model learns to answer: the task of a label column, and its cells as classes, lists of classes or numbers."""

import collections
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy
import pandas

from adapter_arena import tasks
from adapter_arena.data import classes, label_cells
from adapter_arena.data.classes import MISSING_NAMES, Frames, Note
from adapter_arena.data.labels import label_name
from adapter_arena.errors import DataError, shortened_list
from adapter_arena.recipe import Recipe

_MAX_CLASSES = 1000
_MOST_FRACTIONS = 10
"""Different numbers with fractions that are still classes, such as stars in steps of a half."""
_MOST_NUMBERS = 100
"""Different whole numbers that are still classes, unless they count from 0 or 1 without a gap, as class ids do."""
_SOME_TEXT = 0.1
"""Share of the values up to which text among numbers is a mistake in the data."""


@dataclass(frozen=True)
class Targets:
    """The labels of a data set, read by its task."""

    task: str
    frames: Frames
    """The rows with a text in column `label` that is equal for equal labels; '' for a row without one."""
    notes: list[Note]
    number: Callable[[Frames], tuple[Frames, list[str]]]
    """Returns cleaned frames with what the model learns in column `label`, and the names of the labels.

    That is the index of a class, a tuple of such indices (multi-label) or a number (regression). Raises DataError.
    """


def read(frames: Frames, recipe: Recipe, class_names: list[str], label_columns: list[str]) -> Targets:
    """Return the labels of frames with the cells of the label column as text. Raises DataError.

    `class_names` are the dataset's own names of the classes by number, if it has them.
    """
    column = ", ".join(label_columns)
    values = frames["train"]["label"].unique().tolist()
    task, reason = _decide(values, recipe.task, len(label_columns) > 1, column)
    readers = {
        tasks.SINGLE_LABEL: _read_classes,
        tasks.MULTI_LABEL: _read_lists,
        tasks.REGRESSION: _read_numbers,
    }
    targets = readers[task](frames, recipe, class_names, column)
    targets.notes.insert(0, Note("task", f"{task} ({reason})"))
    return targets


def check_training_labels(task: str, drawn: numpy.ndarray, labels: list[str]) -> list[Note]:
    """Return a note about labels that no training row has, after rows were drawn. Raises DataError for equal numbers."""
    if task == tasks.REGRESSION and drawn.std() == 0:
        raise DataError(f"{labels[0]} is {drawn[0]:g} in all {len(drawn):,} training rows: raise --n-train.")
    if task != tasks.MULTI_LABEL:
        return []
    seen = {index for indices in drawn for index in indices}
    unseen = [name for index, name in enumerate(labels) if index not in seen]
    return [Note("untrained", f"no training row has {shortened_list(unseen)}")] if unseen else []


# ---------------------------------------------------------------- the task


def _decide(values: list[str], wanted: str | None, is_one_hot: bool, column: str) -> tuple[str, str]:
    """Return the task and why it is that one. Raises DataError if the column cannot have the wanted task."""
    names = [name for name in map(label_name, values) if name and name not in MISSING_NAMES]
    has_lists = bool(names) and any(map(label_cells.LIST.fullmatch, names)) and _are_lists(names)
    if wanted is None:
        return _guess(names, has_lists, is_one_hot, column)
    if has_lists and wanted != tasks.MULTI_LABEL:
        kind = "has several columns" if is_one_hot else "holds lists"
        raise DataError(f"{column} {kind}, which --task {wanted} cannot learn: use --task multi-label or one column.")
    return wanted, "--task"


def _guess(names: list[str], has_lists: bool, is_one_hot: bool, column: str) -> tuple[str, str]:
    override = "; --task overrides"
    if is_one_hot:
        return tasks.MULTI_LABEL, "a column of 0 and 1 for each label" + override
    if has_lists:
        return tasks.MULTI_LABEL, f"{column} holds lists" + override
    if separator := _separator(names):
        return tasks.MULTI_LABEL, f"{column} joins labels with {separator!r}" + override
    if _are_measurements(names, column):
        return tasks.REGRESSION, f"{column} holds {len(names):,} different numbers" + override
    return tasks.SINGLE_LABEL, f"one label per row in {column}" + override


def _are_lists(names: list[str]) -> bool:
    return all(label_cells.LIST.fullmatch(name) for name in names)


def _separator(names: list[str]) -> str | None:
    """Return what joins several labels in a cell, if one does: each part of the cell is also found in another."""
    # So many values are texts or numbers, in which the other two marks mean nothing.
    separators = ("|",) if len(names) > _MAX_CLASSES else label_cells.SEPARATORS
    for separator in separators:
        parts = {name: {part.strip() for part in name.split(separator)} for name in names}
        counts = collections.Counter(part for found in parts.values() for part in found)
        for name, found in parts.items():
            is_joined = len(found) > 1 and all(part and counts[part] > 1 for part in found)
            if is_joined and not label_cells.DECIMAL_COMMA.fullmatch(name):
                return separator
    return None


def _are_measurements(names: list[str], column: str) -> bool:
    """Return whether the values are numbers of a scale, not class ids. Raises DataError for a little text among such."""
    numbers = {name: label_cells.number(name) for name in names}
    text = [name for name, number in numbers.items() if number is None]
    found = {number for number in numbers.values() if number is not None}
    if len(text) > _SOME_TEXT * len(names) or not _is_scale(found):
        return False
    if text:
        raise DataError(_text_problem(text, column) + " With --task single-label every value is a class.")
    return True


def _is_scale(numbers: set[float]) -> bool:
    if any(not number.is_integer() for number in numbers):
        return len(numbers) > _MOST_FRACTIONS
    are_ids = len(numbers) <= _MAX_CLASSES and bool(numbers) and min(numbers) in (0, 1)
    are_ids = are_ids and max(numbers) - min(numbers) == len(numbers) - 1
    return len(numbers) > _MOST_NUMBERS and not are_ids


# ---------------------------------------------------------------- one class per row


def _read_classes(frames: Frames, recipe: Recipe, class_names: list[str], column: str) -> Targets:
    class_map = classes.map_values(frames, recipe, class_names)

    def number(cleaned: Frames) -> tuple[Frames, list[str]]:
        return classes.number_labels(cleaned, recipe, class_map)

    return Targets(tasks.SINGLE_LABEL, class_map.apply(frames), class_map.notes(), number)


# ---------------------------------------------------------------- lists of classes


def _read_lists(frames: Frames, recipe: Recipe, class_names: list[str], column: str) -> Targets:
    entries = _entries_by_cell(frames, class_names, column)
    class_map = classes.map_values(_exploded(frames, entries), recipe, class_names)
    names = {}
    for cell, found in entries.items():
        names[cell] = _joined_names(cell, found, class_map.classes, column)
    labelled = {}
    for split, frame in frames.items():
        labelled[split] = frame.assign(label=frame["label"].map(names))
    notes = [note for note in class_map.notes() if note.heading != "unlabelled"]
    without = sum(int((frame["label"] == "[]").sum()) for frame in labelled.values())
    if without:
        notes.append(Note("no label", f"{without:,} rows with an empty list of labels are used as such"))

    def number(cleaned: Frames) -> tuple[Frames, list[str]]:
        by_cell = {cell: json.loads(cell) for frame in cleaned.values() for cell in frame["label"].unique()}
        _, labels = classes.number_labels(_exploded(cleaned, by_cell), recipe, class_map)
        index = {name: number for number, name in enumerate(labels)}
        tuples = {cell: tuple(sorted(index[name] for name in found)) for cell, found in by_cell.items()}
        numbered = {}
        for split, frame in cleaned.items():
            numbered[split] = frame.assign(label=frame["label"].map(tuples).astype(object))
        return numbered, labels

    return Targets(tasks.MULTI_LABEL, labelled, notes, number)


def _entries_by_cell(frames: Frames, class_names: list[str], column: str) -> dict[str, list[str]]:
    """Return the entries of each different cell, with classes by name if the dataset has names for their numbers."""
    cells = list(dict.fromkeys(cell for frame in frames.values() for cell in frame["label"].unique()))
    separator = None
    if not _are_lists([label_name(cell) for cell in cells if label_name(cell)]):
        separator = next((mark for mark in label_cells.SEPARATORS if any(mark in cell for cell in cells)), None)
    names_by_number = {str(number): name for number, name in enumerate(class_names)}
    entries = {}
    for cell in cells:
        found = label_cells.entries(cell, separator, column)
        entries[cell] = [names_by_number.get(label_name(entry), entry) for entry in found]
    return entries


def _exploded(frames: Frames, entries: dict[str, list[str]]) -> Frames:
    """Return frames with a row for each entry of each row's list."""
    exploded = {}
    for split, frame in frames.items():
        found = [entry for cell in frame["label"] for entry in entries[cell]]
        exploded[split] = pandas.DataFrame({"label": pandas.Series(found, dtype=object)})
    return exploded


def _joined_names(cell: str, entries: list[str], class_of: dict[str, str], column: str) -> str:
    """Return the names as a JSON list in a fixed order; '' for a cell without a label. Raises DataError.

    An empty list is a label: none of the classes.
    """
    names = {class_of[entry] for entry in entries}
    if names == {""}:
        return ""
    if "" in names:
        raise DataError(
            f"{column} has an empty or missing entry in a list of labels ({cell!r:.80}): remove the entry, or name every "
            "class with --label-names VALUE=NAME."
        )
    return json.dumps(sorted(names), ensure_ascii=False)


# ---------------------------------------------------------------- numbers


def _read_numbers(frames: Frames, recipe: Recipe, class_names: list[str], column: str) -> Targets:
    if recipe.label_names:
        raise DataError("label_names names classes, which a regression does not have: leave it out.")
    numbers = {}
    text = []
    for cell in dict.fromkeys(cell for frame in frames.values() for cell in frame["label"].unique()):
        name = label_name(cell)
        number = label_cells.number(name)
        is_missing = name == "" or name in MISSING_NAMES
        if number is None and not is_missing:
            text.append(name)
        numbers[cell] = "" if number is None else repr(number)
    if text:
        raise DataError(_text_problem(text, column))
    read_frames = {}
    for split, frame in frames.items():
        read_frames[split] = frame.assign(label=frame["label"].map(numbers))

    def number_rows(cleaned: Frames) -> tuple[Frames, list[str]]:
        distinct = cleaned["train"]["label"].nunique()
        if distinct == 0:
            raise DataError(f"{recipe.dataset} has no rows with both a text and a number: check the columns.")
        if distinct == 1:
            only = cleaned["train"]["label"].iloc[0]
            raise DataError(f"{column} is {only} in all rows of {recipe.dataset}: there is nothing to learn from it.")
        numbered = {split: frame.assign(label=frame["label"].astype(float)) for split, frame in cleaned.items()}
        return numbered, [column]

    return Targets(tasks.REGRESSION, read_frames, [], number_rows)


def _text_problem(text: Iterable[str], column: str) -> str:
    text = [repr(name)[:60] for name in text]
    return f"{column} holds values among its numbers that are not finite numbers ({shortened_list(text[:5])}): correct them."
