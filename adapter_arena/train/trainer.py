"""The Hugging Face Trainer as it is used here: its rows, their order, and the checks of losses and weights."""

from pathlib import Path
from typing import NoReturn

import numpy
import pyarrow.compute
import torch
from scipy.special import expit
from sklearn.metrics import accuracy_score, f1_score
from torch.utils.data import Dataset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase, Trainer
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from adapter_arena import machine, task_scores, tasks
from adapter_arena.data.rows import Rows, token_ids
from adapter_arena.errors import TrainingError
from adapter_arena.train import checkpoints
from adapter_arena.train.balance import weighting_term


class EncodedRows(Dataset):
    """Tokenised rows for the Trainer: input_ids, attention_mask, labels and, for pairs, token_type_ids.

    `targets` are the labels as the model learns them, with a row for each of `rows`; by default the rows' labels.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Rows,
        max_length: int,
        targets: numpy.ndarray | None = None,
        reads_token_types: bool = False,
    ):
        table = token_ids(tokenizer, rows, max_length)
        self._ids = table["ids"]
        is_used = reads_token_types and table["types"].null_count < len(table)
        self._types = table["types"] if is_used else None
        self._targets = rows.labels if targets is None else targets
        self.lengths: list[int] = pyarrow.compute.list_value_length(self._ids).to_pylist()
        """Number of tokens of each row."""

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> dict:
        ids = self._ids[index].values.to_numpy().tolist()
        row = {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": self._targets[index].tolist()}
        if self._types is not None:
            row["token_type_ids"] = self._types[index].as_py() or [0] * len(ids)
        return row


def sample_batches(
    rows: EncodedRows, collate: DataCollatorWithPadding, batch_size: int, seed: int
) -> list[dict[str, torch.Tensor]]:
    """Return at most 64 batches of random rows, without their labels."""
    order = numpy.random.default_rng(seed).permutation(len(rows))[: 64 * batch_size]
    batches = []
    for start in range(0, len(order), batch_size):
        batch = [rows[index] for index in order[start : start + batch_size]]
        for row in batch:
            del row["labels"]
        batches.append(dict(collate(batch)))
    return batches


class GroupedByLength(LengthGroupedSampler):
    """Batches of rows of similar length, in an order that depends only on the seed and the epoch.

    The first epoch is drawn from torch's global state, as transformers does. A later epoch has its own generator:
    a run that is resumed in it could not draw the same order from the global state.
    """

    def __init__(self, batch_size: int, rows: EncodedRows, seed: int):
        super().__init__(batch_size, rows, lengths=rows.lengths)
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.generator = None
        if epoch > 0 or machine.world_size() > 1:  # several processes must draw the same order
            self.generator = torch.Generator().manual_seed(self._seed + epoch)


class ArenaTrainer(Trainer):
    """A Trainer with reproducible batches that stops at the first loss or weight that is not finite."""

    def __init__(self, *args, task: str = tasks.SINGLE_LABEL, class_weights: numpy.ndarray | None = None, **kwargs):
        """`class_weights` has shape (classes,); they weight the training loss, but not the validation loss."""
        super().__init__(*args, compute_metrics=_VALIDATION_SCORES[task], **kwargs)
        self.task = tasks.TASKS[task]
        self._class_weights = class_weights
        # The loss is a mean over the rows of one part of a batch; the Trainer must average it over the parts.
        self.model_accepts_loss_kwargs = False
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: EncodedRows | None = None) -> GroupedByLength:
        # Grouped by the global batch, of which each process takes a part.
        global_batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps * machine.world_size()
        return GroupedByLength(global_batch_size, train_dataset or self.train_dataset, self.args.seed)

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        if self._class_weights is None or not model.training:
            return super().compute_loss(model, inputs, return_outputs, **kwargs)
        labels = inputs["labels"]
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        weights = torch.tensor(self._class_weights, dtype=torch.float32, device=loss.device)
        loss = loss + weighting_term(outputs.logits, labels, weights, self.args.label_smoothing_factor)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            self._stop(f"The loss is {loss.item()} at step {self.state.global_step + 1:,}")
        return loss

    def _save_checkpoint(self, model, *args, **kwargs) -> None:
        # The loss shows this only at the next step, after the checkpoint is saved.
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.isfinite().all():
                self._stop(f"A weight is not finite after step {self.state.global_step:,}")
        super()._save_checkpoint(model, *args, **kwargs)

    def _stop(self, reason: str) -> NoReturn:
        checkpoint = checkpoints.last_checkpoint(Path(self.args.output_dir))
        last_good = f"the last good checkpoint is {checkpoint}" if checkpoint else "there is no earlier checkpoint"
        rate = self.args.learning_rate
        raise TrainingError(f"{reason}; {last_good}. Start again with an --lr below {rate:g} or another --name.")

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        if "loss" in logs:
            logs = logs | {"memory_mb": machine.memory_mb()}
        super().log(logs, *args, **kwargs)

    @property
    def unlogged_loss(self) -> dict:
        """The loss summed since it was last logged and the step of that, which the Trainer's checkpoints lack."""
        return {"loss": self._tr_loss.item(), "logged": self._globalstep_last_logged}

    @unlogged_loss.setter
    def unlogged_loss(self, saved: dict) -> None:
        self._tr_loss.fill_(saved["loss"])
        self._globalstep_last_logged = saved["logged"]


def validation_scores(prediction) -> dict[str, float]:
    """Return accuracy and macro F1 of an EvalPrediction."""
    predicted = numpy.argmax(prediction.predictions, axis=1)
    return {
        "accuracy": float(accuracy_score(prediction.label_ids, predicted)),
        "f1": float(f1_score(prediction.label_ids, predicted, average="macro")),
    }


def _multi_label_scores(prediction) -> dict[str, float]:
    return task_scores.multi_label_on_validation(expit(prediction.predictions), prediction.label_ids.astype(bool))


def _regression_scores(prediction) -> dict[str, float]:
    """Return the scores of standardised numbers: errors are in standard deviations of the training rows."""
    return task_scores.regression_on_validation(prediction.predictions[:, 0], prediction.label_ids[:, 0])


_VALIDATION_SCORES = {
    tasks.SINGLE_LABEL: validation_scores,
    tasks.MULTI_LABEL: _multi_label_scores,
    tasks.REGRESSION: _regression_scores,
}
