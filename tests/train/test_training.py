import mmap
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from conftest import HANG_SECONDS, ROOT, running_process, wait_until
from safetensors.torch import load_file
from transformers import TrainerCallback

import train_space
from adapter_arena import machine, results
from adapter_arena.adapters import cards
from adapter_arena.data import load, sample
from adapter_arena.errors import RecipeError, StorageError
from adapter_arena.models import loading, methods
from adapter_arena.serve.engine import Engine
from adapter_arena.train import checkpoints, run, trainer


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_leaves_an_adapter_that_is_served(tiny, adapter_of, method):
    folder = adapter_of(method)
    found = results.read(folder)
    assert found.method == method
    engine = Engine(tiny)
    adapter = engine.add_folder(folder)
    assert engine.predict(["The acting is superb ."])[0].label in adapter.labels
    assert (folder / "README.md").read_text().count(method) >= 1
    assert not list(folder.parent.parent.glob("runs/*"))
    engine.close()


def test_full_is_saved_as_it_is_served(tiny, adapter_of):
    folder = adapter_of("full")
    engine = Engine(tiny)
    engine.add_folder(folder)
    kinds = {type(m).__name__ for m in engine._served["tiny-full"].model.modules()}
    assert "Linear4bit" in kinds
    assert not (folder / "adapter_config.json").exists()
    engine.close()


def test_training_learns_and_reports_the_accuracy_of_the_saved_folder(tiny, recipe_for, train_once):
    recipe = recipe_for("full", n_train=1000, n_test=200, epochs=3, learning_rate=1e-3)
    folder = train_once(recipe)
    found = results.read(folder)
    assert found.training.epochs[-1].train_loss < 0.8 * found.training.epochs[0].train_loss
    assert found.evaluation.accuracy > found.evaluation.baseline.accuracy + 0.15
    test = load.load_splits(recipe).test
    engine = Engine(tiny)
    adapter = engine.add_folder(folder)
    predictions = engine.predict(test["text"].tolist())
    correct = [adapter.labels[truth] == prediction.label for truth, prediction in zip(test["label"], predictions)]
    assert sum(correct) / len(correct) == pytest.approx(found.evaluation.accuracy, abs=1 / len(correct))
    engine.close()


def test_interrupted_run_resumes_to_the_same_result(work, tiny, no_pictures, capsys):
    """Ctrl-C after the first checkpoint, then --resume: the weights equal those of an uninterrupted run."""
    flags = ["--base-model", tiny.id, "--dataset", "sample", "--epochs", "1", "--batch-size", "4", "--dropout", "0.1"]
    flags += ["--n-test", "40", "--n-validation", "20", "--n-train", "400", "--name"]
    with running_process(
        [sys.executable, str(ROOT / "train_space.py"), *flags, "interrupted"],
        cwd=work,
        stderr=subprocess.PIPE,
        text=True,
        # Python ignores SIGINT if its parent does, as a shell does for processes in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        wait_until(lambda: list(work.glob("runs/interrupted/checkpoint-*/progress.json")) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 130
    assert said.strip().endswith("--resume continues from the last checkpoint")
    assert not (work / "adapters" / "interrupted").exists()
    assert train_space.main([*flags, "interrupted"]) == 1
    assert "add --resume to continue it" in capsys.readouterr().err
    assert train_space.main([*flags, "interrupted", "--resume"]) == 0
    assert train_space.main([*flags, "complete"]) == 0
    expected = load_file(work / "adapters" / "complete" / "adapter_model.safetensors")
    resumed = load_file(work / "adapters" / "interrupted" / "adapter_model.safetensors")
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)
    assert (
        results.read(work / "adapters" / "complete").evaluation.accuracy
        == results.read(work / "adapters" / "interrupted").evaluation.accuracy
    )


def test_run_resumed_in_a_later_epoch_ends_with_the_same_weights(work, recipe_for, no_pictures):
    class StopsInTheSecondEpoch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 52:
                raise KeyboardInterrupt

    recipe = recipe_for("lora", n_train=320, epochs=2, name="tiny-two")  # 40 steps an epoch, checkpoints at 25, 50, 75
    expected = load_file(run.train(recipe, work / "complete") / "adapter_model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        make = trainer.ArenaTrainer
        stop = StopsInTheSecondEpoch()
        patch.setattr(trainer, "ArenaTrainer", lambda callbacks, **others: make(callbacks=[*callbacks, stop], **others))
        with pytest.raises(KeyboardInterrupt):
            run.train(recipe, work / "interrupted")
    folder = run.train(recipe, work / "interrupted", resume=True)
    resumed = load_file(folder / "adapter_model.safetensors")
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)


def test_resume_with_other_settings_is_refused(work, recipe_for):
    with pytest.raises(KeyboardInterrupt), checkpoints.run_folder(recipe_for("lora"), resume=False):
        raise KeyboardInterrupt
    with (
        pytest.raises(RecipeError, match="was started with another epochs"),
        checkpoints.run_folder(recipe_for("lora", epochs=3), resume=True),
    ):
        pass


def test_resume_without_an_unfinished_run_is_refused(work, recipe_for):
    with pytest.raises(RecipeError, match="no unfinished run tiny-lora to resume"):
        run.train(recipe_for("lora"), resume=True)


def test_failure_while_saving_leaves_no_partial_folder_and_can_be_resumed(work, recipe_for, monkeypatch):
    def full_disk(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(cards, "write", full_disk)
        with pytest.raises(StorageError, match="then run the same command with --resume"):
            run.train(recipe_for("lora"))
    assert list((work / "adapters").iterdir()) == []
    found = results.read(run.train(recipe_for("lora"), resume=True))
    assert [row.epoch for row in found.training.epochs] == [1]
    assert found.training.seconds > 0


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory) -> Path:
    """A working directory with an adapter that was trained on a local file."""
    place = tmp_path_factory.mktemp("measured")
    sample.make(300).to_csv(place / "reviews.csv", index=False)
    flags = ["--base-model", tiny.id, "--dataset", "reviews.csv", "--name", "reviews"]
    with chdir(place):
        assert train_space.main([*flags, "--epochs", "1", "--n-train", "64", "--max-length", "16"]) == 0
    return place


@pytest.fixture
def reviews(work, tiny, measured):
    """An adapter trained on a local file, as (its folder, the flags that measure it again)."""
    shutil.copytree(measured, work, dirs_exist_ok=True)
    return work / "adapters" / "reviews", ["--evaluate", "reviews", "--dataset", "reviews.csv", "--base-model", tiny.id]


def test_measuring_again_gives_the_same_results_and_changes_nothing_else(reviews):
    folder, flags = reviews
    (folder / ".git").mkdir()
    before = results.read(folder)
    weights = (folder / "adapter_model.safetensors").read_bytes()
    assert train_space.main(flags) == 0
    after = results.read(folder)
    assert after.evaluation.measured_at >= before.created_at
    assert after.evaluation.packages is None
    after.evaluation.seconds = before.evaluation.seconds
    after.evaluation.measured_at = None
    assert after == before
    assert (folder / "adapter_model.safetensors").read_bytes() == weights
    assert (folder / "README.md").read_text() == cards.render(results.read(folder))
    assert (folder / ".git").is_dir()


def test_texts_of_a_local_file_are_recorded_only_when_shared(reviews):
    folder, flags = reviews
    texts = set(sample.make(300)["text"].str[:40])
    assert not any(
        text in file.read_text() for file in (folder / "results.json", folder / "README.md") for text in texts
    )
    assert train_space.main([*flags, "--share-texts"]) == 0
    assert results.read(folder).evaluation.mistakes[0].text[:40] in texts


def test_measuring_again_is_refused_on_other_data_and_keeps_the_folder(reviews, capsys, monkeypatch):
    folder, flags = reviews
    before = (folder / "results.json").read_text()
    Path("changed").mkdir()
    sample.make(300, seed=1).to_csv("changed/reviews.csv", index=False)
    for more, says in (
        (
            ["--dataset", "changed/reviews.csv"],
            "changed/reviews.csv is not the data reviews was measured on (reviews.csv",
        ),
        (["--n-test", "20"], "--n-test has no effect with --evaluate on the adapter's own data, reviews.csv"),
        (["--epochs", "2"], "--epochs has no effect"),
        (["--evaluate", "nothing"], "name an adapter of adapters"),
    ):
        assert train_space.main([*flags, *more]) == 1
        said = capsys.readouterr().err.strip()
        assert says in said
        assert len(said.splitlines()) == 1

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(cards, "write", full_disk)
    assert train_space.main(flags) == 1
    assert "The disk is full: free some space, then measure again." in capsys.readouterr().err
    assert (folder / "results.json").read_text() == before


def test_emissions_are_read_from_codecarbons_file(tmp_path):
    path = tmp_path / "emissions.csv"
    assert machine.emissions(path, 90) == {}
    path.write_text("duration,emissions,energy_consumed\n60,0.001,0.002\n40,0.0005,0.001\n")
    assert machine.emissions(path, 90) == pytest.approx({"co2_grams": 1.5, "energy_kwh": 0.003})
    assert machine.emissions(path, 200) == {}  # the rows do not cover an interrupted run


def test_memory_of_an_earlier_run_is_not_counted_again():
    machine.release_memory()
    tensors = [torch.ones(250_000) for _ in range(300)]  # 300 MB, in blocks that the C library keeps when freed
    last = torch.ones(250_000)  # an allocation after them, so that the heap cannot simply shrink
    full = machine.memory_mb()
    del tensors
    machine.release_memory()
    assert machine.memory_mb() < full - 200
    assert len(last) == 250_000


def test_peak_memory_includes_freed_memory():
    with machine.peak_memory() as small:
        time.sleep(0.2)
    with machine.peak_memory() as large:
        block = mmap.mmap(-1, 100_000_000)  # not from the C library, which may reuse freed memory
        block.write(b"x" * len(block))
        time.sleep(0.2)
    assert large.mb - small.mb >= 0.9 * len(block) / 1e6


def test_frozen_base_has_no_dropout(tiny):
    model = loading.load_model(tiny, "bf16")
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} <= {0.0}
