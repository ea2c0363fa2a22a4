"""The answers for the rows of a file: stored by column, summed up, compared with the file's labels, saved."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import pandas

from adapter_arena import tasks
from adapter_arena.data.formulas import escape_formula
from adapter_arena.data.labels import label_text
from adapter_arena.errors import ArenaError, DataError
from adapter_arena.serve import batch_comparison
from adapter_arena.serve.batch_comparison import LabelComparison
from adapter_arena.serve.batch_truth import join
from adapter_arena.serve.served import Prediction

BINS = 20
_OTHER_COLUMNS = ("row", "text", "text_pair", "tokens", "truncated", "error", "truth", "difference")


@dataclass(frozen=True)
class Outcome:
    """The results so far, in the file's order.

    `frame` has columns row (1 is the first below the header), text, text_pair if the rows are pairs, label, confidence,
    `p_<label>` for each label, tokens, truncated, error, and truth and right if the file has labels. A row has either a
    label or an error.
    A multi-label adapter's label is its labels joined with `|`, '' for none; a regression has a column with the name of
    its number, no confidence and probabilities, and instead of right the difference between its number and the truth.
    After `abstain` there is also a column abstained; `right` is missing for abstained answers, and `counts`, the rows
    with each label, are those of the other answers. `histogram[i]` counts confidences, or the numbers of a regression,
    from `edges[i]` to `edges[i + 1]`.
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

    @property
    def answered(self) -> int:
        """Number of rows with an answer, abstained ones included."""
        return len(self.frame) - self.errors

    @property
    def coverage(self) -> float | None:
        """Share of these answers that are not abstained; None if there are none."""
        return 1 - self.abstained / self.answered if self.answered else None

    @property
    def number_column(self) -> str:
        """Name of the column with a regression's numbers."""
        return _score_columns(self.labels, self.task)[0]


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
    truth: pandas.Series | None,
    seconds: pandas.Series | None = None,
) -> Outcome:
    """Return the summary of the rows that are done; `truth` is as from `batch_truth.read`, None without labels.

    `seconds` are the second texts of pairs.
    """
    frame = _result_frame(texts, answers)
    if seconds is not None:
        second_texts = strings(seconds.take(frame["row"] - 1).map(_writable))
        frame.insert(frame.columns.get_loc("text") + 1, "text_pair", second_texts)
    if truth is not None:
        _add_truth(frame, truth.take(frame["row"] - 1), answers)
    if answers.task == tasks.REGRESSION:
        histogram, edges = numpy.histogram(frame[_score_columns(answers.labels, answers.task)[0]].dropna(), bins=BINS)
    else:
        confidence = frame["confidence"].dropna().clip(upper=1)  # float32 can round to just above 1
        histogram, edges = numpy.histogram(confidence, bins=BINS, range=(0, 1))
    return Outcome(
        frame=frame,
        total=len(texts),
        labels=answers.labels,
        counts=_counts(frame, answers.labels, answers.task),
        errors=int(frame["error"].notna().sum()),
        abstained=0,
        edges=edges.tolist(),
        histogram=histogram.tolist(),
        comparison=None if truth is None else batch_comparison.compare(frame, answers.labels, answers.task),
        task=answers.task,
    )


def abstain(outcome: Outcome, min_confidence: float) -> Outcome:
    """Return an outcome of `summarise` with answers below `min_confidence` abstained, which are then not wrong.

    Nothing is scored again. A regression has no confidence and never abstains.
    """
    if min_confidence <= 0 or outcome.task == tasks.REGRESSION:
        return outcome
    frame = outcome.frame
    is_abstained = frame["confidence"] < numpy.float32(min_confidence)
    changed = {"abstained": is_abstained.astype("boolean").mask(frame["label"].isna())}
    if "right" in frame:
        changed["right"] = frame["right"].mask(is_abstained)
    frame = frame.assign(**changed)
    comparison = outcome.comparison
    if comparison is not None:
        comparison = batch_comparison.compare(frame, outcome.labels, outcome.task)
    return replace(
        outcome,
        frame=frame,
        counts=_counts(frame[~is_abstained], outcome.labels, outcome.task),
        abstained=int(is_abstained.sum()),
        comparison=comparison,
    )


def _counts(frame: pandas.DataFrame, labels: list[str], task: str) -> dict[str, int]:
    """Return the number of rows with each label; none for a regression."""
    if task == tasks.REGRESSION:
        return {}
    counts = dict.fromkeys(labels, 0)
    for text, rows in frame["label"].value_counts().items():
        given = text.split(tasks.SEPARATOR) if task == tasks.MULTI_LABEL else [text]
        for label in given:
            if label in counts:
                counts[label] += int(rows)
    return counts


def _result_frame(texts: pandas.Series, answers: Answers) -> pandas.DataFrame:
    rows = numpy.flatnonzero(answers.done)
    label_index = answers.label_index[rows]
    failed = label_index < 0
    first = pandas.DataFrame({"row": rows + 1, "text": strings(texts.take(rows).map(_writable))})
    scores = pandas.DataFrame(answers.scores[rows], columns=_score_columns(answers.labels, answers.task))
    if answers.task != tasks.REGRESSION:
        names = numpy.array([*answers.names, None], dtype=object)  # index -1 is the None
        first["label"] = strings(names[label_index])
        # The probability of the answer or, of several labels, the highest one.
        first["confidence"] = answers.scores[rows].max(axis=1)
    last = pandas.DataFrame(
        {
            "tokens": pandas.arrays.IntegerArray(answers.tokens[rows], failed),
            "truncated": pandas.arrays.BooleanArray(answers.truncated[rows], failed),
            "error": strings(answers.errors.get(row) for row in rows.tolist()),
        }
    )
    return pandas.concat([first, scores, last], axis=1)


def _add_truth(frame: pandas.DataFrame, truth: pandas.Series, answers: Answers) -> None:
    """Add the columns `truth` and `right` to a result frame, or `truth` and `difference` to that of a regression."""
    if answers.task == tasks.REGRESSION:
        frame["truth"] = truth.to_numpy(float)
        frame["difference"] = frame[_score_columns(answers.labels, answers.task)[0]] - frame["truth"]
        return
    frame["truth"] = strings(truth)
    label = frame["label"]
    if answers.task == tasks.MULTI_LABEL:  # which has the most likely label first
        in_order = {name: join(name.split(tasks.SEPARATOR), answers.labels) for name in label.dropna().unique()}
        label = label.map(in_order)
    is_unclear = frame["truth"].isna() | label.isna()
    is_right = (frame["truth"] == label).to_numpy(bool)
    frame["right"] = pandas.arrays.BooleanArray(is_right, is_unclear.to_numpy())


def _score_columns(labels: list[str], task: str) -> list[str]:
    """Return the names of the columns with scores. A number's name that another column has is made `value`."""
    if task != tasks.REGRESSION:
        return [f"p_{name}" for name in labels]
    return ["value" if name in _OTHER_COLUMNS else name for name in labels]


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
