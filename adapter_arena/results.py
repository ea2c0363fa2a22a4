"""results.json: the one source of every number that is shown anywhere."""

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
    id: str
    revision: str | None
    sha256: str
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
    validation_accuracy: float
    validation_f1: float


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
    compute: str | None = None
    """Compute type: `bf16`, `fp32` or `fp16`; that of the last stage if there are several."""
    stages: list[Stage] = field(default_factory=list)
    """Stages in order, if the run was resumed on another kind of machine."""
    losses: list[list[float]] = field(default_factory=list)
    """[step, training loss] as logged, about ten per epoch."""
    learning_rates: list[list[float]] = field(default_factory=list)
    """[step, learning rate] at the same steps."""
    memory_mb: list[list[float]] = field(default_factory=list)
    """[step, resident memory of the first process] at the same steps."""
    co2_grams: float | None = None
    """As CodeCarbon reported it (from meters if there are any, else estimated from the load); None without CodeCarbon."""
    energy_kwh: float | None = None
    """As for `co2_grams`."""


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
class Slice:
    """Accuracy on the test rows in group `name` when grouped `by` tokens, window or confidence."""

    by: str
    name: str
    n: int
    accuracy: float
    accuracy_ci95: list[float]

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
class Evaluation:
    """Measurements of the model as it is served; probabilities are softmax(logits / temperature).

    Accuracies have Wilson intervals, all other metrics percentile bootstrap intervals over test rows.
    Fields with a default are missing in older results.
    """

    split: str
    n: int
    served_as: str
    baseline: Baseline
    accuracy: float
    accuracy_ci95: list[float]
    f1: float
    precision: float
    recall: float
    per_class: dict[str, ClassMetrics]
    confusion_matrix: list[list[int]]
    """Rows are true classes, columns predicted classes, in the order of `labels`."""
    ece: float
    ece_uncalibrated: float
    temperature: float
    seconds: float
    compute: str | None = None
    """Compute type: `bf16` or `fp32`."""
    f1_ci95: list[float] | None = None
    precision_ci95: list[float] | None = None
    recall_ci95: list[float] | None = None
    majority: Majority | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    """The most confident wrong answers, most confident first."""
    examples: dict[str, Example] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    reliability: list[Bin] = field(default_factory=list)
    correct: str | None = None
    """Whether each test row was answered correctly: numpy.packbits in hex; see `correct_rows`."""
    test_sha256: str | None = None
    """Digest of the test texts and labels in order; it is equal for adapters that were measured on the same rows."""
    measured_at: str | None = None
    """UTC time of the measurement, if it was repeated after the training."""
    packages: dict[str, str] | None = None
    """Package versions of the measurement, if they differ from those of the training."""

    def __post_init__(self):
        if self.correct is None:
            return
        bytes_needed = math.ceil(self.n / 8)
        if len(bytes.fromhex(self.correct)) != bytes_needed:
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

    @property
    def tag(self) -> str:
        """Git tag of the run in its Hub repo: `run-20261121T034512Z`."""
        utc = self.created_at.split("+")[0]
        compact = utc.replace("-", "").replace(":", "")
        return f"run-{compact}Z"

    def write(self, folder: Path) -> None:
        """Write results.json into the adapter folder."""
        content = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / FILE).write_text(content + "\n", encoding="utf-8")


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


def correct_rows(evaluation: Evaluation) -> numpy.ndarray | None:
    """Return whether each test row was answered correctly, bool, shape (n,); None if this was not recorded."""
    if evaluation.correct is None:
        return None
    packed = numpy.frombuffer(bytes.fromhex(evaluation.correct), dtype=numpy.uint8)
    return numpy.unpackbits(packed, count=evaluation.n).astype(bool)
