"""Compare the lengths of texts between splits: a test file that was cut or read wrongly measures nothing."""

import numpy
import pyarrow
import pyarrow.compute

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
    rows = numpy.linspace(0, len(texts) - 1, min(len(texts), _MOST_ROWS)).astype(int)
    lengths = pyarrow.compute.utf8_length(texts.take(pyarrow.array(rows)))
    return float(numpy.nanmedian(lengths.to_numpy(zero_copy_only=False)))
