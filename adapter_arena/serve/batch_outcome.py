"""The answers for the rows of a file: stored by column, summed up, compared with the file's labels, saved."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy
import pandas
from sklearn.metrics import confusion_matrix

from adapter_arena import tasks
from adapter_arena.data.formulas import escape_formula
from adapter_arena.data.labels import label_text
from adapter_arena.errors import ArenaError, DataError
from adapter_arena.serve.served import Prediction
from adapter_arena.stats import wilson

BINS = 20
MAX_MISTAKES = 20
_OTHER_COLUMNS = ("row", "text", "text_pair", "tokens", "truncated", "error")


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

    `frame` has columns row (1 is the first below the header), text, text_pair if the rows are pairs, label, confidence,
    `p_<label>` for each label, tokens, truncated, error, and truth and right if the file has labels. A row has either a
    label or an error.
    A multi-label adapter's label is its labels joined with `|`, '' for none; a regression has a column with the name of
    its number, and no confidence and probabilities.
    With a least confidence there is also a column abstained; `right` is missing for answers below it, and `counts`,
    the rows with each label, are those of the other answers. A regression never abstains. `histogram[i]` counts
    confidences, or the numbers of a regression, from `edges[i]` to `edges[i + 1]`.
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
    task: str = tasks.SINGLE_LABEL


class Answers:
    """The answers so far, in columns: a Prediction per row, each with its own dict, would need far more memory."""

    def __init__(self, rows: int, labels: list[str], task: str = tasks.SINGLE_LABEL):
        self.labels = labels
        self.task = task
        self.names = {label: index for index, label in enumerate(labels)}
        """Every answer so far by its text; those of a multi-label adapter are added as they come."""
        self.done = numpy.zeros(rows, dtype=bool)
        self.errors: dict[int, str] = {}
        """Why a row has no answer."""
        self.label_index = numpy.full(rows, -1, dtype=numpy.int32)
        self.scores = numpy.full((rows, len(labels)), numpy.nan, dtype=numpy.float32)
        """Probability of each label, or the number of a regression."""
        self.tokens = numpy.zeros(rows, dtype=numpy.int32)
        self.truncated = numpy.zeros(rows, dtype=bool)

    def add(self, row: int, answer: Prediction | ArenaError) -> None:
        """Store the answer for a row."""
        if isinstance(answer, ArenaError):
            self.fail(row, str(answer))
        elif answer.scores.keys() != set(self.labels):
            self.fail(row, "The adapter was replaced by one with other labels: score the file again.")
        else:
            # The number of a regression is in its scores; its texts would all be different.
            text = self.labels[0] if self.task == tasks.REGRESSION else answer.label
            self.label_index[row] = self.names.setdefault(text, len(self.names))
            self.scores[row] = [answer.scores[label] for label in self.labels]
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
    is_abstained = _is_abstained(frame, min_confidence)
    if "confidence" in frame and min_confidence > 0:
        frame = _with_abstained(frame, is_abstained)
    if answers.task == tasks.REGRESSION:
        histogram, edges = numpy.histogram(frame[_score_columns(answers)[0]].dropna(), bins=BINS)
    else:
        confidence = frame["confidence"].dropna().clip(upper=1)  # float32 can round to just above 1
        histogram, edges = numpy.histogram(confidence, bins=BINS, range=(0, 1))
    return Outcome(
        frame=frame,
        total=len(texts),
        labels=answers.labels,
        counts=_counts(answers, frame["row"][~is_abstained] - 1),
        errors=int(frame["error"].notna().sum()),
        abstained=int(is_abstained.sum()),
        edges=edges.tolist(),
        histogram=histogram.tolist(),
        comparison=None if true_labels is None else _compare(frame, answers.labels),
        task=answers.task,
    )


def _is_abstained(frame: pandas.DataFrame, min_confidence: float) -> pandas.Series:
    """Return whether each answer's confidence is too low; False for errors and for a regression, which has none."""
    if "confidence" not in frame:
        return pandas.Series(False, index=frame.index)
    return frame["confidence"] < numpy.float32(min_confidence)


def _counts(answers: Answers, rows: pandas.Series) -> dict[str, int]:
    """Return the number of answers of these rows with each label; none for a regression."""
    if answers.task == tasks.REGRESSION:
        return {}
    counts = dict.fromkeys(answers.labels, 0)
    label_index = answers.label_index[rows]
    rows_of = numpy.bincount(label_index[label_index >= 0], minlength=len(answers.names))
    for text, index in answers.names.items():
        given = text.split(tasks.SEPARATOR) if answers.task == tasks.MULTI_LABEL else [text]
        for label in given:
            if label in counts:
                counts[label] += int(rows_of[index])
    return counts


def _result_frame(texts: pandas.Series, answers: Answers, true_labels: pandas.Series | None) -> pandas.DataFrame:
    rows = numpy.flatnonzero(answers.done)
    label_index = answers.label_index[rows]
    failed = label_index < 0
    names = numpy.array([*answers.names, None], dtype=object)  # index -1 is the None
    label = strings(names[label_index])
    first = pandas.DataFrame({"row": rows + 1, "text": strings(texts.take(rows).map(_writable))})
    scores = pandas.DataFrame(answers.scores[rows], columns=_score_columns(answers))
    if answers.task != tasks.REGRESSION:
        first["label"] = label
        # The probability of the answer or, of several labels, the highest one.
        first["confidence"] = answers.scores[rows].max(axis=1)
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


def _score_columns(answers: Answers) -> list[str]:
    """Return the names of the columns with scores. A number's name that another column has is made `value`."""
    if answers.task != tasks.REGRESSION:
        return [f"p_{name}" for name in answers.labels]
    return ["value" if name in _OTHER_COLUMNS else name for name in answers.labels]


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
