"""Live curves: the files that `--report-to` writes on this machine, without network."""

import os
import sqlite3
import sys

import pytest
from conftest import ROOT, run_process

import train_space
from adapter_arena import results
from adapter_arena.adapters import plots


@pytest.fixture
def flags(tiny) -> list[str]:
    return [
        "--base-model", tiny.id, "--dataset", "sample", "--n-train", "64", "--n-test", "10", "--n-validation", "20",
        "--epochs", "2", "--max-length", "64", "--name", "tiny",
    ]  # fmt: skip


def test_tensorboard_keeps_the_curves_after_the_run(work, flags, no_pictures, monkeypatch, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")  # set by the run; restored after the test
    assert train_space.main([*flags, "--report-to", "tensorboard"]) == 0
    assert "curves: tensorboard --logdir runs/logs" in capsys.readouterr().out
    log = EventAccumulator(str(work / "runs" / "logs" / "tiny"))
    log.Reload()
    assert {"train/loss", "train/learning_rate", "train/memory_mb", "eval/loss", "eval/accuracy"} <= set(
        log.Tags()["scalars"]
    )
    assert len(log.Scalars("eval/accuracy")) == 2


@pytest.mark.slow
def test_trackio_keeps_the_curves_on_this_machine(work, flags):
    """In a separate process, since trackio reads the name of its folder when it is imported."""
    environment = os.environ | {"TRACKIO_DIR": str(work / "trackio")}
    command = [sys.executable, str(ROOT / "train_space.py"), *flags, "--report-to", "trackio"]
    done = run_process(command, check=True, env=environment)
    assert "curves: trackio show --project adapter-arena" in done.stdout
    with sqlite3.connect(work / "trackio" / "adapter-arena.db") as kept:
        rows = [bytes(row[0]) for row in kept.execute("select metrics from metrics")]
    assert any(b'"train/loss"' in row and b'"train/memory_mb"' in row for row in rows)
    assert sum(b'"eval/accuracy"' in row for row in rows) == 2


def test_curves_are_pictures_in_the_adapter_folder(trained, tmp_path):
    found = results.read(trained)
    training = found.training
    assert len(training.losses) == len(training.learning_rates) == len(training.memory_mb) > 3
    assert max(rate for _, rate in training.learning_rates) <= found.recipe["learning_rate"]
    assert all(100 < mb < 100_000 for _, mb in training.memory_mb)
    assert (trained / "learning_curve.png").stat().st_size > 5000
    training.learning_rates = []  # as in older results
    training.memory_mb = []
    plots.write(found, tmp_path)
    assert (tmp_path / "learning_curve.png").read_bytes() != (trained / "learning_curve.png").read_bytes()
