"""The tasks: what a label is, how logits become an answer, and which scores measure it. An entry in TASKS is all of it."""

from dataclasses import dataclass
from typing import Any, Literal

SINGLE_LABEL = "single-label"
MULTI_LABEL = "multi-label"
REGRESSION = "regression"
DEFAULT_THRESHOLD = 0.5
"""Probability from which a label is given if no threshold was chosen on validation data."""
SEPARATOR = "|"
"""Stands between the labels of a multi-label answer; a file with such labels can be trained on again."""


@dataclass(frozen=True)
class Metric:
    """A score of a task: its key in results.json and model-index, and how it is shown."""

    name: str
    title: str
    more_is_better: bool = True
    is_share: bool = False
    """Whether it is a share of rows, which is shown in percent."""
    is_error: bool = False
    """Whether it is in the scale of the data, so that its values compare on the same data only."""
    short: str | None = None
    """Title in tables and pictures, if it is another one there."""
    in_tables: bool = True
    """Whether tables of several adapters have a column for it."""

    @property
    def heading(self) -> str:
        """Title in tables and pictures."""
        return self.short or self.title

    @property
    def column(self) -> str:
        """Title of a column or axis with the unit of `number`."""
        return f"{self.heading}, %" if self.is_share else self.heading

    @property
    def factor(self) -> int:
        """What a value is multiplied with to be shown: shares are shown in percent."""
        return 100 if self.is_share else 1

    def number(self, value: float) -> str:
        """Return the value as text without its unit: `91.23` for a share, else with three decimals."""
        return f"{100 * value:.2f}" if self.is_share else f"{value:.3f}"

    def write(self, value: float) -> str:
        """Return the value as text: `91.23 %` for a share, else with three decimals."""
        return f"{self.number(value)} %" if self.is_share else self.number(value)


@dataclass(frozen=True)
class Task:
    """One task. The first of `metrics` is the one that chooses and ranks models."""

    name: str
    problem_type: str
    """The name that transformers has for it in config.json, which also selects the loss."""
    activation: Literal["softmax", "sigmoid", "identity"]
    """What turns logits into the scores of an answer."""
    metrics: tuple[Metric, ...]
    constant: str
    """The answer without a model that it is compared with, in words."""
    tested: tuple[Metric, ...]
    """The metrics whose differences between two models are tested."""

    @property
    def objective(self) -> Metric:
        """The metric by which models are chosen and ranked."""
        return self.metrics[0]

    @property
    def table_metrics(self) -> list[Metric]:
        """The metrics in tables of several adapters, the objective first."""
        return [metric for metric in self.metrics if metric.in_tables]


_ACCURACY = Metric("accuracy", "Accuracy", is_share=True, short="accuracy")
_MACRO_F1 = Metric("f1", "F1, macro")
_SPEARMAN = Metric("spearmanr", "Spearman correlation")
_MEAN_ERROR = Metric("mae", "Mean absolute error", more_is_better=False, is_error=True)
TASKS = {
    SINGLE_LABEL: Task(
        SINGLE_LABEL,
        "single_label_classification",
        "softmax",
        (
            _ACCURACY,
            Metric("f1", "F1, macro", short="F1"),
            Metric("precision", "Precision, macro", in_tables=False),
            Metric("recall", "Recall, macro", in_tables=False),
            Metric("ece", "Expected calibration error", more_is_better=False, short="ECE"),
        ),
        "majority class",
        tested=(_ACCURACY,),
    ),
    MULTI_LABEL: Task(
        MULTI_LABEL,
        "multi_label_classification",
        "sigmoid",
        (
            _MACRO_F1,
            Metric("f1_micro", "F1, micro"),
            Metric("subset_accuracy", "Subset accuracy", is_share=True),
        ),
        "most frequent label",
        tested=(_MACRO_F1,),
    ),
    REGRESSION: Task(
        REGRESSION,
        "regression",
        "identity",
        (
            _SPEARMAN,
            Metric("pearsonr", "Pearson correlation"),
            _MEAN_ERROR,
            Metric("rmse", "Root mean squared error", more_is_better=False, is_error=True),
        ),
        "training mean",
        tested=(_SPEARMAN, _MEAN_ERROR),
    ),
}
"""Every task by its name."""
BY_PROBLEM_TYPE = {task.problem_type: task.name for task in TASKS.values()}


def of(results: Any | None) -> Task:
    """Return the task of an adapter's results; single-label without results, or in those of earlier versions."""
    return TASKS[SINGLE_LABEL] if results is None else TASKS[results.task]


def of_config(config: dict, outputs: int) -> str:
    """Return the name of the task of a model with this config.json; one output without a problem type is a number."""
    default = REGRESSION if outputs == 1 else SINGLE_LABEL
    return BY_PROBLEM_TYPE.get(str(config.get("problem_type")), default)
