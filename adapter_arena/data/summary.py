"""What a run prints about its data before it trains: the classes with their rows, and what is not used and why."""

import unicodedata

import numpy

from adapter_arena import tasks
from adapter_arena.data.load import Splits

_MAX_LINES = 12
_MAX_NOTES = 6
_MAX_NAME = 40
"""Characters of a class name."""
_SPLITS = ("train", "validation", "test")
_KINDS = {
    tasks.SINGLE_LABEL: " of {n} classes",
    tasks.MULTI_LABEL: " with {n} labels",
    tasks.REGRESSION: " with a number each",
}


def lines(splits: Splits) -> list[str]:
    """Return about 12 lines: the sizes, the files, the classes, the rows removed, and what else was decided."""
    sizes = ", ".join(f"{name} {splits.facts.splits[name]:,}" for name in _SPLITS)
    kind = _KINDS[splits.task].format(n=len(splits.labels))
    head = [_line("data", f"{splits.facts.id}: {sizes} rows{kind}"), *_file_lines(splits)]
    tail = [_line("removed", removed(splits))]
    tail += [_line(note.heading, note.text) for note in splits.decisions]
    tail += [_line("note", note) for note in splits.notes[:_MAX_NOTES]]
    if len(splits.notes) > _MAX_NOTES:
        tail.append(_line("note", f"… and {len(splits.notes) - _MAX_NOTES:,} more"))
    room = max(3, _MAX_LINES - 1 - len(head) - len(tail))
    table = _number_table(splits) if splits.task == tasks.REGRESSION else _class_table(splits, room)
    return [*head, *table, *tail]


def _file_lines(splits: Splits) -> list[str]:
    """Return a line with the files of each split, if they are not just the file that was named."""
    if splits.files == {"train": [splits.facts.id]}:
        return []
    parts = [f"{split} {', '.join(names[:3])}{_more(names[3:])}" for split, names in splits.files.items()]
    return [_line("files", "; ".join(parts))] if parts else []


def _more(names: list[str]) -> str:
    return f" and {len(names):,} more" if names else ""


def _line(heading: str, text: str) -> str:
    return f"{heading:13}{text}"


def _class_table(splits: Splits, room: int) -> list[str]:
    """Return a header and a line for each class: all if there is `room` for so many lines, else the largest and rarest."""
    columns = _label_columns(splits)
    if splits.task == tasks.MULTI_LABEL:
        counts = numpy.stack([splits.targets(column).sum(axis=0).astype(int) for column in columns], axis=1)
    else:
        counts = numpy.stack([numpy.bincount(column, minlength=len(splits.labels)) for column in columns], axis=1)
    shown = list(range(len(splits.labels)))
    omitted = 0
    if len(shown) > room:
        by_size = numpy.argsort(-counts[:, 0], kind="stable").tolist()
        omitted = len(shown) - (room - 1)
        shown = [*by_size[: room - 2], by_size[-1]]
    names = [_shortened(splits.labels[index]) for index in shown]
    width = max(13, 1 + max(map(_width, names)))
    table = [f"{'class':{width}}" + "".join(f"{name:>12}" for name in _SPLITS)]
    for name, index in zip(names, shown):
        cells = "".join(f"{count:12,}" for count in counts[index])
        table.append(name + " " * (width - _width(name)) + cells)
    if omitted:
        table.insert(-1, f"… {omitted:,} more classes")
    return table


def _label_columns(splits: Splits) -> list[numpy.ndarray]:
    return [splits.train.labels, splits.validation["label"].to_numpy(), splits.test["label"].to_numpy()]


def _number_table(splits: Splits) -> list[str]:
    """Return a header and a line each for the mean, the standard deviation and the ends of the numbers."""
    columns = _label_columns(splits)
    table = [f"{_shortened(splits.labels[0]):13}" + "".join(f"{name:>12}" for name in _SPLITS)]
    for name in ("mean", "std", "min", "max"):
        cells = "".join(f"{getattr(column, name)():12.4g}" for column in columns)
        table.append(f"{name:13}{cells}")
    return table


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def removed(splits: Splits) -> str:
    """Return the numbers of rows that are not used, by reason."""
    facts = splits.facts
    counts = {
        "without a text": facts.empty_removed,
        "without a label": facts.unlabelled_removed,
        "with contradicting labels": facts.contradictions_removed,
        "duplicate": facts.duplicates_removed,
        "also in a later split": facts.leaked_removed,
    }
    parts = [f"{rows:,} {reason}" for reason, rows in counts.items() if rows]
    return ", ".join(parts) or "no rows"
