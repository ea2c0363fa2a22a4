import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from peft_arena import bases, methods, results, training
from peft_arena.engine import Engine
from peft_arena.errors import RecipeError


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_leaves_an_adapter_that_is_served(work, tiny, recipe_for, method):
    folder = training.run(recipe_for(method))
    found = results.read(folder)
    assert found.method == method
    engine = Engine(tiny)
    adapter = engine.add_folder(folder)
    assert engine.predict(["The acting is superb ."])[0].label in adapter.labels
    assert (folder / "README.md").read_text().count(method) >= 1
    assert not (work / "runs" / folder.name).exists()


def test_full_is_saved_as_it_is_served(work, tiny, recipe_for):
    folder = training.run(recipe_for("full"))
    engine = Engine(tiny)
    engine.add_folder(folder)
    kinds = {type(m).__name__ for m in engine._served["tiny-full"].model.modules()}
    assert "Linear4bit" in kinds
    assert not (folder / "adapter_config.json").exists()


def test_served_evaluation_is_that_of_the_saved_folder(work, tiny, recipe_for):
    """Loading the folder again gives the accuracy in its results."""
    from peft_arena import data

    recipe = recipe_for("lora", n_train=400, epochs=3, learning_rate=5e-3)
    folder = training.run(recipe)
    engine, test = Engine(tiny), data.load(recipe).test
    adapter = engine.add_folder(folder)
    right = [adapter.labels[i] == p.label for i, p in zip(test["label"], engine.predict(test["text"].tolist()))]
    assert sum(right) / len(right) == pytest.approx(adapter.results.evaluation.accuracy, abs=1 / len(right))


def test_training_learns_on_the_tiny_base(work, recipe_for):
    found = results.read(training.run(recipe_for("full", n_train=1000, n_test=200, epochs=3, learning_rate=1e-3)))
    assert found.training.epochs[-1].train_loss < 0.8 * found.training.epochs[0].train_loss
    assert found.evaluation.accuracy > found.evaluation.baseline.accuracy + 0.15


def command(work, tiny, name, *more):
    flags = ["--base-model", tiny.id, "--dataset", "sample", "--name", name, "--epochs", "2", "--batch-size", "4"]
    flags += ["--n-test", "40", "--n-validation", "20", "--n-train", "600", "--dropout", "0.1", *more]
    return [sys.executable, str(ROOT / "train_space.py"), *flags]


def test_interrupted_run_resumes_to_the_same_result(work, tiny):
    """Ctrl-C after the first checkpoint, then --resume: weights equal to those of a run left alone."""
    subprocess.run(command(work, tiny, "whole"), check=True, cwd=work, capture_output=True)
    process = subprocess.Popen(command(work, tiny, "cut"), cwd=work, stderr=subprocess.PIPE, text=True)
    while not list(work.glob("runs/cut/checkpoint-*/trainer_state.json")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.strip().endswith("--resume continues from the last checkpoint")
    assert not (work / "adapters" / "cut").exists()
    again = subprocess.run(command(work, tiny, "cut"), cwd=work, capture_output=True, text=True)
    assert again.returncode == 1
    assert "add --resume to continue it" in again.stderr
    subprocess.run(command(work, tiny, "cut", "--resume"), check=True, cwd=work, capture_output=True)
    whole, cut = (load_file(work / "adapters" / name / "adapter_model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    assert (
        results.read(work / "adapters" / "whole").evaluation.accuracy
        == results.read(work / "adapters" / "cut").evaluation.accuracy
    )


def test_resume_with_other_settings_is_refused(work, recipe_for):
    training._open_run(recipe_for("lora"), resume=False)
    with pytest.raises(RecipeError, match="was started with another epochs"):
        training._open_run(recipe_for("lora", epochs=3), resume=True)


def test_resume_of_nothing_is_refused(work, recipe_for):
    with pytest.raises(RecipeError, match="no unfinished run tiny-lora to resume"):
        training.run(recipe_for("lora"), resume=True)


def test_failure_while_saving_keeps_the_run_shows_no_half_folder_and_can_be_resumed(work, recipe_for, monkeypatch):
    def full_disk(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(training.cards, "write", full_disk)
        with pytest.raises(OSError, match="No space"):
            training.run(recipe_for("lora"))
    assert list((work / "adapters").iterdir()) == []
    found = results.read(training.run(recipe_for("lora"), resume=True))
    assert [row.epoch for row in found.training.epochs] == [1]
    assert found.training.seconds > 0


def test_peak_memory_sees_what_was_held():
    with training.peak_memory() as small:
        time.sleep(0.2)
    with training.peak_memory() as large:
        held = torch.ones(100_000_000, dtype=torch.uint8)
        time.sleep(0.2)
    assert large.mb - small.mb == pytest.approx(held.numel() / 1e6, rel=0.3)


def test_frozen_base_has_no_dropout(tiny):
    model = bases.load_model(tiny, "bf16")
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} <= {0.0}
