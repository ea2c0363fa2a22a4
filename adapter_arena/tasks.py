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

    def write(self, value: float) -> str:
        """Return the value as text: `91.23 %` for a share, else with three decimals."""
        return f"{100 * value:.2f} %" if self.is_share else f"{value:.3f}"


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

    @property
    def objective(self) -> Metric:
        """The metric by which models are chosen and ranked."""
        return self.metrics[0]


_MACRO_F1 = Metric("f1", "F1, macro")
TASKS = {
    SINGLE_LABEL: Task(
        SINGLE_LABEL,
        "single_label_classification",
        "softmax",
        (
            Metric("accuracy", "Accuracy", is_share=True),
            _MACRO_F1,
            Metric("precision", "Precision, macro"),
            Metric("recall", "Recall, macro"),
            Metric("ece", "Expected calibration error", more_is_better=False),
        ),
        "majority class",
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
    ),
    REGRESSION: Task(
        REGRESSION,
        "regression",
        "identity",
        (
            Metric("spearmanr", "Spearman correlation"),
            Metric("pearsonr", "Pearson correlation"),
            Metric("mae", "Mean absolute error", more_is_better=False),
            Metric("rmse", "Root mean squared error", more_is_better=False),
        ),
        "training mean",
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
