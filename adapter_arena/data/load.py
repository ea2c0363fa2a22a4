"""Load a recipe's dataset: read it, clean it, divide it into splits and draw the rows to use."""

import collections
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy
import pandas
import pyarrow

from adapter_arena.data import rows, sources, splits
from adapter_arena.data.labels import LABEL_COLUMNS, TEXT_COLUMNS, label_name, usual_columns
from adapter_arena.data.rows import Rows
from adapter_arena.data.sources import Source
from adapter_arena.errors import DataError, shortened_list, unknown
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
    frames = splits.clean(frames, facts)
    frames, labels = splits.number_labels(frames, recipe, source)
    complete = splits.carve_missing(frames, labels, recipe.data_seed, facts.id)
    limits = {"train": recipe.n_train, "validation": recipe.n_validation, "test": recipe.n_test}
    chosen = {}
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
    return Splits(chosen["train"], chosen["validation"].frame(), chosen["test"].frame(), labels, facts)


def _without_texts(table: pyarrow.Table) -> pandas.DataFrame:
    """Return the columns of a table of rows that decide which of them are used."""
    frame = table.select(["label", "key"]).to_pandas()
    has_text = table["text"].is_valid().to_numpy()
    return frame.assign(row=numpy.arange(len(frame)), is_complete=has_text & (frame["label"] != ""))


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
            labels = frame[label].map(label_name).fillna("")
            yield pandas.DataFrame({"text": texts, "label": labels})
            counts.update(labels)
            if self._is_enough(counts):
                return

    def _is_enough(self, counts: collections.Counter) -> bool:
        """Return whether a stream can end: with classes in proportion, or with four times the rows if one is rare.

        Rows may be sorted by class, so that shortened_list classes come late.
        """
        all_classes = len(counts) >= self._recipe.num_labels
        is_even = all_classes and min(counts.values()) >= self._wanted / len(counts)
        return counts.total() >= (self._wanted if is_even else 4 * self._wanted)

    @functools.cached_property
    def _columns(self) -> tuple[str, str]:
        """The names of the columns with the text and the label."""
        first = next(self._source.splits["train"]())
        columns = [str(column) for column in first.columns]
        text = self._recipe.text_column or self._source.text_column
        return (
            _choose_column("text", columns, text, TEXT_COLUMNS),
            _choose_column("label", columns, self._recipe.label_column, LABEL_COLUMNS),
        )


def _choose_column(what: str, columns: list[str], wanted: str | None, usual: tuple[str, ...]) -> str:
    """Return the wanted column, or else the first with a usual name. Raises DataError."""
    found = [wanted] if wanted in columns else usual_columns(columns, usual)
    problem = None
    if wanted is not None and wanted not in columns:
        problem = unknown("column", wanted, columns)
    elif not found:
        problem = f"No {what} column among {shortened_list(columns)}: name it with --{what}-column."
    if problem:
        raise DataError(problem)
    return found[0]


def _wanted_rows(recipe: Recipe) -> int:
    """Return how many rows of a stream are enough for every split, even if all are carved from it. Raises DataError."""
    sizes = {"--n-train": recipe.n_train, "--n-test": recipe.n_test, "--n-validation": recipe.n_validation}
    missing = [flag for flag, size in sizes.items() if size is None]
    if missing:
        raise DataError(f"--streaming reads only as many rows as are needed: give {', '.join(missing)}.")
    # Test takes 0.2 of the rows, validation 0.1 of the other 0.8, and train has what is left.
    return math.ceil(max(recipe.n_test / 0.2, recipe.n_validation / 0.08, recipe.n_train / 0.72))
