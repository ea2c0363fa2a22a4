"""Score every row of a file with one adapter, in chunks, so that other users' requests run in between.

Nothing here knows the engine: the caller passes a `predict` function.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy
import pandas

from adapter_arena import tasks
from adapter_arena.data.labels import label_text
from adapter_arena.errors import ArenaError, BusyError, DataError, unknown
from adapter_arena.serve import batch_outcome, batch_truth
from adapter_arena.serve.batch_outcome import Answers, Outcome
from adapter_arena.serve.served import Prediction
from adapter_arena.texts import Text

CHUNK = 64
"""Rows per request."""
WINDOW = 16 * CHUNK
"""Rows that are sorted by length together: enough for little padding, and results arrive nearly in order."""
# For the time left, the cost of a text is its length, at least its special tokens and at most a full window.
_MIN_CHARACTERS = 40
_MAX_CHARACTERS = 2000
_BUSY_SECONDS = 1

Predict = Callable[[list[Text]], list[Prediction | ArenaError]]


@dataclass(frozen=True)
class Progress:
    """Rows done and in total, seconds since the start, and seconds left (None before the first chunk)."""

    done: int
    total: int
    seconds: float
    seconds_left: float | None


class Scoring:
    """The rows of one file and the answers so far. It can be run, stopped, resumed, and summed up at any time."""

    def __init__(
        self,
        frame: pandas.DataFrame,
        text_column: str,
        labels: list[str],
        label_column: str | None = None,
        chunk: int = CHUNK,
        pair_column: str | None = None,
        task: str = tasks.SINGLE_LABEL,
    ):
        """Prepare the rows; `labels` are the adapter's in its order, and `chunk` is the number of rows per request.

        `pair_column` is that of the second texts if the adapter classifies pairs.

        Raises DataError for a column that is missing, and for a label column whose cells are no answers of the adapter.
        """
        for column in (text_column, label_column, pair_column):
            if column is not None and column not in frame.columns:
                raise DataError(unknown("column", str(column)[:100], frame.columns))
        self.labels = list(labels)
        self._chunk = chunk
        self._texts = frame[text_column].reset_index(drop=True)
        self._seconds = None if pair_column is None else frame[pair_column].reset_index(drop=True)
        self._truth = None
        if label_column is not None:
            self._truth = batch_truth.read(frame[label_column].reset_index(drop=True), self.labels, task)
        self._lengths = numpy.zeros(len(frame), dtype=numpy.int32)
        self._answers = Answers(len(frame), self.labels, task)
        for texts in (self._texts, self._seconds):
            for row, cell in enumerate(() if texts is None else texts):
                if isinstance(cell, str) and cell.strip():
                    self._lengths[row] += len(cell)
                else:
                    self._answers.fail(row, _reason_not_scored(cell))

    def run(self, predict: Predict, stop: threading.Event) -> Iterator[Progress]:
        """Answer the remaining rows chunk by chunk; yield the progress before the first chunk and after each.

        Ends after the chunk in which `stop` is set. The answers so far are kept, also if `predict` raises an
        ArenaError because the adapter was unloaded; that error is passed on.
        """
        done = self._answers.done
        total = len(self._texts)
        costs = numpy.clip(self._lengths, _MIN_CHARACTERS, _MAX_CHARACTERS)
        cost_left = float(costs[~done].sum())
        cost_done = 0.0
        start = time.perf_counter()
        yield Progress(int(done.sum()), total, seconds=0.0, seconds_left=None)
        for rows in self._chunks():
            answers = _predict_when_free(predict, self._texts_of(rows), stop)
            if answers is None:
                return
            for row, answer in zip(rows, answers, strict=True):
                self._answers.add(row, answer)
            cost_done += float(costs[rows].sum())
            seconds = time.perf_counter() - start
            seconds_left = max(0.0, seconds * (cost_left - cost_done) / cost_done)
            yield Progress(int(done.sum()), total, seconds, seconds_left)

    def outcome(self, min_confidence: float = 0.0) -> Outcome:
        """Return the summary of everything that is done so far; answers below `min_confidence` are abstained."""
        outcome = batch_outcome.summarise(self._texts, self._answers, self._truth, self._seconds)
        return batch_outcome.abstain(outcome, min_confidence)

    def _texts_of(self, rows: list[int]) -> list[Text]:
        texts = self._texts.take(rows).tolist()
        if self._seconds is None:
            return texts
        return list(zip(texts, self._seconds.take(rows).tolist()))

    def _chunks(self) -> Iterator[list[int]]:
        window = max(WINDOW, self._chunk)
        for first in range(0, len(self._texts), window):
            rows = first + numpy.flatnonzero(~self._answers.done[first : first + window])
            longest_first = numpy.argsort(-self._lengths[rows], kind="stable")
            rows = rows[longest_first].tolist()
            for start in range(0, len(rows), self._chunk):
                yield rows[start : start + self._chunk]


def _predict_when_free(predict: Predict, texts: list[Text], stop: threading.Event) -> list | None:
    """Return the answers, or None if stopped. While the engine is busy, a file waits for requests of single texts."""
    while not stop.is_set():
        try:
            return predict(texts)
        except BusyError:
            stop.wait(_BUSY_SECONDS)
    return None


def _reason_not_scored(cell: object) -> str:
    if isinstance(cell, str) or label_text(cell) == "":
        return "The text is empty."
    return f"The cell is not a text ({type(cell).__name__})."
