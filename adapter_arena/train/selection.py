"""Selection of the weights to keep: those of the best evaluation on validation rows, by a metric of the recipe."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback

from adapter_arena import machine, tasks
from adapter_arena.errors import RecipeError, TrainingError, unknown
from adapter_arena.models import methods
from adapter_arena.recipe import Recipe
from adapter_arena.train import history

METRICS = {"accuracy": "eval_accuracy", "macro_f1": "eval_f1", "loss": "eval_loss"}
"""Key of each metric in the Trainer's log."""
_BY_TASK = {
    tasks.SINGLE_LABEL: ("accuracy", "macro_f1", "loss"),
    tasks.MULTI_LABEL: ("macro_f1", "loss"),
    tasks.REGRESSION: ("loss",),
}
_SMALLER_IS_BETTER = {"loss"}


def check(recipe: Recipe) -> None:
    """Raise RecipeError if the recipe's metric is unknown or cannot select weights."""
    problem = None
    if recipe.metric is None and recipe.patience is not None:
        problem = f"patience needs the metric that must improve: add --metric {' or '.join(METRICS)}."
    elif recipe.metric is not None and recipe.metric not in METRICS:
        problem = unknown("metric", recipe.metric, METRICS)
    elif recipe.metric is not None and methods.find(recipe.method).callback:
        problem = (
            f"metric {recipe.metric} selects weights of any epoch, and {recipe.method} changes the layers until the "
            "end: leave --metric out."
        )
    if problem:
        raise RecipeError(problem)


def check_task(recipe: Recipe, task: str) -> None:
    """Raise RecipeError if the recipe's metric is not measured for the task."""
    if recipe.metric is not None and recipe.metric not in _BY_TASK[task]:
        raise RecipeError(
            f"metric {recipe.metric} is not measured for {task}: use --metric {' or '.join(_BY_TASK[task])}, or leave it "
            "out."
        )


def score(entry: dict, metric: str) -> float:
    """Return the metric of an evaluation in the Trainer's log, negative if less is better. Raises TrainingError."""
    key = METRICS[metric]
    if key not in entry:
        measured = [name for name, key in METRICS.items() if key in entry]
        raise TrainingError(
            f"metric {metric} is not measured for this task: use --metric {' or '.join(measured)}, or leave it out."
        )
    return -entry[key] if metric in _SMALLER_IS_BETTER else entry[key]


def best_evaluation(log: list[dict], metric: str) -> int:
    """Return the index of the best evaluation in the Trainer's log, the first one of equally good ones."""
    scores = [score(entry, metric) for entry in history.evaluations(log)]
    return scores.index(max(scores))


class KeepBest(TrainerCallback):
    """Saves the trained weights after each evaluation that is the best so far, and stops when `patience` is exhausted.

    The Trainer's log, which is part of each checkpoint, decides which evaluation is the best, so that a resumed run
    keeps the same weights. It must come after `Progress`: older weights are deleted when a checkpoint is complete.
    """

    def __init__(self, network: nn.Module, folder: Path, metric: str, patience: int | None):
        self._network = network
        self._folder = folder
        self._metric = metric
        self._patience = patience

    def on_evaluate(self, args, state, control, **kwargs):
        best = best_evaluation(state.log_history, self._metric)
        last = len(history.evaluations(state.log_history)) - 1
        if best == last:
            self._save(state.global_step)
        if self._patience is not None and last - best >= self._patience:
            control.should_training_stop = True
            # A run that is resumed from here would not know that it has ended; from an earlier step it ends again.
            control.should_save = False

    def on_save(self, args, state, control, **kwargs):
        if not history.evaluations(state.log_history) or not machine.is_main_process():
            return
        best = self._path(self._best_entry(state.log_history)["step"])
        for path in self._folder.glob("best-*.safetensors"):
            if path != best:
                path.unlink()

    def restore(self, log: list[dict]) -> float:
        """Load the weights of the best evaluation into the model, and return its epoch."""
        entry = self._best_entry(log)
        if machine.is_main_process():
            saved = load_file(self._path(entry["step"]))
            with torch.no_grad():
                for name, parameter in _trained(self._network).items():
                    parameter.copy_(saved[name])
        return history.rounded_epoch(entry["epoch"])

    def _save(self, step: int) -> None:
        if not machine.is_main_process():
            return
        weights = {}
        for name, parameter in _trained(self._network).items():
            weights[name] = parameter.detach().cpu().clone(memory_format=torch.contiguous_format)
        save_file(weights, self._path(step))

    def _best_entry(self, log: list[dict]) -> dict:
        return history.evaluations(log)[best_evaluation(log, self._metric)]

    def _path(self, step: int) -> Path:
        return self._folder / f"best-{step}.safetensors"


def _trained(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
