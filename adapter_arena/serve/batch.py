"""Score every row of a file with one adapter: run in chunks, sum up, save.

Nothing here knows an engine: `predict` is given, and between two chunks other visitors have their turn.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import pandas
from sklearn.metrics import confusion_matrix

from adapter_arena.data.labels import label_name, match_labels, plain_labels
from adapter_arena.errors import ArenaError, BusyError, DataError, some, unknown
from adapter_arena.serve.served import Prediction
from adapter_arena.stats import wilson

CHUNK = 64
"""Rows asked for at once."""
WINDOW = 16 * CHUNK
"""Rows that are sorted by length together: wide enough for little padding, and results come in nearly in order."""
BINS = 20
WORST = 20
# For the time left: a text costs what its length says, down to its special tokens, up to a full window.
_LEAST_CHARACTERS, _MOST_CHARACTERS = 40, 2000
# OWASP, "CSV Injection": a spreadsheet runs a cell that begins with one of these, full width ones included.
_RUN = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

Predict = Callable[[list[str]], list[Prediction | ArenaError]]


@dataclass(frozen=True)
class Progress:
    """Rows done and in all, seconds since the start, seconds left (None before the first chunk)."""

    done: int
    total: int
    seconds: float
    seconds_left: float | None


@dataclass(frozen=True)
class Marks:
    """How the answers compare with a file's own labels; `n` rows have both."""

    n: int
    right: int
    accuracy: float | None
    accuracy_ci95: tuple[float, float]
    confusion_matrix: list[list[int]]
    """Rows are true classes, columns predicted ones, in the order of the adapter's labels."""
    mistakes: pandas.DataFrame
    """The most confident wrong rows of the result frame, the worst first, at most WORST."""
    unmarked: int
    """Answered rows whose own label is missing or none of the adapter's."""


@dataclass(frozen=True)
class Outcome:
    """What is done so far, in the file's order.

    `frame` has columns row (1 is the first below the header), text, label, confidence, `p_<label>`
    for each label, tokens, truncated, error, and truth and right when the file has labels. A row
    has either a label or an error. `histogram[i]` counts confidences from `edges[i]` to `edges[i + 1]`.
    """

    frame: pandas.DataFrame
    total: int
    labels: list[str]
    counts: dict[str, int]
    errors: int
    edges: list[float]
    histogram: list[int]
    marks: Marks | None


# ---------------------------------------------------------------- scoring


class Scoring:
    """The rows of one file and the answers there are so far; run it, stop it, run it on, sum it up at any time."""

    def __init__(
        self,
        frame: pandas.DataFrame,
        text_column: str,
        labels: list[str],
        label_column: str | None = None,
        chunk: int = CHUNK,
    ):
        """`labels` are the adapter's, in its order; `chunk` is how many rows are asked for at once.

        Raises DataError for a column that is not there or not understood.
        """
        for column in (text_column, label_column):
            if column is not None and column not in frame.columns:
                raise DataError(unknown("column", str(column)[:100], frame.columns))
        self.labels, self._chunk = list(labels), chunk
        self._texts = frame[text_column].reset_index(drop=True)
        self._truth = None if label_column is None else self._match(frame[label_column])
        total = len(frame)
        self._lengths = numpy.zeros(total, dtype=numpy.int32)
        self._done = numpy.zeros(total, dtype=bool)
        self._errors: dict[int, str] = {}
        for row, cell in enumerate(self._texts):
            if isinstance(cell, str) and cell.strip():
                self._lengths[row] = len(cell)
            else:
                self._fail(row, _refusal(cell))
        # Columns and not Predictions, each of which would hold a dict of its own.
        self._answers = numpy.full(total, -1, dtype=numpy.int32)
        self._probabilities = numpy.full((total, len(labels)), numpy.nan, dtype=numpy.float32)
        self._tokens = numpy.zeros(total, dtype=numpy.int32)
        self._truncated = numpy.zeros(total, dtype=bool)

    def run(self, predict: Predict, stop: threading.Event) -> Iterator[Progress]:
        """Answer what is not answered yet, chunk by chunk, with the progress before the first and after each.

        Ends after the chunk in which `stop` is set. What is done stays, also when `predict` raises
        an ArenaError (the adapter is gone), which is passed on.
        """
        start, total = time.perf_counter(), len(self._texts)
        cost = numpy.clip(self._lengths, _LEAST_CHARACTERS, _MOST_CHARACTERS)
        left = float(cost[~self._done].sum())
        yield Progress(int(self._done.sum()), total, 0.0, None)
        spent = 0.0
        for rows in self._chunks():
            answers = None
            while answers is None:
                if stop.is_set():
                    return
                try:
                    answers = predict(self._texts.take(rows).tolist())
                except BusyError:  # a file can wait until the callers of single texts are answered
                    stop.wait(1)
            for row, answer in zip(rows, answers, strict=True):
                self._keep(row, answer)
            spent += float(cost[rows].sum())
            seconds = time.perf_counter() - start
            yield Progress(int(self._done.sum()), total, seconds, max(0.0, seconds * (left - spent) / spent))

    def outcome(self) -> Outcome:
        """Everything that is done so far."""
        frame = self._frame()
        confidence = frame["confidence"].dropna().clip(upper=1)  # float32 can round to just above
        histogram, edges = numpy.histogram(confidence, bins=BINS, range=(0, 1))
        counts = frame["label"].value_counts()
        return Outcome(
            frame=frame,
            total=len(self._texts),
            labels=self.labels,
            counts={label: int(counts.get(label, 0)) for label in self.labels},
            errors=int(frame["error"].notna().sum()),
            edges=edges.tolist(),
            histogram=histogram.tolist(),
            marks=None if self._truth is None else _mark(frame, self.labels),
        )

    def _match(self, cells: pandas.Series) -> pandas.Series:
        """For each row the label that its cell stands for, None where it stands for none. Raises DataError."""
        plain = plain_labels(cells)
        values = set(plain) - {""}
        matched = match_labels(values, self.labels)
        if not any(matched.values()):
            raise DataError(
                f"Column {str(cells.name)[:100]!r} holds {some(sorted(values)) or 'nothing'}, none of which is clearly one of the labels "
                f"{some(self.labels)}: choose another, or none."
            )
        return _strings(matched.get(value) for value in plain)

    def _chunks(self) -> Iterator[list[int]]:
        window = max(WINDOW, self._chunk)
        for first in range(0, len(self._texts), window):
            rows = [first + i for i in numpy.flatnonzero(~self._done[first : first + window]).tolist()]
            rows.sort(key=lambda row: -self._lengths[row])
            yield from (rows[i : i + self._chunk] for i in range(0, len(rows), self._chunk))

    def _keep(self, row: int, answer: Prediction | ArenaError) -> None:
        if isinstance(answer, ArenaError):
            self._fail(row, str(answer))
        elif answer.scores.keys() != set(self.labels):
            self._fail(row, "The adapter was exchanged for one with other labels: score the file again.")
        else:
            self._answers[row] = self.labels.index(answer.label)
            self._probabilities[row] = [answer.scores[label] for label in self.labels]
            self._tokens[row], self._truncated[row], self._done[row] = answer.tokens, answer.truncated, True

    def _fail(self, row: int, reason: str) -> None:
        self._errors[row], self._done[row] = reason, True

    def _frame(self) -> pandas.DataFrame:
        rows = numpy.flatnonzero(self._done)
        answers, probabilities = self._answers[rows], self._probabilities[rows]
        failed = answers < 0
        names = numpy.array([*self.labels, None], dtype=object)  # -1 is the last
        label = _strings(names[answers])
        frame = pandas.DataFrame(
            {
                "row": rows + 1,
                "text": _strings(self._texts.take(rows).map(_shown)),
                "label": label,
                "confidence": probabilities[numpy.arange(len(rows)), answers],
            }
        )
        scores = pandas.DataFrame(probabilities, columns=[f"p_{name}" for name in self.labels])
        rest = pandas.DataFrame(
            {
                "tokens": pandas.arrays.IntegerArray(self._tokens[rows], failed),
                "truncated": pandas.arrays.BooleanArray(self._truncated[rows], failed),
                "error": _strings([self._errors.get(row) for row in rows.tolist()]),
            }
        )
        if self._truth is not None:
            truth = _strings(self._truth.take(rows))
            rest["truth"] = truth
            unknown_right = failed | truth.isna().to_numpy()
            rest["right"] = pandas.arrays.BooleanArray((truth == label).to_numpy(bool), unknown_right)
        return pandas.concat([frame, scores, rest], axis=1)


def _refusal(cell: object) -> str:
    """Why this cell, which holds no words, is not scored."""
    if isinstance(cell, str) or label_name(cell) in ("", "<NA>", "NaT"):
        return "The text is empty."
    return f"The cell is no text ({type(cell).__name__})."


def _shown(cell: object) -> str:
    """A cell as a string that can be written; half of a surrogate pair becomes '?'."""
    text = cell if isinstance(cell, str) else label_name(cell)
    return text.encode("utf-8", "replace").decode()


def _strings(values: Iterable[str | None]) -> pandas.Series:
    return pandas.Series(list(values), dtype="str")


def _mark(frame: pandas.DataFrame, labels: list[str]) -> Marks:
    marked = frame[frame["right"].notna()]
    n, right = len(marked), int(marked["right"].sum())
    wrong = marked[~marked["right"].astype(bool)]
    matrix = confusion_matrix(marked["truth"], marked["label"], labels=labels) if n else numpy.zeros((len(labels),) * 2)
    return Marks(
        n=n,
        right=right,
        accuracy=right / n if n else None,
        accuracy_ci95=wilson(right, n),
        confusion_matrix=matrix.astype(int).tolist(),
        mistakes=wrong.sort_values("confidence", ascending=False, kind="stable").head(WORST),
        unmarked=int(frame["label"].notna().sum()) - n,
    )


# ---------------------------------------------------------------- saving


def save(outcome: Outcome, path: Path) -> None:
    """Write the result frame as .csv or .parquet. Raises DataError.

    In .csv a cell or header that a spreadsheet would run as a formula begins with ' instead; numbers
    stay numbers. The file begins with a byte-order mark, without which Excel reads no UTF-8.
    """
    try:
        if path.suffix.lower() == ".parquet":
            outcome.frame.to_parquet(path, index=False)
        elif path.suffix.lower() == ".csv":
            # With lines that end in \r\n Python's writer also quotes a cell that holds a lone \r.
            _harmless(outcome.frame).to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n")
        else:
            raise DataError(f"{path.name} is no .csv or .parquet file: name it so.")
    except OSError as error:
        raise DataError(
            f"{path.name} cannot be written ({error.strerror or error}): free space and save again."
        ) from error


def _harmless(frame: pandas.DataFrame) -> pandas.DataFrame:
    cells = {
        column: frame[column].map(_disarm, na_action="ignore") if frame[column].dtype == "str" else frame[column]
        for column in frame.columns
    }
    return pandas.DataFrame({_disarm(column): column_cells for column, column_cells in cells.items()})


def _disarm(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_RUN) else cell
