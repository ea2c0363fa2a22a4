"""Training in several processes on one machine, as `accelerate launch` and `torchrun` start them."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import HANG_SECONDS, ROOT, run_process, running_process, wait_until
from safetensors.torch import load_file

import train_space
from adapter_arena import results
from adapter_arena.errors import RecipeError
from adapter_arena.train import arguments, trainer


def flags(tiny, **extra) -> list[str]:
    values = {"base-model": tiny.id, "dataset": "sample", "n-train": 64, "n-test": 40, "n-validation": 21, "epochs": 2}
    values |= {"batch-size": 8, "max-length": 64, "lr": 1e-3} | extra
    return [part for key, value in values.items() for part in (f"--{key}", str(value))]


def launcher(arguments: list[str]) -> list[str]:
    """The command that trains in two processes."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*start, str(ROOT / "train_space.py"), *arguments]


def launch(arguments: list[str]) -> subprocess.CompletedProcess:
    return run_process(launcher(arguments))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_share_the_batch_and_reach_the_same_weights(work, tiny, monkeypatch, method):
    def same_order_as_two_processes(self, epoch):
        self.generator = torch.Generator().manual_seed(self._seed + epoch)

    done = launch([*flags(tiny, method=method), "--name", "two"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("untrained baseline") == 1  # only one process prints
    monkeypatch.setattr(trainer.GroupedByLength, "set_epoch", same_order_as_two_processes)
    assert train_space.main([*flags(tiny, method=method), "--name", "one"]) == 0
    one, two = (results.read(work / "adapters" / name) for name in ("one", "two"))
    for mine, theirs in zip(one.training.epochs, two.training.epochs, strict=True):
        assert mine.validation_loss == pytest.approx(theirs.validation_loss, abs=5e-3)
        assert mine.validation_accuracy == theirs.validation_accuracy  # over the rows of both processes
    if method == "lora":  # B starts at 0: its value is what was learned
        weights = [load_file(work / "adapters" / name / "adapter_model.safetensors") for name in ("one", "two")]
        for key in (key for key in weights[0] if "lora_B" in key):
            assert (weights[0][key] - weights[1][key]).abs().mean() < 0.05 * weights[0][key].abs().mean()
    assert two.evaluation.n == 40
    assert not (work / "runs" / "two").exists()


@pytest.mark.slow
def test_interrupted_run_of_two_processes_resumes(work, tiny):
    long = [*flags(tiny, epochs=40), "--name", "two"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with running_process(launcher(long), **silent) as started:
        wait_until(lambda: started.poll() is not None or list((work / "runs").glob("two/checkpoint-*/progress.json")))
        assert started.poll() is None
        started.terminate()
        assert started.wait(HANG_SECONDS) != 0
    assert not (work / "adapters" / "two").exists()
    done = launch([*long, "--resume"])
    assert done.returncode == 0, done.stderr[-3000:]
    epochs = json.loads((work / "adapters" / "two" / "results.json").read_text())["training"]["epochs"]
    assert [row["epoch"] for row in epochs] == list(range(2, 41, 2)), "about 25 evaluations in a long training"


@pytest.mark.slow
def test_batch_that_cannot_be_shared_is_refused_in_one_line(work, tiny):
    done = launch([*flags(tiny), "--batch-size", "9", "--name", "odd"])
    assert done.returncode != 0
    assert "batch_size 9 cannot be shared by 2 processes" in done.stderr


def test_sweep_in_a_launcher_is_refused(tiny, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train_space.main([*flags(tiny), "--sweep", "learning_rate=1e-2,1e-3"]) == 1
    assert "leave the launcher out" in capsys.readouterr().err


def test_processes_are_counted_from_the_launcher(recipe_for, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RecipeError, match="3 processes"):
        arguments.check_machine(recipe_for("lora"))
