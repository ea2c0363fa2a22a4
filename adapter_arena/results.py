"""results.json: the one source of every number that is shown anywhere."""

import base64
import dataclasses
import functools
import json
import math
from dataclasses import field
from pathlib import Path
from typing import Literal

import numpy
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from adapter_arena import tasks
from adapter_arena.errors import AdapterError, RecipeError, invalid_value
from adapter_arena.recipe import Recipe, known_fields, of_results

FILE = "results.json"
SCHEMA_VERSION = 1
_FORMER_SLICES = {"read whole": "complete", "cut": "truncated"}
"""Names of slices in earlier versions, and the present ones."""

dataclass = functools.partial(pydantic_dataclass, config=ConfigDict(strict=True))
"""A dataclass that checks the types of its fields when it is made. Unknown fields of a file are ignored."""


@dataclass
class BaseFacts:
    """The base model. `revision` is None for a local folder; the rest is None in older results."""

    id: str
    revision: str | None
    sha256: str
    head: list[str] | None = None
    """Modules of the head, which are not stored in 4 bits."""
    autocast: bool | None = None
    """Whether it computes in bf16 where that is faster; if not, always in fp32."""
    pools_last_token: bool | None = None
    """Whether its head reads the last token of a text, as a decoder's does."""
    pair_separator: str | None = None
    """What is put between the texts of a pair if the tokenizer's template does not; None if it does, or without pairs."""


@dataclass
class DatasetFacts:
    """`revision` is the Hub commit, or the sha256 of the content of local data.

    `source` is `hub`, `local` or `made` (None in older results). Texts of local data are only shown if the user
    allowed it.
    """

    id: str
    revision: str
    source: str | None = None
    splits: dict[str, int] = field(default_factory=dict)
    empty_removed: int = 0
    duplicates_removed: int = 0
    leaked_removed: int = 0
    """Rows removed from train (or validation) because a later split contains them too."""
    unlabelled_removed: int | None = None
    """Rows with a text and no label. Earlier versions (None) counted them as empty."""
    contradictions_removed: int | None = None
    """Rows whose text has other labels in the same split; all copies are removed. Earlier versions kept the first."""
    text_columns: list[str] | None = None
    """The column with the text, or the two with the texts of a pair. Not recorded by earlier versions (None)."""

    @property
    def has_pairs(self) -> bool:
        """Whether each row is a pair of texts."""
        return len(self.text_columns or []) == 2


@dataclass
class Epoch:
    epoch: int | float
    """Epoch at whose end the model was evaluated; a fraction if it is evaluated more often, in a sweep."""
    train_loss: float
    validation_loss: float
    validation_accuracy: float | None = None
    validation_f1: float | None = None
    validation_scores: dict[str, float] | None = None
    """Scores of a task other than single-label, by metric; multi-label with thresholds chosen on the same rows."""


@dataclass
class Stage:
    """A part of a run that was resumed on another machine: its first step (from 0), device and compute type."""

    step: int
    device: str
    compute: str


@dataclass
class Training:
    trainable_params: int
    total_params: int
    trainable_percent: float
    seconds: float
    """Duration of the training, without evaluation."""
    samples_per_second: float
    peak_memory_mb: float
    """Peak resident set of the process on CPU, or of the allocator on CUDA; 1 MB is 10^6 bytes."""
    device: str
    epochs: list[Epoch]
    best_epoch: int | float | None = None
    """Epoch of the weights that were kept, if the recipe's metric selected them; None if they are the last."""
    compute: str | None = None
    """Compute type: `bf16`, `fp32` or `fp16`; that of the last stage if there are several."""
    stages: list[Stage] = field(default_factory=list)
    """Stages in order, if the run was resumed on another kind of machine."""
    losses: list[list[float]] = field(default_factory=list)
    """[step, training loss] as logged, about ten per epoch."""
    validation_curve: list[list[float]] = field(default_factory=list)
    """[step, loss, score by which the task ranks models] of at most 256 validation rows; earlier versions have none."""
    learning_rates: list[list[float]] = field(default_factory=list)
    """[step, learning rate] at the same steps."""
    memory_mb: list[list[float]] = field(default_factory=list)
    """[step, resident memory of the first process] at the same steps."""
    co2_grams: float | None = None
    """As CodeCarbon reported it (from meters if there are any, else estimated from the load); None without CodeCarbon."""
    energy_kwh: float | None = None
    """As for `co2_grams`."""

    @property
    def kept_epoch(self) -> Epoch:
        """The evaluation of the weights that were kept."""
        for row in self.epochs:
            if row.epoch == self.best_epoch:
                return row
        return self.epochs[-1]


@dataclass
class Baseline:
    """The same base with an untrained head, on the same rows."""

    accuracy: float
    f1: float
    accuracy_ci95: list[float] | None = None
    f1_ci95: list[float] | None = None
    confusion_matrix: list[list[int]] | None = None


@dataclass
class Majority:
    """Scores on the same rows of always answering `label`, the most frequent class of the test rows."""

    label: str
    accuracy: float
    f1: float
    """Macro F1."""


BASELINE_TITLES = {
    "majority": "Majority class",
    "tfidf": "TF-IDF + logistic regression",
    "probe": "Frozen base + logistic regression",
}
"""The kinds of `SimpleBaseline` in the order in which they are shown."""
_REGRESSION_TITLES = {"tfidf": "TF-IDF + ridge regression", "probe": "Frozen base + ridge regression"}


def baseline_titles(task: str) -> dict[str, str]:
    """Return the kinds of `SimpleBaseline` as BASELINE_TITLES does, with the titles that they have for the task."""
    return BASELINE_TITLES | _REGRESSION_TITLES if task == tasks.REGRESSION else BASELINE_TITLES


@dataclass
class Score:
    """The value of a metric and its 95 % percentile bootstrap interval over test rows."""

    value: float
    ci95: list[float]


@functools.partial(dataclass, kw_only=True)
class SimpleBaseline:
    """Scores on the same rows of a model without fine-tuning, which is one of `BASELINE_TITLES`.

    Single-label ones have accuracy, F1 and `correct`, those of other tasks have `scores` and `predicted`.
    """

    accuracy: float | None = None
    accuracy_ci95: list[float] | None = None
    f1: float | None = None
    """Macro F1."""
    f1_ci95: list[float] | None = None
    seconds: float
    """Duration of computing the features, choosing `c`, training and answering the test rows."""
    train_rows: int
    """Number of rows it was trained on: fewer than the adapter's if these exceed the baseline's limit."""
    correct: str | None = None
    """As in Evaluation."""
    c: float | None = None
    """Inverse strength of the regularisation, chosen on validation; None for the majority class."""
    scores: dict[str, Score] | None = None
    """As in Evaluation."""
    predicted: str | None = None
    """As in Evaluation."""

    def __post_init__(self):
        required = (self.accuracy, self.accuracy_ci95, self.f1, self.f1_ci95, self.correct)
        if self.scores is None and None in required:
            raise ValueError("a baseline has neither scores nor accuracy, F1 and correct")


@dataclass
class ClassMetrics:
    precision: float
    recall: float
    f1: float
    n: int
    f1_ci95: list[float] | None = None


@dataclass
class Mistake:
    """A wrong answer: `row` of the test split as loaded, and an excerpt of its text (None if texts are not shared)."""

    row: int
    text: str | None
    truth: str
    predicted: str
    confidence: float
    tokens: int
    truncated: bool
    text_pair: str | None = None
    """Excerpt of the second text of a pair."""


@dataclass
class Example:
    """A correct answer for one label, with `row` and `text` as in Mistake."""

    row: int
    text: str | None
    confidence: float
    text_pair: str | None = None


@dataclass
class LargeError:
    """An answer of a multi-label or regression model that is far off, with `row` and `text` as in Mistake."""

    row: int
    text: str | None
    truth: str
    predicted: str
    """Numbers with six digits, or labels joined with `tasks.SEPARATOR`; empty for no label."""
    error: float
    """Absolute error, or number of labels that are wrong."""
    tokens: int
    truncated: bool
    text_pair: str | None = None
    """Excerpt of the second text of a pair."""


@dataclass
class Slice:
    """Scores on the test rows in group `name` when grouped `by` tokens, window or confidence."""

    by: str
    name: str
    n: int
    accuracy: float | None = None
    """None for a task other than single-label."""
    accuracy_ci95: list[float] | None = None
    scores: dict[str, Score] | None = None
    """Scores of a task other than single-label, by metric."""

    def __post_init__(self):
        self.name = _FORMER_SLICES.get(self.name, self.name)


@dataclass
class Bin:
    """A bin of a reliability diagram: test rows of similar calibrated confidence, and the mean of it."""

    confidence: float
    accuracy: float
    accuracy_ci95: list[float]
    n: int


@dataclass
class Coverage:
    """A point of the curve of abstaining: the test texts whose answers have at least the confidence `min_confidence`."""

    share: float
    """Share of the texts that are answered."""
    min_confidence: float
    """Calibrated, from 0 to 1."""
    accuracy: float
    """Of the `n` answers that are given."""
    accuracy_ci95: list[float]
    n: int


@dataclass
class OutOfDomain:
    """Scores on the test split of another data set with the same labels; nothing was fitted on that data.

    Accuracy has a Wilson interval, F1 a bootstrap interval. `revision` and `test_sha256` are as in the adapter's own
    dataset and evaluation.
    """

    n: int
    accuracy: float
    accuracy_ci95: list[float]
    f1: float
    """Macro F1."""
    f1_ci95: list[float]
    ece: float
    revision: str
    test_sha256: str
    measured_at: str


@dataclass
class Constant:
    """Scores on the same rows of always giving one answer: the most frequent label, or the mean of training."""

    answer: str
    scores: dict[str, Score]


@dataclass
class Scale:
    """Mean and standard deviation of the training rows' numbers: a prediction is logit * std + mean."""

    mean: float
    std: float


_SINGLE_LABEL_FIELDS = (
    "baseline",
    "accuracy",
    "accuracy_ci95",
    "f1",
    "precision",
    "recall",
    "per_class",
    "confusion_matrix",
    "ece",
    "ece_uncalibrated",
    "temperature",
)
_TASK_FIELDS = ("scores", "untrained", "constant")


@functools.partial(dataclass, kw_only=True)
class Evaluation:
    """Measurements of the model as it is served; probabilities are softmax(logits / temperature).

    Accuracies have Wilson intervals, all other metrics percentile bootstrap intervals over test rows.
    Fields with a default are missing in older results, and those that the task does not have in any: metrics from
    `baseline` to `ece_uncalibrated` belong to the single-label task, `scores`, `untrained` and `constant` to others.
    """

    split: str
    n: int
    served_as: str
    baseline: Baseline | None = None
    accuracy: float | None = None
    accuracy_ci95: list[float] | None = None
    f1: float | None = None
    precision: float | None = None
    recall: float | None = None
    per_class: dict[str, ClassMetrics] | None = None
    """Scores of each label, also of a multi-label model."""
    confusion_matrix: list[list[int]] | None = None
    """Rows are true classes, columns predicted classes, in the order of `labels`."""
    ece: float | None = None
    ece_uncalibrated: float | None = None
    temperature: float | None = None
    """Also of a multi-label model, whose probabilities are sigmoid(logits / temperature)."""
    seconds: float
    compute: str | None = None
    """Compute type: `bf16` or `fp32`."""
    f1_ci95: list[float] | None = None
    precision_ci95: list[float] | None = None
    recall_ci95: list[float] | None = None
    majority: Majority | None = None
    baselines: dict[str, SimpleBaseline] = field(default_factory=dict)
    """Baselines without fine-tuning by their key in BASELINE_TITLES; empty if they were not measured."""
    mistakes: list[Mistake] = field(default_factory=list)
    """The most confident wrong answers of a single-label model, most confident first."""
    examples: dict[str, Example] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    reliability: list[Bin] = field(default_factory=list)
    abstention: list[Coverage] = field(default_factory=list)
    """Accuracy of the most confident answers, all of them first."""
    correct: str | None = None
    """Whether each test row was answered correctly by a single-label model, see `pack_rows`."""
    test_sha256: str | None = None
    """Digest of the test texts and labels in order; it is equal for adapters that were measured on the same rows."""
    measured_at: str | None = None
    """UTC time of the measurement, if it was repeated after the training."""
    packages: dict[str, str] | None = None
    """Package versions of the measurement, if they differ from those of the training."""
    scores: dict[str, Score] | None = None
    """Scores of a task other than single-label, by metric (see `tasks`)."""
    untrained: dict[str, Score] | None = None
    """Scores of the same base with an untrained head on the same rows."""
    constant: Constant | None = None
    thresholds: dict[str, float] | None = None
    """Probability from which a multi-label model gives each label, chosen on the validation split."""
    largest_errors: list[LargeError] = field(default_factory=list)
    """Of a task other than single-label, the largest first."""
    predicted: str | None = None
    """Answer to each test row of a task other than single-label, see `pack_answers`. Earlier versions have none."""
    truth: str | None = None
    """What the answers should be, see `pack_answers`."""

    def __post_init__(self):
        unknown_baselines = self.baselines.keys() - BASELINE_TITLES.keys()
        for name in unknown_baselines:  # of a later version
            del self.baselines[name]
        bytes_needed = math.ceil(self.n / 8)
        for packed in (self.correct, *(baseline.correct for baseline in self.baselines.values())):
            if packed is not None and len(bytes.fromhex(packed)) != bytes_needed:
                raise ValueError(f"correct does not have {self.n} rows")


@dataclass
class Results:
    name: str
    method: str
    recipe: dict
    labels: list[str]
    base_model: BaseFacts
    dataset: DatasetFacts
    training: Training
    evaluation: Evaluation
    environment: dict
    created_at: str
    schema_version: Literal[1] = SCHEMA_VERSION
    megabytes: float | None = None
    """Size of the weights file; 1 MB is 10^6 bytes."""
    hub_id: str | None = None
    """`namespace/name` of the Hub repo, once the adapter was pushed."""
    card_id: str | None = None
    """Git's hash of README.md, in the Hub repo only: it shows whether the card was edited there since."""
    language: str | None = None
    """Language of the texts as the user stated it, for example `fr`."""
    license: str | None = None
    """Licence of the adapter as the user stated it, for example `mit`."""
    out_of_domain: dict[str, OutOfDomain] = field(default_factory=dict)
    """Scores on other data sets, by the id of the data set."""
    task: str = tasks.SINGLE_LABEL
    """Name of an entry in `tasks.TASKS`. The label of a regression is the name of its column."""
    scale: Scale | None = None
    """Of a regression: what makes numbers of the data from logits."""

    def __post_init__(self):
        if self.task not in tasks.TASKS:
            raise ValueError(f"task {self.task!r} is not known to this version")
        required = _SINGLE_LABEL_FIELDS if self.task == tasks.SINGLE_LABEL else _TASK_FIELDS
        for name in required:
            if getattr(self.evaluation, name) is None:
                raise ValueError(f"evaluation has no {name}")
        if self.task == tasks.REGRESSION and self.scale is None:
            raise ValueError("a regression needs its scale")
        baselines = self.evaluation.baselines.values()
        for packed in (self.evaluation.predicted, self.evaluation.truth, *(one.predicted for one in baselines)):
            if packed is not None:
                unpack_answers(packed, self.task, self.evaluation.n, len(self.labels))  # raises if they are malformed

    @property
    def tag(self) -> str:
        """Git tag of the run in its Hub repo: `run-20261121T034512Z`."""
        utc = self.created_at.split("+")[0]
        compact = utc.replace("-", "").replace(":", "")
        return f"run-{compact}Z"

    def write(self, folder: Path) -> None:
        """Write results.json into the adapter folder."""
        fields = dataclasses.asdict(self)
        evaluation = _present(fields["evaluation"])
        evaluation["slices"] = list(map(_present, evaluation.get("slices", [])))
        baselines = evaluation.get("baselines", {})
        evaluation["baselines"] = {name: _present(baseline) for name, baseline in baselines.items()}
        fields["evaluation"] = _present(evaluation)
        fields["training"]["epochs"] = list(map(_present, fields["training"]["epochs"]))
        content = json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / FILE).write_text(content + "\n", encoding="utf-8")


def _present(fields: dict) -> dict:
    """Return the fields that have a value: metrics that a task does not have are absent, not null or zero."""
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


_RESULTS = TypeAdapter(Results)


def read(folder: Path) -> Results | None:
    """Return the folder's results, or None if it has none. Raises AdapterError if they are malformed."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = _RESULTS.validate_json(path.read_bytes())
        found.recipe = of_results({"recipe": found.recipe, "training": {"compute": found.training.compute}})
        Recipe(**({"name": found.name} | known_fields(found.recipe)))  # raises if a value is invalid
    except (ValidationError, RecipeError) as error:
        reason = invalid_value(error) if isinstance(error, ValidationError) else str(error).rstrip(".")
        raise AdapterError(f"{path} is malformed ({reason}): train the adapter again or delete the file.") from error
    return found


def score_in(
    measured: Evaluation | Baseline | SimpleBaseline | Slice | dict[str, Score], metric: tasks.Metric
) -> tuple[float | None, list[float] | None]:
    """Return the value of a metric and its 95 % interval; None for what was not measured, or not for this task."""
    scores = measured if isinstance(measured, dict) else getattr(measured, "scores", None)
    if scores is not None:
        score = scores.get(metric.name)
        return (score.value, score.ci95) if score else (None, None)
    return getattr(measured, metric.name, None), getattr(measured, f"{metric.name}_ci95", None)


def score_of(found: Results, metric: tasks.Metric) -> tuple[float | None, list[float] | None]:
    """Return the adapter's score as `score_in` does."""
    return score_in(found.evaluation, metric)


def untrained_score_of(found: Results, metric: tasks.Metric) -> tuple[float | None, list[float] | None]:
    """Return the score of the untrained base as `score_in` does."""
    evaluation = found.evaluation
    return score_in(evaluation.baseline if evaluation.untrained is None else evaluation.untrained, metric)


def machines(devices: dict[str, str]) -> str:
    """Return a sentence that names the device of each adapter, or "" if all devices are the same.

    Training time and memory can only be compared between adapters of the same device.
    """
    names: dict[str, list[str]] = {}
    for name, device in devices.items():
        names.setdefault(device, []).append(name)
    if len(names) < 2:
        return ""
    groups = [f"{device}: {', '.join(group)}" for device, group in names.items()]
    return f"Seconds and memory of training compare on one kind of machine only. {'; '.join(groups)}."


def trained_baselines(found: Results) -> dict[str, SimpleBaseline]:
    """Return the baselines that learn from the training rows, all but the majority class, by title."""
    trained = {}
    for key, title in baseline_titles(found.task).items():
        baseline = found.evaluation.baselines.get(key)
        if baseline is not None and baseline.c is not None:
            trained[title] = baseline
    return trained


def pack_rows(correct: numpy.ndarray) -> str:
    """Return a bool array of shape (n,) as it is recorded in `correct`."""
    return numpy.packbits(correct).tobytes().hex()


def unpack_rows(packed: str, n: int) -> numpy.ndarray:
    """Return the bool array of shape (n,) that `pack_rows` packed."""
    content = numpy.frombuffer(bytes.fromhex(packed), dtype=numpy.uint8)
    return numpy.unpackbits(content, count=n).astype(bool)


def correct_rows(evaluation: Evaluation) -> numpy.ndarray | None:
    """Return whether each test row was answered correctly, bool, shape (n,); None if this was not recorded."""
    if evaluation.correct is None:
        return None
    return unpack_rows(evaluation.correct, evaluation.n)


def pack_answers(answers: numpy.ndarray) -> str:
    """Return answers as they are recorded in `predicted` and `truth`.

    They are whether each label is given, bool, shape (n, labels), as bits in hex, or numbers, shape (n,), as 32-bit
    little-endian floats in base64.
    """
    if answers.dtype == bool:
        return pack_rows(answers.ravel())
    return base64.b64encode(answers.astype("<f4").tobytes()).decode()


def unpack_answers(packed: str, task: str, n: int, labels: int) -> numpy.ndarray:
    """Return the answers to `n` rows that `pack_answers` packed. Raises ValueError if they are not as many."""
    if task == tasks.REGRESSION:
        numbers = numpy.frombuffer(base64.b64decode(packed, validate=True), dtype="<f4").astype(float)
        if numbers.shape != (n,) or not numpy.isfinite(numbers).all():
            raise ValueError(f"predicted or truth does not have {n} numbers")
        return numbers
    if len(bytes.fromhex(packed)) != math.ceil(n * labels / 8):
        raise ValueError(f"predicted or truth does not have {n} rows of {labels} labels")
    return unpack_rows(packed, n * labels).reshape(n, labels)
