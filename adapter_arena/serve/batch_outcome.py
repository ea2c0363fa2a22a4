"""The answers for the rows of a file: stored by column, summed up, compared with the file's labels, saved."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy
import pandas
from sklearn.metrics import confusion_matrix

from adapter_arena.data.formulas import escape_formula
from adapter_arena.data.labels import label_text
from adapter_arena.errors import ArenaError, DataError
from adapter_arena.serve.served import Prediction
from adapter_arena.stats import wilson

BINS = 20
MAX_MISTAKES = 20


@dataclass(frozen=True)
class LabelComparison:
    """How the answers compare with the file's own labels, on the `n` rows that have both."""

    n: int
    right: int
    accuracy: float | None
    accuracy_ci95: tuple[float, float]
    confusion_matrix: list[list[int]]
    """Rows are true classes, columns predicted ones, in the order of the adapter's labels."""
    mistakes: pandas.DataFrame
    """The most confident wrong rows of the result frame, the most confident first, at most MAX_MISTAKES."""
    unlabelled: int
    """Answered rows whose own label is missing or not one of the adapter's."""


@dataclass(frozen=True)
class Outcome:
    """The results so far, in the file's order.

    `frame` has columns row (1 is the first below the header), text, text_pair if the rows are pairs, label, confidence, `p_<label>` for each label,
    tokens, truncated, error, and truth and right if the file has labels. A row has either a label or an error.
    With a least confidence there is also a column abstained; `right` is missing for answers below it, and `counts` are
    those of the other answers. `histogram[i]` counts confidences from `edges[i]` to `edges[i + 1]`.
    """

    frame: pandas.DataFrame
    total: int
    labels: list[str]
    counts: dict[str, int]
    errors: int
    abstained: int
    edges: list[float]
    histogram: list[int]
    comparison: LabelComparison | None


class Answers:
    """The answers so far, in columns: a Prediction per row, each with its own dict, would need far more memory."""

    def __init__(self, rows: int, labels: list[str]):
        self.labels = labels
        self.done = numpy.zeros(rows, dtype=bool)
        self.errors: dict[int, str] = {}
        """Why a row has no answer."""
        self.label_index = numpy.full(rows, -1, dtype=numpy.int32)
        self.probabilities = numpy.full((rows, len(labels)), numpy.nan, dtype=numpy.float32)
        self.tokens = numpy.zeros(rows, dtype=numpy.int32)
        self.truncated = numpy.zeros(rows, dtype=bool)

    def add(self, row: int, answer: Prediction | ArenaError) -> None:
        """Store the answer for a row."""
        if isinstance(answer, ArenaError):
            self.fail(row, str(answer))
        elif answer.scores.keys() != set(self.labels):
            self.fail(row, "The adapter was replaced by one with other labels: score the file again.")
        else:
            self.label_index[row] = self.labels.index(answer.label)
            self.probabilities[row] = [answer.scores[label] for label in self.labels]
            self.tokens[row] = answer.tokens
            self.truncated[row] = answer.truncated
            self.done[row] = True

    def fail(self, row: int, reason: str) -> None:
        """Store why a row has no answer."""
        self.errors[row] = reason
        self.done[row] = True


# ---------------------------------------------------------------- summing up


def summarise(
    texts: pandas.Series,
    answers: Answers,
    true_labels: pandas.Series | None,
    seconds: pandas.Series | None = None,
    min_confidence: float = 0.0,
) -> Outcome:
    """Return the summary of the rows that are done; answers below `min_confidence` are abstained, not wrong.

    `seconds` are the second texts of pairs.
    """
    frame = _result_frame(texts, answers, true_labels)
    if seconds is not None:
        second_texts = strings(seconds.take(frame["row"] - 1).map(_writable))
        frame.insert(frame.columns.get_loc("text") + 1, "text_pair", second_texts)
    is_abstained = frame["confidence"] < numpy.float32(min_confidence)  # False for rows without an answer
    if min_confidence > 0:
        frame = _with_abstained(frame, is_abstained)
    confidence = frame["confidence"].dropna().clip(upper=1)  # float32 can round to just above 1
    histogram, edges = numpy.histogram(confidence, bins=BINS, range=(0, 1))
    counts = frame["label"][~is_abstained].value_counts()
    return Outcome(
        frame=frame,
        total=len(texts),
        labels=answers.labels,
        counts={label: int(counts.get(label, 0)) for label in answers.labels},
        errors=int(frame["error"].notna().sum()),
        abstained=int(is_abstained.sum()),
        edges=edges.tolist(),
        histogram=histogram.tolist(),
        comparison=None if true_labels is None else _compare(frame, answers.labels),
    )


def _result_frame(texts: pandas.Series, answers: Answers, true_labels: pandas.Series | None) -> pandas.DataFrame:
    rows = numpy.flatnonzero(answers.done)
    label_index = answers.label_index[rows]
    probabilities = answers.probabilities[rows]
    failed = label_index < 0
    names = numpy.array([*answers.labels, None], dtype=object)  # index -1 is the None
    label = strings(names[label_index])
    first = pandas.DataFrame(
        {
            "row": rows + 1,
            "text": strings(texts.take(rows).map(_writable)),
            "label": label,
            "confidence": probabilities[numpy.arange(len(rows)), label_index],
        }
    )
    scores = pandas.DataFrame(probabilities, columns=[f"p_{name}" for name in answers.labels])
    last = pandas.DataFrame(
        {
            "tokens": pandas.arrays.IntegerArray(answers.tokens[rows], failed),
            "truncated": pandas.arrays.BooleanArray(answers.truncated[rows], failed),
            "error": strings(answers.errors.get(row) for row in rows.tolist()),
        }
    )
    if true_labels is not None:
        truth = strings(true_labels.take(rows))
        not_comparable = failed | truth.isna().to_numpy()
        last["truth"] = truth
        last["right"] = pandas.arrays.BooleanArray((truth == label).to_numpy(bool), not_comparable)
    return pandas.concat([first, scores, last], axis=1)


def _with_abstained(frame: pandas.DataFrame, is_abstained: pandas.Series) -> pandas.DataFrame:
    """Return the result frame with a column `abstained`, missing for errors; abstained answers are not right or wrong."""
    abstained = is_abstained.astype("boolean").mask(frame["label"].isna())
    changed = {"abstained": abstained}
    if "right" in frame:
        changed["right"] = frame["right"].mask(is_abstained)
    return frame.assign(**changed)


def _compare(frame: pandas.DataFrame, labels: list[str]) -> LabelComparison:
    comparable = frame[frame["right"].notna()]
    n = len(comparable)
    right = int(comparable["right"].sum())
    wrong = comparable[~comparable["right"].astype(bool)]
    matrix = numpy.zeros((len(labels), len(labels)), dtype=int)
    if n:
        matrix = confusion_matrix(comparable["truth"], comparable["label"], labels=labels)
    return LabelComparison(
        n=n,
        right=right,
        accuracy=right / n if n else None,
        accuracy_ci95=wilson(right, n),
        confusion_matrix=matrix.tolist(),
        mistakes=wrong.sort_values("confidence", ascending=False, kind="stable").head(MAX_MISTAKES),
        unlabelled=int((frame["label"].notna() & frame["truth"].isna()).sum()),
    )


def strings(values: Iterable[str | None]) -> pandas.Series:
    """Return a series of strings; None is a missing one."""
    return pandas.Series(list(values), dtype="str")


def _writable(cell: object) -> str:
    """Return a cell as a string that can be encoded; half of a surrogate pair becomes '?'."""
    text = label_text(cell)
    return text.encode("utf-8", "replace").decode()


# ---------------------------------------------------------------- saving


def save(outcome: Outcome, path: Path) -> None:
    """Write the result frame as .csv or .parquet. Raises DataError.

    In .csv, texts and headers that a spreadsheet would evaluate are escaped; numbers stay numbers. The file begins
    with a byte-order mark, without which Excel does not read UTF-8.
    """
    try:
        if path.suffix.lower() == ".parquet":
            outcome.frame.to_parquet(path, index=False)
        else:
            # Python's writer only quotes a cell with a lone \r if lines end in \r\n.
            _escape_formulas(outcome.frame).to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n")
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path.name} cannot be written ({reason}): free space and save again.") from error


def _escape_formulas(frame: pandas.DataFrame) -> pandas.DataFrame:
    escaped = {}
    for column, cells in frame.items():
        if cells.dtype == "str":
            cells = cells.map(escape_formula, na_action="ignore")
        escaped[escape_formula(column)] = cells
    return pandas.DataFrame(escaped)
