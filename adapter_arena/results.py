"""results.json: the one source of every number that is shown anywhere."""

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path

import numpy

from adapter_arena.errors import AdapterError, RecipeError
from adapter_arena.recipe import check_types, of_results

FILE = "results.json"
SCHEMA_VERSION = 1


@dataclass
class BaseFacts:
    id: str
    revision: str | None
    sha256: str


@dataclass
class DatasetFacts:
    """`revision` is the Hub commit, or the sha256 of the content of local data.

    `source` is `hub`, `local` or `made` (None in older results): local texts are shown to nobody unasked.
    """

    id: str
    revision: str
    source: str | None = None
    splits: dict[str, int] = field(default_factory=dict)
    empty_removed: int = 0
    duplicates_removed: int = 0
    leaked_removed: int = 0
    """Rows taken from train (or validation) because they also stand in a later split."""


@dataclass
class Epoch:
    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    validation_f1: float


@dataclass
class Stage:
    """A part of a training that was resumed on another machine: its first step (from 0), device and compute type."""

    step: int
    device: str
    compute: str


@dataclass
class Training:
    trainable_params: int
    total_params: int
    trainable_percent: float
    seconds: float
    """Of training alone, without evaluation."""
    samples_per_second: float
    peak_memory_mb: float
    """Resident set of the process on CPU, the allocator's peak on CUDA; 1 MB is 10^6 bytes."""
    device: str
    epochs: list[Epoch]
    compute: str | None = None
    """Type it was computed in: `bf16`, `fp32` or `fp16`; of the last stage, where there are several."""
    stages: list[Stage] = field(default_factory=list)
    """Machines in order, if it was resumed on another kind of machine than it was started on."""
    losses: list[list[float]] = field(default_factory=list)
    """[step, train loss] as logged, about ten an epoch."""
    learning_rates: list[list[float]] = field(default_factory=list)
    memory_mb: list[list[float]] = field(default_factory=list)
    """[step, value] at the same steps; memory is what the first process held just then."""
    co2_grams: float | None = None
    energy_kwh: float | None = None
    """Both as CodeCarbon reported them (by meters where it finds them, else by load); None where it did not run."""


@dataclass
class Baseline:
    """The same base with an untrained head, on the same rows."""

    accuracy: float
    f1: float
    accuracy_ci95: list[float] | None = None
    f1_ci95: list[float] | None = None
    confusion_matrix: list[list[int]] | None = None


@dataclass
class ClassMetrics:
    precision: float
    recall: float
    f1: float
    n: int
    f1_ci95: list[float] | None = None


@dataclass
class Mistake:
    """A wrong answer: `row` of the test split as loaded, an excerpt of its text (None where texts are not shared)."""

    row: int
    text: str | None
    truth: str
    predicted: str
    confidence: float
    tokens: int
    truncated: bool


@dataclass
class Example:
    """A right answer for one label: `row` and `text` as in Mistake."""

    row: int
    text: str | None
    confidence: float


@dataclass
class Slice:
    """Accuracy on a part of the test rows: `name` among those that share `by` (tokens, window, confidence)."""

    by: str
    name: str
    n: int
    accuracy: float
    accuracy_ci95: list[float]


@dataclass
class Bin:
    """Test rows of like calibrated confidence, for a reliability diagram; `confidence` is their mean."""

    confidence: float
    accuracy: float
    accuracy_ci95: list[float]
    n: int


@dataclass
class Evaluation:
    """Measured on the model as served; probabilities are softmax(logits / temperature).

    Intervals of accuracies are Wilson's, all others percentiles of bootstraps over test rows.
    What has a default is missing from older results.
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
    """Rows are true classes, columns predicted ones, in the order of `labels`."""
    ece: float
    ece_uncalibrated: float
    temperature: float
    seconds: float
    compute: str | None = None
    """Type it was computed in: `bf16` or `fp32`."""
    f1_ci95: list[float] | None = None
    precision_ci95: list[float] | None = None
    recall_ci95: list[float] | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    """The most confident wrong answers, most confident first."""
    examples: dict[str, Example] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    reliability: list[Bin] = field(default_factory=list)
    correct: str | None = None
    """Which test rows were answered rightly: numpy.packbits in hex; see `correct_rows`."""
    test_sha256: str | None = None
    """Digest of the test texts and labels in order: adapters with the same one were measured on the same rows."""
    measured_at: str | None = None
    """UTC, when measured again after the training."""
    packages: dict[str, str] | None = None
    """Versions it was measured with, where they are not those of the training."""

    def __post_init__(self):
        if self.correct is not None and len(bytes.fromhex(self.correct)) != -(-self.n // 8):
            raise ValueError(f"correct does not hold {self.n} rows")


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
    schema_version: int = SCHEMA_VERSION
    megabytes: float | None = None
    """Of the weights file, 10^6 bytes."""
    hub_id: str | None = None
    """`namespace/name` once pushed."""

    @property
    def tag(self) -> str:
        """Name of the run among a repo's tags: `run-20261121T034512Z`."""
        return "run-" + self.created_at.split("+")[0].replace("-", "").replace(":", "") + "Z"

    def write(self, folder: Path) -> None:
        """Write results.json into the adapter folder."""
        content = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / FILE).write_text(content + "\n", encoding="utf-8")


def read(folder: Path) -> Results | None:
    """The folder's results; None when it has none. AdapterError when they are malformed."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
            raise AdapterError(f"{path} is not of schema version {SCHEMA_VERSION}: train again or delete it.")
        found = _build(Results, content)
        found.recipe = of_results(content)
        check_types(found.recipe, "recipe")
        return found
    except (ValueError, TypeError, KeyError, RecursionError, RecipeError) as error:
        raise AdapterError(
            f"{path} is malformed ({type(error).__name__}: {error}): train again or delete it."
        ) from error


def machines(devices: dict[str, str]) -> str:
    """Who was trained on what, in a sentence; empty where all were on one machine, so that their costs compare."""
    names: dict[str, list[str]] = {}
    for name, device in devices.items():
        names.setdefault(device, []).append(name)
    if len(names) < 2:
        return ""
    said = "; ".join(f"{device}: {', '.join(group)}" for device, group in names.items())
    return f"Seconds and memory of training compare on one kind of machine only. {said}."


def correct_rows(evaluation: Evaluation) -> numpy.ndarray | None:
    """Which test rows were answered rightly, bool, shape (n,); None when not recorded."""
    if evaluation.correct is None:
        return None
    packed = numpy.frombuffer(bytes.fromhex(evaluation.correct), dtype=numpy.uint8)
    return numpy.unpackbits(packed, count=evaluation.n).astype(bool)


def _build(kind, value):
    """A dataclass from parsed JSON, types checked all the way down; TypeError or KeyError if it does not fit."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        required = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
        if missing := required - set(_expect(value, dict)):
            raise KeyError(f"{kind.__name__} lacks {', '.join(sorted(missing))}")
        return kind(**{name: _build(hints[name], item) for name, item in value.items() if name in hints})
    if origin is list:
        return [_build(arguments[0], item) for item in _expect(value, list)]
    if origin is dict:
        return {key: _build(arguments[1], item) for key, item in _expect(value, dict).items()}
    if arguments:  # str | None
        return value if value is None else _build(arguments[0], value)
    return float(_expect(value, int | float)) if kind is float else _expect(value, kind)


def _expect(value, kind):
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"expected {kind}, found {value!r:.60}")
    return value
