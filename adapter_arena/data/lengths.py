"""Compare the lengths of texts between splits: a test file that was cut or read wrongly measures nothing."""

import statistics

import numpy
import pyarrow

from adapter_arena.data.classes import Note

_FACTOR = 2
"""From here on, two medians are of different kinds of text."""
_MOST_ROWS = 2000
_FEWEST_ROWS = 50
_NAMES = {"text": "texts", "pair": "second texts"}


def notes(tables: dict[str, pyarrow.Table], has_pairs: bool) -> list[Note]:
    """Return a note for each split whose texts are at the median at least twice, or half, as long as those of train."""
    found = []
    for column in ("text", "pair") if has_pairs else ("text",):
        expected = _median(tables["train"][column])
        for split in ("validation", "test"):
            length = _median(tables[split][column]) if split in tables else None
            if expected and length and max(length, expected) >= _FACTOR * min(length, expected):
                text = f"{_NAMES[column]} of {split}: {length:,.0f} characters at the median, {expected:,.0f} in train"
                found.append(Note("lengths", f"{text}: check that they are the same kind of text"))
    return found


def _median(texts: pyarrow.ChunkedArray) -> float | None:
    """Return the median number of characters of a sample; None if there are few texts."""
    if len(texts) < _FEWEST_ROWS:
        return None
    lengths = []
    for row in numpy.linspace(0, len(texts) - 1, min(len(texts), _MOST_ROWS)).astype(int).tolist():
        text = texts[row].as_py()  # row by row: ChunkedArray.take copies all chunks of the memory-mapped file
        if text is not None:
            lengths.append(len(text))
    return statistics.median(lengths) if lengths else None
