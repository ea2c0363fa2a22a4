"""Load a recipe's dataset: read it, clean it, divide it into splits and draw the rows to use."""

import collections
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy
import pandas
import pyarrow

from adapter_arena import tasks
from adapter_arena.data import columns, lengths, pairs, rows, sources, splits, targets
from adapter_arena.data.classes import Note
from adapter_arena.data.labels import label_key
from adapter_arena.data.rows import Rows
from adapter_arena.data.sources import Source
from adapter_arena.errors import DataError, shortened_list
from adapter_arena.recipe import Recipe
from adapter_arena.results import DatasetFacts, Scale


@dataclass(frozen=True)
class Splits:
    """The rows to train on, and the others as frames with columns `text` and `label`.

    The text of a pair is a tuple of two. A label is an index into `labels`, a tuple of such indices (multi-label) or a
    number (regression).
    """

    train: Rows
    validation: pandas.DataFrame
    test: pandas.DataFrame
    labels: list[str]
    facts: DatasetFacts
    notes: list[str] = field(default_factory=list)
    """What is not used of the dataset, and what had to be guessed to read it, one line each."""
    files: dict[str, list[str]] = field(default_factory=dict)
    """Names of the files, or of the Hub's split, that each split was read from."""
    decisions: list[Note] = field(default_factory=list)
    """The columns, and what was decided about labels and about rows that are not used."""
    task: str = tasks.SINGLE_LABEL
    label_columns: list[str] = field(default_factory=list)

    @property
    def scale(self) -> Scale | None:
        """Mean and standard deviation of the numbers of a regression's training rows; None for other tasks."""
        if self.task != tasks.REGRESSION:
            return None
        return Scale(float(self.train.labels.mean()), float(self.train.labels.std()))

    def targets(self, labels: numpy.ndarray) -> numpy.ndarray:
        """Return labels as the model learns them: classes (n,), 0 and 1 (n, labels), or standardised numbers (n, 1)."""
        if self.task == tasks.SINGLE_LABEL:
            return labels
        if self.task == tasks.REGRESSION:
            return ((labels - self.scale.mean) / self.scale.std).astype(numpy.float32)[:, None]
        matrix = numpy.zeros((len(labels), len(self.labels)), dtype=numpy.float32)
        for row, indices in enumerate(labels):
            matrix[row, list(indices)] = 1
        return matrix


def load_splits(recipe: Recipe) -> Splits:
    """Return the recipe's dataset, cleaned, split and sub-sampled in the same way every time. Raises DataError."""
    source = sources.find(recipe)
    reader = _Reader(source, recipe)
    facts = source.facts
    tables = {}
    frames = {}
    notes = list(source.notes)
    for split in source.splits:
        read = functools.partial(reader.frames, split, notes)
        tables[split] = rows.load_table(reader.key(split), read, notes)
        frames[split] = _without_texts(tables[split], reader.has_pairs)
    facts.text_columns = reader.text_columns
    target = targets.read(frames, recipe, source.class_names, reader.label_columns)
    frames, cleaning = splits.clean(target.frames, facts)
    frames, labels = target.number(frames)
    decisions = [reader.columns_note(), *target.notes, *cleaning, *_carving_notes(frames, tables)]
    if reader.has_pairs:
        decisions += pairs.half_empty_notes(tables)
    decisions += lengths.notes(tables, reader.has_pairs)
    limits = {"train": recipe.n_train, "validation": recipe.n_validation, "test": recipe.n_test}
    complete = splits.carve_missing(frames, labels, recipe.data_seed, facts.id, target.task)
    chosen = {}
    for split, limit in limits.items():
        origin = split if split in frames else "train"
        frame = splits.draw(complete[split], limit, recipe.data_seed, target.task)
        chosen[split] = Rows(
            texts=tables[origin]["text"],
            index=frame["row"].to_numpy(),
            labels=frame["label"].to_numpy(),
            source=reader.key(origin),
            pairs=tables[origin]["pair"] if reader.has_pairs else None,
        )
        facts.splits[split] = len(frame)
    decisions += _drawing_notes(complete, limits)
    decisions += targets.check_training_labels(target.task, chosen["train"].labels, labels)
    files = {split: [part.name for part in parts] for split, parts in source.splits.items()}
    return Splits(
        train=chosen["train"],
        validation=chosen["validation"].frame(),
        test=chosen["test"].frame(),
        labels=labels,
        facts=facts,
        notes=notes,
        files=files,
        decisions=decisions,
        task=target.task,
        label_columns=reader.label_columns,
    )


def _carving_notes(frames: splits.Frames, tables: dict[str, pyarrow.Table]) -> list[Note]:
    """Return which splits are made of training rows: those that are not in `frames`, and why not if there are such rows."""
    carved = []
    for split in ("validation", "test"):
        if split not in frames:
            carved.append(f"{split} (its own rows have no labels)" if split in tables else split)
    return [Note("carved", f"{', '.join(carved)} from the training rows")] if carved else []


def _drawing_notes(complete: splits.Frames, limits: dict[str, int | None]) -> list[Note]:
    """Return how many rows of each split are not used because of the recipe's limit."""
    not_drawn = []
    for split, limit in limits.items():
        rest = len(complete[split]) - (limit or len(complete[split]))
        if rest > 0:
            not_drawn.append(f"{rest:,} of {split} (--n-{split} {limit:,})")
    return [Note("not drawn", ", ".join(not_drawn))] if not_drawn else []


def _without_texts(table: pyarrow.Table, has_pairs: bool) -> pandas.DataFrame:
    """Return the columns of a table of rows that decide which of them are used."""
    frame = table.select(["label", "key"]).to_pandas()
    has_text = table["text"].is_valid().to_numpy()
    if has_pairs:
        has_text &= table["pair"].is_valid().to_numpy()
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
        key = [facts.id, facts.revision, split, recipe.text_column, recipe.label_column, recipe.dataset_config]
        key.append(recipe.text_pair_column)
        key += [part.name for part in self._source.splits[split]]
        key += [part.name for part in self._source.splits["train"]]  # they decide the columns
        if recipe.streaming:
            key += [recipe.data_seed, self._wanted]
        return repr(key)

    def frames(self, split: str, notes: list[str]) -> Iterator[pandas.DataFrame]:
        """Yield the rows as strings in columns `text`, `label` and, for pairs, `pair`; of a stream as many as are needed."""
        counts = collections.Counter()
        for part in self._source.splits[split]:
            for number, frame in enumerate(part.read(notes)):
                part_notes = notes if number == 0 else []
                selected = self._select(frame, split, part.name, part_notes)
                yield selected
                if self._recipe.streaming:
                    counts.update(label_key(value) for value in selected["label"])
                    if self._is_enough(counts):
                        return

    def _select(self, frame: pandas.DataFrame, split: str, name: str, notes: list[str]) -> pandas.DataFrame:
        """Return the text, or both texts of a pair, and the label of each row. Raises DataError.

        A file for validation or test may have no labels: then its rows are without, and a note says so.
        """
        text_column, label_columns, pair_column = self._columns
        label_column = ", ".join(label_columns)
        texts = columns.cells_of(frame, text_column)
        labels = columns.labels_of(frame, label_columns)
        if labels is None and texts is not None and split != "train":
            notes.append(f"{name} has no column {label_column}: its {split} rows have no labels.")
            labels = pandas.Series([None] * len(frame), dtype=object)
        missing = {text_column: texts, label_column: labels}
        if pair_column:
            missing[pair_column] = columns.cells_of(frame, pair_column)
        missing = [column for column, cells in missing.items() if cells is None]
        if missing:
            raise DataError(
                f"Split {split} has no column {', '.join(missing)} ({name} has {shortened_list(list(frame.columns))}): "
                "every split needs the same columns."
            )
        columns.check_cells(texts, text_column, "text")
        columns.check_cells(labels, label_column, "label")
        labels = labels.astype(object).map(columns.label_cell)
        selected = pandas.DataFrame({"text": _as_strings(texts), "label": labels})
        if pair_column:
            seconds = columns.cells_of(frame, pair_column)
            columns.check_cells(seconds, pair_column, "text-pair")
            selected["pair"] = _as_strings(seconds)
        return selected

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
    def _columns(self) -> tuple[str, list[str], str | None]:
        """The name of the column with the text, those of the columns with labels and, for pairs, the second text's."""
        first, notes = self._first_rows
        text_column = self._recipe.text_column or self._source.text_column
        names = [str(column) for column in first.columns]
        if self._recipe.text_pair_column:
            names += columns.fields_of(first)
        try:
            text_column, pair_column = pairs.choose(names, text_column, self._recipe.text_pair_column)
            text_column, label_columns = columns.choose(first, text_column, self._recipe.label_column)
            pairs.check_different(text_column, label_columns, pair_column)
        except DataError as error:
            raise DataError(" ".join([*notes, str(error)])) from error
        return text_column, label_columns, pair_column

    @property
    def has_pairs(self) -> bool:
        """Whether each row is a pair of texts."""
        return self._columns[2] is not None

    @property
    def text_columns(self) -> list[str]:
        """The columns with the text, or with both texts of a pair."""
        text_column, _, pair_column = self._columns
        return [text_column, pair_column] if pair_column else [text_column]

    @functools.cached_property
    def _first_rows(self) -> tuple[pandas.DataFrame, list[str]]:
        """The first rows of train, and what had to be guessed to read them."""
        notes: list[str] = []
        return next(self._source.splits["train"][0].read(notes)), notes

    @property
    def label_columns(self) -> list[str]:
        """The name of the label column; several, if each is of 0 and 1 for one label."""
        return self._columns[1]

    def columns_note(self) -> Note:
        """Return the columns that are used and those that are not."""
        text_column, label_columns, pair_column = self._columns
        first, _ = self._first_rows
        names = (text_column, *label_columns, pair_column)
        ignored = [str(column) for column in first.columns if column not in names]
        texts = f"pair {text_column!r} and {pair_column!r}" if pair_column else f"text {text_column!r}"
        line = f"{texts}, label {shortened_list([repr(name) for name in label_columns])}"
        if ignored:
            line += f"; not used: {shortened_list(ignored)}"
        return Note("columns", line)


def _as_strings(texts: pandas.Series) -> pandas.Series:
    return texts.where(texts.notna(), "").astype(str)


def _wanted_rows(recipe: Recipe) -> int:
    """Return how many rows of a stream are enough for every split, even if all are carved from it. Raises DataError."""
    sizes = {"--n-train": recipe.n_train, "--n-test": recipe.n_test, "--n-validation": recipe.n_validation}
    missing = [flag for flag, size in sizes.items() if size is None]
    if missing:
        raise DataError(f"--streaming reads only as many rows as are needed: give {', '.join(missing)}.")
    # Test takes 0.2 of the rows, validation 0.1 of the other 0.8, and train has what is left.
    return math.ceil(max(recipe.n_test / 0.2, recipe.n_validation / 0.08, recipe.n_train / 0.72))
