import csv
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
import yaml
from conftest import HANG_SECONDS, ROOT, running_process
from transformers import TrainerState

import train_space
from adapter_arena import results
from adapter_arena.errors import RecipeError, StorageError
from adapter_arena.train import checkpoints, recipes, run, sweep


@pytest.fixture
def plan_for(tiny):
    fields = {"base_model": tiny.id, "dataset": "sample", "n_train": 64, "n_validation": 20, "n_test": 2}
    fields |= {"epochs": 2, "batch_size": 8, "max_length": 64}

    def make(*space: str, trials: int | None = None, **overrides) -> sweep.Plan:
        return sweep.Plan("tiny", fields | overrides, "lora", None, sweep.parse_space(list(space)), trials)

    return make


@pytest.fixture
def quick(monkeypatch) -> list[float]:
    """Replaces training: accuracy grows with the learning rate. Returns the rates that were tried."""
    tried = []

    def validate(job: run.Job) -> results.Training:
        rate = job.recipe.learning_rate
        tried.append(rate)
        steps = job.recipe.epochs * job.evaluations_per_epoch
        rows = []
        for step in range(1, steps + 1):
            accuracy = min(1.0, 0.5 + rate * step)
            state = TrainerState(global_step=step, max_steps=steps)
            for callback in job.callbacks:
                callback.on_evaluate(None, state, None, metrics={"eval_accuracy": accuracy})
            rows.append(results.Epoch(step, 0.0, 1 - accuracy, accuracy, accuracy))
        return results.Training(1, 1, 100.0, 1.0, 1.0, 1.0, "none", rows)

    monkeypatch.setattr(run, "validate", validate)
    return tried


def trials_of(folder: Path) -> list[dict]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_combination_is_tried_once_and_the_best_recipe_is_written(work, plan_for, capsys):
    path = sweep.run_sweep(plan_for("learning_rate=1e-2,1e-7", "batch_size=8,16"))
    rows = trials_of(path.parent)
    assert {(float(row["learning_rate"]), int(row["batch_size"])) for row in rows} == {
        (1e-2, 8), (1e-2, 16), (1e-7, 8), (1e-7, 16),
    }  # fmt: skip
    assert len(rows) == 4
    best = max(rows, key=lambda row: (float(row["validation_accuracy"] or 0), -float(row["validation_loss"] or 9)))
    chosen, _ = recipes.resolve(recipe=str(path))
    assert chosen.learning_rate == float(best["learning_rate"])
    assert chosen.batch_size == int(best["batch_size"])
    assert chosen.name == "tiny"
    assert "best of 4 trials" in yaml.safe_load(path.read_text())["description"]
    out = capsys.readouterr().out
    assert "4/4 trials" in out
    assert "left" in out
    assert not list(checkpoints.FOLDER.glob("tiny*"))  # no trial leaves a folder


@pytest.mark.parametrize(("method", "space"), [
    ("ia3", "learning_rate=1e-3,5e-3"),  # 1e-3 is the recipe's default, which IA³ overrides
    ("qlora", "learning_rate=1e-3,1e-4"),
    ("vera", "rank=16,8"),
    ("full", "epochs=2,1"),
])  # fmt: skip
def test_best_recipe_contains_every_field_of_its_trial(work, tiny, quick, method, space):
    fields = {"base_model": tiny.id, "dataset": "sample", "max_length": 64}
    if method == "qlora":
        fields["rank"] = 16
    plan = sweep.Plan("tiny", fields, method, None, sweep.parse_space([space]))
    path = sweep.run_sweep(plan)
    [best] = [row for row in trials_of(path.parent) if row["state"] == "complete"][:1]
    name = space.partition("=")[0]
    tried = plan.resolve({name: type(getattr(plan.resolve({}), name))(best[name])})
    assert recipes.resolve(recipe=str(path))[0] == tried


def test_full_disk_ends_a_sweep_with_one_line(work, plan_for, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "runs/tiny-trial-0")

    monkeypatch.setattr(run, "validate", full)
    with pytest.raises(StorageError, match=r"The disk is full .*then start the same sweep again"):
        sweep.run_sweep(plan_for("learning_rate=1e-2,1e-3"))


def test_a_password_in_the_storage_is_not_shown(work, plan_for):
    where = f"sqlite:///{work}/sweep.db?secret=hunter2"
    sweep.open_study(plan_for("learning_rate=1e-2,1e-3"), where)
    with pytest.raises(RecipeError, match="started with another learning_rate") as refused:
        sweep.open_study(plan_for("learning_rate=1e-2,1e-4"), where)
    assert "hunter2" not in str(refused.value)


def test_test_split_is_never_scored(work, plan_for, monkeypatch):
    from adapter_arena.train import evaluation

    def fail(*args, **kwargs):
        raise AssertionError("the test split was scored")

    monkeypatch.setattr(evaluation, "evaluate", fail)
    monkeypatch.setattr(evaluation, "measure_baseline", fail)
    sweep.run_sweep(plan_for("learning_rate=1e-2,1e-3"))


def test_interrupted_sweep_continues_and_repeats_the_interrupted_trial(work, plan_for, monkeypatch, quick):
    validate = run.validate

    def interrupted_in_the_second_trial(job):
        training = validate(job)
        if len(quick) == 2:
            raise KeyboardInterrupt
        return training

    monkeypatch.setattr(run, "validate", interrupted_in_the_second_trial)
    plan = plan_for("learning_rate=1e-2,1e-3,1e-4")
    with pytest.raises(KeyboardInterrupt):
        sweep.run_sweep(plan)
    path = sweep.run_sweep(plan)
    assert quick[1] == quick[2]
    assert sorted(set(quick)) == [1e-4, 1e-3, 1e-2]
    assert len(quick) == 4
    assert len(trials_of(path.parent)) == 3


def test_finished_sweep_runs_no_further_trial(work, plan_for, quick):
    plan = plan_for("learning_rate=1e-2,1e-3")
    assert sweep.run_sweep(plan) == sweep.run_sweep(plan)
    assert len(quick) == 2


def test_trial_of_a_killed_process_is_repeated(work, plan_for, monkeypatch, quick):
    monkeypatch.setattr(sweep, "_HEARTBEAT_SECONDS", 2)
    monkeypatch.setattr(sweep, "_GRACE_SECONDS", 2)
    plan = plan_for("learning_rate=1e-2,1e-3")
    storage = str(work / "sweep.db")
    study = sweep.open_study(plan, storage)
    abandoned = study.ask(plan.space)
    study._storage.record_heartbeat(abandoned._trial_id)  # the only one
    path = sweep.run_sweep(plan, storage)
    assert sorted(quick) == [1e-3, 1e-2]
    assert len(trials_of(path.parent)) == 2
    assert study.get_trials()[0].state == optuna.trial.TrialState.FAIL


def test_processes_that_share_a_storage_run_different_trials(work, plan_for):
    plan = plan_for("learning_rate=1e-2,1e-3", "batch_size=8,16")
    studies = [sweep.open_study(plan, str(work / "sweep.db")) for _ in range(2)]
    values = [study.ask(plan.space).params for study in studies * 2]
    assert len({tuple(params.values()) for params in values}) == 4


@pytest.mark.slow
def test_processes_share_the_trials(work, plan_for, tiny):
    """Two commands run at the same time and try every combination between them."""
    command = [
        sys.executable, str(ROOT / "train_space.py"), "--base-model", tiny.id, "--dataset", "sample", "--n-train", "64",
        "--n-validation", "20", "--n-test", "2", "--epochs", "1", "--max-length", "64", "--name", "shared",
        "--storage", "shared/sweep.db", "--sweep", "learning_rate=1e-2,1e-3", "batch_size=8,16",
    ]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        both = [stack.enter_context(running_process(command, **pipes)) for _ in range(2)]
        outs = [process.communicate(timeout=HANG_SECONDS) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    study = optuna.load_study(study_name="shared", storage="sqlite:///shared/sweep.db")
    done = [trial for trial in study.get_trials() if trial.state.name in ("COMPLETE", "PRUNED")]
    assert len({tuple(trial.params.values()) for trial in done}) == 4
    # Both may start the last trial in the same moment.
    assert len(done) <= 5
    for stdout, _ in outs:
        assert "validation accuracy" in stdout or "pruned" in stdout


def test_hopeless_trials_are_pruned_and_the_best_is_chosen(work, plan_for, quick):
    # The grid's order is drawn from a fixed seed: 1e-9 is tried last.
    path = sweep.run_sweep(plan_for("learning_rate=1e-9,1e-2,2e-2,5e-2", epochs=4))
    rows = {float(row["learning_rate"]): row["state"] for row in trials_of(path.parent)}
    assert rows == {5e-2: "complete", 2e-2: "complete", 1e-2: "complete", 1e-9: "pruned"}
    assert recipes.resolve(recipe=str(path))[0].learning_rate == 5e-2


def test_range_is_searched_for_the_given_number_of_trials(work, plan_for, quick):
    path = sweep.run_sweep(plan_for("learning_rate=1e-5..1e-1", trials=3, epochs=1))
    rates = [float(row["learning_rate"]) for row in trials_of(path.parent)]
    assert len(set(rates)) == 3
    assert all(1e-5 <= rate <= 1e-1 for rate in rates)


def test_methods_are_swept_each_with_its_own_defaults(plan_for):
    plan = plan_for("method=lora,ia3")
    assert plan.resolve({"method": "lora"}).learning_rate == 1e-3
    assert plan.resolve({"method": "ia3"}).learning_rate == 2e-2


def test_another_sweep_in_the_same_storage_is_refused(work, plan_for):
    sweep.open_study(plan_for("learning_rate=1e-2,1e-3"), "sweep.db")
    with pytest.raises(RecipeError, match="started with another learning_rate"):
        sweep.open_study(plan_for("learning_rate=1e-2,1e-4"), "sweep.db")
    with pytest.raises(RecipeError, match="started with another epochs"):
        sweep.open_study(plan_for("learning_rate=1e-2,1e-3", epochs=1), "sweep.db")


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ("learning_rate", "must be field=value"),
        ("learning_rat=1", "learning_rate"),
        ("learning_rate=fast", "is not a number"),
        ("batch_size=8,nine", "is not a whole number"),
        ("learning_rate=1e-2..1e-3", "to a greater one"),
        ("learning_rate=1e-4..1e-2", "--trials"),
        ("n_test=100,200", "decides which rows there are"),
        ("n_train=100,200", "decides which rows there are"),
        ("train_max_length=none,128", "is not a whole number"),
        ("learning_rate=0,1e-3", "learning_rate"),
        ("method=lora,lroa", "lroa"),
    ],
)
def test_invalid_sweep_is_refused_in_one_line(capsys, space, reason):
    assert train_space.main(["--dataset", "sample", "--sweep", space]) == 1
    err = capsys.readouterr().err
    assert reason in err
    assert len(err.splitlines()) == 1


def test_storage_that_cannot_be_used_is_one_line(work, plan_for):
    with pytest.raises(RecipeError, match="cannot be used") as refused:
        sweep.run_sweep(plan_for("learning_rate=1e-2,1e-3"), "nosuchdb://user:secret@host/db")
    assert "secret" not in str(refused.value)
