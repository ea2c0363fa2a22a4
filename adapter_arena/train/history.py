"""The Trainer's log, `state.log_history`, as it is recorded in results.json."""

import numpy

from adapter_arena import tasks
from adapter_arena.results import Epoch


def evaluations(log: list[dict]) -> list[dict]:
    """Return the entries of the log with the scores of the validation rows."""
    return [entry for entry in log if "eval_loss" in entry]


def epochs(log: list[dict]) -> list[Epoch]:
    """Return one row per evaluation; its train loss is the mean of the losses logged since the previous one."""
    rows = []
    previous_epoch = 0
    for entry in evaluations(log):
        epoch = rounded_epoch(entry["epoch"])
        losses = [line["loss"] for line in log if "loss" in line and previous_epoch < line["epoch"] <= epoch]
        row = Epoch(
            epoch=epoch,
            train_loss=float(numpy.mean(losses)) if losses else float("nan"),
            validation_loss=entry["eval_loss"],
            **_validation(entry),
        )
        rows.append(row)
        previous_epoch = epoch
    return rows


def _validation(entry: dict) -> dict:
    """Return the scores of an evaluation as fields of an Epoch."""
    if "eval_accuracy" in entry:
        return {"validation_accuracy": entry["eval_accuracy"], "validation_f1": entry["eval_f1"]}
    names = {metric.name for task in tasks.TASKS.values() for metric in task.metrics}
    found = {key.removeprefix("eval_"): value for key, value in entry.items() if key.removeprefix("eval_") in names}
    return {"validation_scores": found}


def rounded_epoch(epoch: float) -> float:
    """Return the number of the epoch that has just ended, or a fraction if it has not ended."""
    nearest = round(epoch)
    return nearest if abs(epoch - nearest) < 0.01 else round(epoch, 2)


def logged(log: list[dict], name: str) -> list[list[float]]:
    """Return [step, value] for each logged training step that has this value."""
    return [[float(line["step"]), line[name]] for line in log if "loss" in line and name in line]


def is_evaluated_at(log: list[dict], step: int) -> bool:
    """Return whether validation was scored after this step."""
    return any("eval_loss" in line and line["step"] == step for line in log)
