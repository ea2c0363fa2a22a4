"""Faults of a training: nothing is lost, and the user gets one line that says what to do."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest
import torch
from conftest import HANG_SECONDS, ROOT, disk, running_process, wait_until
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback

import train_space
from adapter_arena import results
from adapter_arena.data import load, sample
from adapter_arena.errors import DataError, RecipeError, StorageError, TrainingError
from adapter_arena.train import checkpoints, run, trainer

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def recipe(recipe_for):
    return recipe_for("lora", n_train=300, epochs=2, name="tiny-faults")


@pytest.fixture
def undisturbed(recipe, train_once) -> Path:
    """The adapter of `recipe`, trained without interruption."""
    return train_once(recipe)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(first: Path, second: Path) -> bool:
    a = weights(first)
    b = weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def watched(monkeypatch, **methods) -> None:
    """Add a callback with these methods to every training."""
    watcher = type("Watcher", (TrainerCallback,), methods)()
    make = trainer.ArenaTrainer
    monkeypatch.setattr(
        trainer, "ArenaTrainer", lambda callbacks, **others: make(callbacks=[watcher, *callbacks], **others)
    )


def _train(recipe, place: str) -> None:
    os.chdir(place)
    os.environ["TQDM_DISABLE"] = "1"
    run.train(recipe, resume=checkpoints.last_checkpoint(checkpoints.FOLDER / recipe.name) is not None)


@contextmanager
def trainer_process(recipe, place: Path):
    """A process that trains `recipe` in `place`, or resumes it; killed when the block ends."""
    # A server that has imported everything, and computed nothing, starts processes quickly.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["adapter_arena.train.run"])
    process = context.Process(target=_train, args=(recipe, str(place)), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


@pytest.mark.slow
def test_repeatedly_killed_training_ends_with_the_same_metrics(work, recipe_for, train_once):
    """kill -9 at random moments, also while a checkpoint is being written; the environment variable KILLS says how often."""
    recipe = recipe_for("lora", n_train=300, epochs=2, n_test=100, name="tiny-killed")
    undisturbed = train_once(recipe)
    generator = random.Random(0)
    kills = 0
    folder = work / "adapters" / recipe.name
    start = time.monotonic()
    with trainer_process(recipe, work) as process:
        process.join()
    seconds = time.monotonic() - start  # of a complete run, including imports
    assert process.exitcode == 0
    shutil.rmtree(folder)
    while kills < int(os.environ.get("KILLS", 4)):
        with trainer_process(recipe, work) as process:
            process.join(generator.uniform(0.1, 0.6) * seconds)
        if process.exitcode == 0:
            shutil.rmtree(folder)  # it finished: start again
        else:
            assert process.exitcode == -signal.SIGKILL
            kills += 1
    with trainer_process(recipe, work) as process:
        process.join()
    assert process.exitcode == 0
    assert same(folder, undisturbed)
    a, b = results.read(folder), results.read(undisturbed)
    a.evaluation.seconds = b.evaluation.seconds
    for name, baseline in b.evaluation.baselines.items():
        a.evaluation.baselines[name].seconds = baseline.seconds
    assert a.evaluation == b.evaluation
    assert a.training.epochs == b.training.epochs


def test_sigterm_saves_a_checkpoint_from_which_the_run_resumes(work, recipe, undisturbed, monkeypatch):
    def send_sigterm(self, args, state, control, **kwargs):
        if state.global_step == 30:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        watched(patch, on_step_begin=send_sigterm)
        with pytest.raises(KeyboardInterrupt):
            run.train(recipe)
    assert checkpoints.last_checkpoint(checkpoints.FOLDER / recipe.name).name == "checkpoint-31"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    folder = run.train(recipe, resume=True)
    assert same(folder, undisturbed)
    assert results.read(folder).training.losses == results.read(undisturbed).training.losses


@pytest.mark.parametrize("moment", ["on_evaluate", "on_step_begin"])
def test_run_interrupted_at_the_end_of_an_epoch_records_every_epoch(work, recipe_for, train_once, monkeypatch, moment):
    """A checkpoint is saved in the last step of an epoch, in which validation is scored too: 25 steps per epoch."""
    recipe = recipe_for("lora", n_train=200, batch_size=8, epochs=2, dropout=0.1, name="tiny-interrupted")
    undisturbed = train_once(recipe)

    def interrupt(self, args, state, control, **kwargs):
        if state.global_step == 25:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        watched(patch, **{moment: interrupt})
        with pytest.raises(KeyboardInterrupt):
            run.train(recipe)
    folder = run.train(recipe, resume=True)
    resumed = results.read(folder).training
    expected = results.read(undisturbed).training
    assert [row.epoch for row in resumed.epochs] == [1, 2]
    assert resumed.epochs == expected.epochs
    assert resumed.losses == expected.losses
    assert same(folder, undisturbed)


def test_sigterm_before_training_ends_the_process_with_one_line(work, tiny):
    flags = ["--base-model", tiny.id, "--dataset", "sample", "--epochs", "50"]
    command = [sys.executable, str(ROOT / "train_space.py"), *flags]
    with running_process(command, cwd=work, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: (work / "runs").is_dir() or process.poll() is not None)
        process.terminate()
        _, said = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 143, said
    assert said.strip().endswith("interrupted: the same command with --resume continues from the last checkpoint")


@pytest.mark.parametrize("error", [
    OSError(28, "No space left on device"),
    RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/7"),
])  # fmt: skip
def test_disk_full_while_a_checkpoint_is_saved_loses_nothing(work, recipe, undisturbed, monkeypatch, error):
    def fails(self, output_dir):
        if "checkpoint-50" in str(output_dir):
            raise error
        save(self, output_dir)

    save = Trainer._save_optimizer_and_scheduler
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_optimizer_and_scheduler", fails)
        with pytest.raises(StorageError, match="free some space, then run the same command with --resume"):
            run.train(recipe)
    assert (checkpoints.FOLDER / recipe.name / "checkpoint-50").is_dir()  # incomplete, and not taken for complete
    assert checkpoints.last_checkpoint(checkpoints.FOLDER / recipe.name).name == "checkpoint-25"
    assert same(run.train(recipe, resume=True), undisturbed)


@pytest.mark.parametrize("options", ["size=600k", "ro"])
def test_full_or_read_only_disk_is_reported_in_one_line(tmp_path, tiny, capsys, options):
    flags = ["--base-model", tiny.id, "--dataset", "sample", "--method", "full", "--n-train", "200", "--n-test", "20"]
    with disk(tmp_path / "disk", options) as place, chdir(place):
        assert train_space.main(flags) == 1
    said = capsys.readouterr().err
    line = said.strip().splitlines()[-1]
    assert line.startswith("error: The disk is full" if options != "ro" else "error: runs"), said
    assert line.endswith("then run the same command with --resume.")


def test_nan_loss_stops_training_and_reports_the_step_and_the_last_good_checkpoint(work, recipe, monkeypatch, capsys):
    step = Trainer.training_step

    def nan_at_step_40(self, *args, **kwargs):
        loss = step(self, *args, **kwargs)
        return loss * float("nan") if self.state.global_step == 40 else loss

    monkeypatch.setattr(Trainer, "training_step", nan_at_step_40)
    with pytest.raises(TrainingError) as raised:
        run.train(recipe)
    assert "The loss is nan at step 41; the last good checkpoint is runs/tiny-faults/checkpoint-25" in str(raised.value)
    assert "an --lr below 0.0" in str(raised.value)


def test_weights_that_are_not_finite_are_not_saved(work, recipe, monkeypatch):
    def make_infinite(self, args, state, control, model, **kwargs):
        if state.global_step == 50:
            next(p for p in model.parameters() if p.requires_grad).data[0] = float("inf")

    watched(monkeypatch, on_step_end=make_infinite)
    with pytest.raises(TrainingError, match=r"A weight is not finite after step 50; the last good .*checkpoint-25"):
        run.train(recipe)


def test_trial_with_a_nan_loss_is_pruned_and_the_sweep_continues(work, tiny, monkeypatch, capsys):
    step = Trainer.training_step

    def nan_at_high_rates(self, *args, **kwargs):
        loss = step(self, *args, **kwargs)
        return loss * float("nan") if self.args.learning_rate > 0.5 else loss

    monkeypatch.setattr(Trainer, "training_step", nan_at_high_rates)
    flags = [
        "--base-model",
        tiny.id,
        "--dataset",
        "sample",
        "--n-train",
        "64",
        "--n-validation",
        "20",
        "--n-test",
        "20",
    ]
    assert train_space.main([*flags, "--epochs", "1", "--name", "wild", "--sweep", "learning_rate=1e-3,0.9"]) == 0
    said = capsys.readouterr().out
    assert "trial 0 cannot be trained: The loss is nan at step 1" in said
    assert "none has a score yet" in said
    assert "learning_rate 0.001" in (work / "sweeps" / "wild" / "wild.yaml").read_text()


def test_out_of_memory_halves_the_batch_and_trains_the_same(work, recipe, undisturbed, monkeypatch, capsys):
    step = Trainer.training_step

    def short(self, model, inputs, *args, **kwargs):
        if len(inputs["input_ids"]) > 2 and self.state.global_step >= 30:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:113] err == 0. DefaultCPUAllocator: can't allocate memory"
            )
        return step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", short)
    folder = run.train(recipe)
    said = capsys.readouterr().out
    assert "memory is short: 4 rows at a time, 2 times a step" in said
    assert "memory is short: 2 rows at a time, 4 times a step" in said
    a, b = weights(folder), weights(undisturbed)
    ours, theirs = (dict(results.read(place).training.losses) for place in (folder, undisturbed))
    assert ours.keys() == theirs.keys()
    assert all(ours[step] == pytest.approx(theirs[step], rel=0.03) for step in ours), " ".join(
        f"{step:.0f}:{ours[step]:.4f}/{theirs[step]:.4f}" for step in ours
    )
    assert max((a[key] - b[key]).abs().max() for key in a) > 0
    assert results.read(folder).training.epochs[-1].epoch == 2


def test_memory_too_small_for_one_row_is_reported_in_one_line(work, recipe, monkeypatch):
    def short(self, *args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Trainer, "training_step", short)
    with pytest.raises(TrainingError, match="Memory is too short for 1 rows at a time: lower --train-max-length"):
        run.train(recipe)


def test_resuming_with_changed_data_is_refused(work, recipe_for, monkeypatch):
    sample.make(300).to_csv("reviews.csv", index=False)
    recipe = recipe_for("lora", dataset="reviews.csv", n_train=200, epochs=2, name="tiny-data")
    with monkeypatch.context() as patch:

        def stop(self, args, state, control, **kwargs):
            if state.global_step == 30:
                raise KeyboardInterrupt

        watched(patch, on_step_end=stop)
        with pytest.raises(KeyboardInterrupt):
            run.train(recipe)
    original = Path("reviews.csv").read_bytes()
    sample.make(300, seed=1).to_csv("reviews.csv", index=False)
    with pytest.raises(DataError, match=r"reviews\.csv has changed since run tiny-data was started: restore"):
        run.train(recipe, resume=True)
    Path("reviews.csv").write_bytes(original)
    assert run.train(recipe, resume=True).is_dir()


def test_two_runs_into_one_folder_are_refused(work, recipe):
    first, second = checkpoints.run_folder(recipe, resume=False), checkpoints.run_folder(recipe, resume=False)
    first.__enter__()
    with pytest.raises(RecipeError, match="Another process is training in runs/tiny-faults: wait for it, or give"):
        second.__enter__()
    assert not first.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    run.train(recipe)  # a run that ended without a checkpoint can be started again
    assert not (checkpoints.FOLDER / recipe.name).exists()


def test_revision_of_local_data_follows_from_the_file(work, recipe_for):
    sample.make(50).to_csv("reviews.csv", index=False)
    first = load.load_splits(
        recipe_for("lora", dataset="reviews.csv", n_train=20, n_test=10, n_validation=4)
    ).facts.revision
    sample.make(50, seed=1).to_csv("reviews.csv", index=False)
    again = load.load_splits(
        recipe_for("lora", dataset="reviews.csv", n_train=20, n_test=10, n_validation=4)
    ).facts.revision
    assert first != again
