"""Load a recipe's dataset: read it, clean it, divide it into splits and draw the rows to use."""

import collections
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy
import pandas
import pyarrow

from adapter_arena.data import classes, rows, sources, splits
from adapter_arena.data.classes import Note
from adapter_arena.data.labels import LABEL_COLUMNS, TEXT_COLUMNS, choose_column, label_key, label_text
from adapter_arena.data.rows import Rows
from adapter_arena.data.sources import Source
from adapter_arena.errors import DataError, shortened_list
from adapter_arena.recipe import Recipe
from adapter_arena.results import DatasetFacts


@dataclass(frozen=True)
class Splits:
    """The rows to train on, and the others as frames with columns `text` and `label` (an index into `labels`)."""

    train: Rows
    validation: pandas.DataFrame
    test: pandas.DataFrame
    labels: list[str]
    facts: DatasetFacts
    notes: list[Note] = field(default_factory=list)
    """How the data were read and which rows are not used, for the user."""


def load_splits(recipe: Recipe) -> Splits:
    """Return the recipe's dataset, cleaned, split and sub-sampled in the same way every time. Raises DataError."""
    source = sources.find(recipe)
    reader = _Reader(source, recipe)
    facts = source.facts
    tables = {}
    frames = {}
    for split in source.splits:
        tables[split] = rows.load_table(reader.key(split), functools.partial(reader.frames, split))
        frames[split] = _without_texts(tables[split])
    class_map = classes.map_values(frames, recipe, source.class_names)
    frames, cleaning_notes = splits.clean(class_map.apply(frames), facts)
    frames, labels = classes.number_labels(frames, recipe)
    complete = splits.carve_missing(frames, labels, recipe.data_seed, facts.id)
    limits = {"train": recipe.n_train, "validation": recipe.n_validation, "test": recipe.n_test}
    chosen = {}
    not_drawn = []
    for split, limit in limits.items():
        origin = split if split in frames else "train"
        frame = splits.balanced(complete[split], limit, recipe.data_seed)
        chosen[split] = Rows(
            texts=tables[origin]["text"],
            index=frame["row"].to_numpy(),
            labels=frame["label"].to_numpy(),
            source=reader.key(origin),
        )
        facts.splits[split] = len(frame)
        if len(frame) < len(complete[split]):
            not_drawn.append(f"{len(complete[split]) - len(frame):,} of {split} (--n-{split} {limit:,})")
    notes = [reader.note(), *class_map.notes(), *cleaning_notes]
    if not_drawn:
        notes.append(Note("not drawn", ", ".join(not_drawn)))
    return Splits(chosen["train"], chosen["validation"].frame(), chosen["test"].frame(), labels, facts, notes)


def _without_texts(table: pyarrow.Table) -> pandas.DataFrame:
    """Return the columns of a table of rows that decide which of them are used."""
    frame = table.select(["label", "key"]).to_pandas()
    has_text = table["text"].is_valid().to_numpy()
    return frame.assign(row=numpy.arange(len(frame)), has_text=has_text)


class _Reader:
    """Reads the text and the label of the rows of each split."""

    def __init__(self, source: Source, recipe: Recipe):
        self._source = source
        self._recipe = recipe
        self._wanted = _wanted_rows(recipe) if recipe.streaming else math.inf

    def key(self, split: str) -> str:
        """Return what decides the content of `frames`."""
        facts = self._source.facts
        recipe = self._recipe
        key = [facts.id, facts.revision, split, recipe.text_column, recipe.label_column]
        if recipe.streaming:
            key += [recipe.data_seed, self._wanted]
        return repr(key)

    def frames(self, split: str) -> Iterator[pandas.DataFrame]:
        """Yield the rows as strings in columns `text` and `label`; only as many of a stream as are needed."""
        text, label = self._columns
        counts = collections.Counter()
        for frame in self._source.splits[split]():
            missing = {text, label} - set(frame.columns)
            if missing:
                raise DataError(
                    f"Split {split} has no column {', '.join(missing)}: every split needs the same columns."
                )
            texts = frame[text].where(frame[text].notna(), "").astype(str)
            labels = frame[label].astype(object).map(label_text)
            yield pandas.DataFrame({"text": texts, "label": labels})
            counts.update(label_key(value) for value in labels)
            if self._is_enough(counts):
                return

    def note(self) -> Note:
        """Return the columns that are used and those that are not."""
        text, label = self._columns
        ignored = [column for column in self._all_columns if column not in (text, label)]
        line = f"text {text!r}, label {label!r}"
        if ignored:
            line += f"; ignored: {shortened_list(ignored)}"
        return Note("columns", line)

    def _is_enough(self, counts: collections.Counter) -> bool:
        """Return whether a stream can end: with classes in proportion, or with four times the rows if one is rare.

        Rows may be sorted by class, so that some classes come late.
        """
        labelled = counts.copy()
        del labelled[""]
        all_classes = len(labelled) >= self._recipe.num_labels
        is_even = all_classes and min(labelled.values()) >= self._wanted / len(labelled)
        return labelled.total() >= (self._wanted if is_even else 4 * self._wanted)

    @functools.cached_property
    def _columns(self) -> tuple[str, str]:
        """The names of the columns with the text and the label."""
        columns = self._all_columns
        text = self._recipe.text_column or self._source.text_column
        return (
            choose_column("text", columns, text, TEXT_COLUMNS),
            choose_column("label", columns, self._recipe.label_column, LABEL_COLUMNS),
        )

    @functools.cached_property
    def _all_columns(self) -> list[str]:
        first = next(self._source.splits["train"]())
        return [str(column) for column in first.columns]


def _wanted_rows(recipe: Recipe) -> int:
    """Return how many rows of a stream are enough for every split, even if all are carved from it. Raises DataError."""
    sizes = {"--n-train": recipe.n_train, "--n-test": recipe.n_test, "--n-validation": recipe.n_validation}
    missing = [flag for flag, size in sizes.items() if size is None]
    if missing:
        raise DataError(f"--streaming reads only as many rows as are needed: give {', '.join(missing)}.")
    # Test takes 0.2 of the rows, validation 0.1 of the other 0.8, and train has what is left.
    return math.ceil(max(recipe.n_test / 0.2, recipe.n_validation / 0.08, recipe.n_train / 0.72))
