"""What is in a file, as a training will read it."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy
import pandas

from adapter_arena import tasks
from adapter_arena.data import labels, load, pairs, summary, tables
from adapter_arena.errors import DataError
from adapter_arena.jobs import command
from adapter_arena.recipe import Recipe

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_MEASURED_TEXTS = 1000


@dataclass(frozen=True)
class Contents:
    """The rows and columns of a file and, if `problem` is empty, what of it is trained on."""

    rows: int
    columns: list[str]
    problem: str = ""
    """Why it cannot be trained on as it is, for example because it is unclear which column has the label."""
    task: str = tasks.SINGLE_LABEL
    text_columns: list[str] = field(default_factory=list)
    label_columns: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    """Training rows of each label; none for a regression."""
    splits: dict[str, int] = field(default_factory=dict)
    """Rows to train on, validate and test."""
    removed: str = ""
    """Rows that are not used, by reason."""
    notes: list[str] = field(default_factory=list)
    """What had to be guessed or decided, one line each."""
    characters: float = 0.0
    """Mean length of a text, or of both of a pair."""


def read(
    path: Path,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    rows: int | None = None,
) -> Contents:
    """Read a file; columns that are not given are detected. Raises DataError if it is not a table."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path.name} is not a {', '.join(SUFFIXES)} file: convert it to one of these.")
    table = tables.read(path, tables.Limits())
    columns = [str(column) for column in table.frame.columns]
    number = len(table.frame)
    if text_column is None and pair_column is None:
        text_column = _text_column(table.frame)
    recipe = Recipe(
        name="unnamed",
        dataset=str(path),
        text_column=text_column,
        text_pair_column=pair_column,
        label_column=label_column,
        n_train=rows,
        n_test=command.TEST_ROWS,
    )
    try:
        splits = load.load_splits(recipe)
    except DataError as error:
        return Contents(number, columns, problem=str(error), notes=table.notes)
    return Contents(
        rows=number,
        columns=columns,
        task=splits.task,
        text_columns=splits.facts.text_columns,
        label_columns=splits.label_columns,
        labels=splits.labels,
        counts=_counts(splits),
        splits=dict(splits.facts.splits),
        removed=summary.removed(splits),
        notes=[*(note.text for note in splits.decisions if note.heading != "columns"), *splits.notes],
        characters=_mean_length(splits),
    )


def _text_column(frame: pandas.DataFrame) -> str | None:
    """Return the column with the longest texts if none has a usual name; otherwise None, so that it is detected."""
    if pairs.guess(frame.columns) or labels.usual_columns(frame.columns, labels.TEXT_COLUMNS):
        return None
    return str(labels.guess_text_column(frame))


def _counts(splits: load.Splits) -> list[int]:
    if splits.task == tasks.REGRESSION:
        return []
    if splits.task == tasks.MULTI_LABEL:
        return splits.targets(splits.train.labels).sum(axis=0).astype(int).tolist()
    return numpy.bincount(splits.train.labels, minlength=len(splits.labels)).tolist()


def _mean_length(splits: load.Splits) -> float:
    texts = next(splits.train.iter_texts(), [])[:_MEASURED_TEXTS]
    lengths = [len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts]
    return sum(lengths) / max(1, len(lengths))
