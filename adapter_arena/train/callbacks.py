"""Callbacks of the trainer: SIGTERM, and the progress on the terminal, in a file and in checkpoints."""

import dataclasses
import signal
import threading
import time
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback

from adapter_arena import machine, progress, results, tasks
from adapter_arena.train import checkpoints, history
from adapter_arena.train.curve import PREFIX, LearningCurve
from adapter_arena.train.trainer import ArenaTrainer

_SECONDS_BETWEEN_LINES = 1.0
_LOGGED = {"loss": "loss", f"{PREFIX}_loss": "validation_loss", f"{PREFIX}_score": "validation_score"}
"""Names in the Trainer's log, and in the file of the progress."""


class StopOnSigterm(TrainerCallback):
    """On SIGTERM finish the step, save a checkpoint and stop.

    A machine that is about to be taken away sends it. Several processes would receive it in different steps, so
    they stop immediately and resume from the checkpoint before.
    """

    def __init__(self):
        self.received = False
        self._previous_handler = None

    def on_train_begin(self, args, state, control, **kwargs):
        if machine.world_size() == 1 and threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, *_) -> None:
        self.received = True
        self.close()  # a second SIGTERM ends the process immediately

    def on_step_end(self, args, state, control, **kwargs):
        if self.received:
            control.should_save = True
            control.should_training_stop = True

    def close(self) -> None:
        """Restore the previous handler of SIGTERM."""
        if self._previous_handler is not None:
            signal.signal(signal.SIGTERM, self._previous_handler)
            self._previous_handler = None


class ProgressFile(TrainerCallback):
    """Writes each loss and score, and at most once a second the step, to the training's `progress.jsonl`."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._last_time = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self._write(state, phase="training")

    def on_step_end(self, args, state, control, **kwargs):
        if time.monotonic() - self._last_time >= _SECONDS_BETWEEN_LINES or state.global_step == state.max_steps:
            self._write(state)

    def on_log(self, args, state, control, logs=None, **kwargs):
        found = {}
        for name, value in (logs or {}).items():
            if name in _LOGGED:
                found[_LOGGED[name]] = value
        if found:
            self._write(state, **found)

    def _write(self, state, **values: float | str) -> None:
        self._last_time = time.monotonic()
        if machine.is_main_process():
            steps = {"step": state.global_step, "steps": state.max_steps, "epoch": state.epoch or 0.0}
            progress.append(self._folder, **steps, **values)


class Progress(TrainerCallback):
    """Shows a progress bar and a table row per evaluation, measures seconds, and completes checkpoints.

    Also records the learning curve, if there is one, and does not count its seconds. It must be the last callback: a
    checkpoint is complete when `on_save` returns.
    """

    def __init__(
        self,
        trainer: ArenaTrainer,
        checkpoint: Path | None,
        peak: machine.Peak,
        compute: str,
        curve: LearningCurve | None = None,
    ):
        self._trainer = trainer
        self._curve = curve
        self._peak = peak
        self._saved = checkpoints.read_progress(checkpoint) if checkpoint else {}
        self._last_time = 0.0
        self._bar: tqdm | None = None
        self.seconds: float = self._saved.get("seconds", 0.0)
        """Seconds of training so far, without evaluation and saving."""
        self.stages: list[results.Stage] = []
        """The machines of the training, in order."""
        for stage in self._saved.get("stages", []):
            self.stages.append(results.Stage(**stage))
        peak.mb = max(peak.mb, self._saved.get("peak_mb", 0.0))
        first_step = checkpoints.step_of(checkpoint) if checkpoint else 0
        self._add_stage(results.Stage(first_step, machine.device_name(), compute))

    def _add_stage(self, stage: results.Stage) -> None:
        if not self.stages:
            self.stages.append(stage)
            return
        previous = self.stages[-1]
        if (previous.device, previous.compute) == (stage.device, stage.compute):
            return
        self.stages.append(stage)
        if machine.is_main_process():
            print(
                f"resumed on another machine: {stage.compute} on {stage.device}, before it {previous.compute} on "
                f"{previous.device}; the results name both",
                flush=True,
            )

    def on_train_begin(self, args, state, control, **kwargs):
        if "loss" in self._saved:
            self._trainer.unlogged_loss = self._saved
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            dynamic_ncols=True,
            disable=not machine.is_main_process(),
        )
        if machine.is_main_process():
            names = ["accuracy", "f1"]
            if self._trainer.task.name != tasks.SINGLE_LABEL:
                names = [metric.name for metric in self._trainer.task.metrics]
            tqdm.write("epoch  train loss  validation loss  " + "  ".join(names))
        if self._curve and state.global_step == 0:
            self._curve.record()
        self._last_time = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        now = time.perf_counter()
        self.seconds += now - self._last_time
        self._last_time = now
        self._bar.update(state.global_step - self._bar.n)
        if self._curve and self._curve.is_due(state.global_step, state.max_steps):
            self._curve.record()
            self._last_time = time.perf_counter()

    def on_save(self, args, state, control, **kwargs):
        if machine.world_size() > 1:
            torch.distributed.barrier()  # the checkpoint contains the random state of every process
        if machine.is_main_process():
            progress = {
                "seconds": self.seconds,
                "peak_mb": self._peak.mb,
                "stages": [dataclasses.asdict(stage) for stage in self.stages],
                **self._trainer.unlogged_loss,
            }
            checkpoints.mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}", progress)
        self._last_time = time.perf_counter()

    def on_evaluate(self, args, state, control, **kwargs):
        row = history.epochs(state.log_history)[-1]
        if machine.is_main_process():
            scores = row.validation_scores or {"accuracy": row.validation_accuracy, "f1": row.validation_f1}
            shown = "  ".join(f"{value:{len(name)}.4f}" for name, value in scores.items())
            tqdm.write(f"{row.epoch:5}  {row.train_loss:10.4f}  {row.validation_loss:15.4f}  {shown}")
        self._last_time = time.perf_counter()

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar is not None:
            self._bar.close()
