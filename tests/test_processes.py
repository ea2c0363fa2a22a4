"""Training in several processes on one machine, as `accelerate launch` and `torchrun` start them."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

import train_space
from peft_arena import results, training
from peft_arena.errors import RecipeError


def flags(tiny, **extra) -> list[str]:
    values = {"base-model": tiny.id, "dataset": "sample", "n-train": 64, "n-test": 40, "n-validation": 21, "epochs": 2}
    values |= {"batch-size": 8, "max-length": 64, "lr": 1e-3} | extra
    return [part for key, value in values.items() for part in (f"--{key}", str(value))]


def launch(arguments: list[str], processes: int = 2) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [*launcher, str(ROOT / "train_space.py"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_share_the_batch_and_find_the_same_weights(work, tiny, monkeypatch, method):
    def drawn(self, epoch):  # the order that several processes draw
        self.generator = torch.Generator().manual_seed(self.seed + epoch)

    done = launch([*flags(tiny, method=method), "--name", "two"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("untrained baseline") == 1  # one process speaks
    monkeypatch.setattr(training._Grouped, "set_epoch", drawn)
    assert train_space.main([*flags(tiny, method=method), "--name", "one"]) == 0
    one, two = (results.read(work / "adapters" / name) for name in ("one", "two"))
    for mine, theirs in zip(one.training.epochs, two.training.epochs, strict=True):
        assert mine.validation_loss == pytest.approx(theirs.validation_loss, abs=5e-3)
        assert mine.validation_accuracy == theirs.validation_accuracy  # over the rows of both processes, each once
    if method == "lora":  # B starts at 0, so what it is now is what training made of it
        weights = [load_file(work / "adapters" / name / "adapter_model.safetensors") for name in ("one", "two")]
        for key in (key for key in weights[0] if "lora_B" in key):
            assert (weights[0][key] - weights[1][key]).abs().mean() < 0.05 * weights[0][key].abs().mean()
    assert two.evaluation.n == 40
    assert not (work / "runs" / "two").exists()


def test_interrupted_run_of_two_processes_resumes(work, tiny):
    long = [*flags(tiny, epochs=40), "--name", "two"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = subprocess.Popen([*launcher, str(ROOT / "train_space.py"), *long], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    end = time.monotonic() + 120
    while not list((work / "runs").glob("two/checkpoint-*/trainer_state.json")):
        assert started.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    started.terminate()
    assert started.wait(60) != 0
    assert not (work / "adapters" / "two").exists()
    done = launch([*long, "--resume"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(json.loads((work / "adapters" / "two" / "results.json").read_text())["training"]["epochs"]) == 40


def test_batch_that_cannot_be_shared_is_refused_in_one_line(work, tiny):
    done = launch([*flags(tiny), "--batch-size", "9", "--name", "odd"])
    assert done.returncode != 0
    assert "batch_size 9 cannot be shared by 2 processes" in done.stderr


def test_sweep_in_a_launcher_is_refused(tiny, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train_space.main([*flags(tiny), "--sweep", "learning_rate=1e-2,1e-3"]) == 1
    assert "leave the launcher out" in capsys.readouterr().err


def test_processes_are_counted_from_the_launcher(tiny, recipe_for, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RecipeError, match="3 processes"):
        training._arguments(recipe_for("lora"), tiny, tmp_path, 64, "none")
