import csv
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
import yaml
from conftest import HANG_SECONDS, ROOT, run_process, running_process
from transformers import TrainerState

import train_space
from adapter_arena import results
from adapter_arena.errors import RecipeError, StorageError
from adapter_arena.train import recipes, runs, sweeping, training


@pytest.fixture
def plan_for(tiny):
    fields = {"base_model": tiny.id, "dataset": "sample", "n_train": 64, "n_validation": 20, "n_test": 2}
    fields |= {"epochs": 2, "batch_size": 8, "max_length": 64}

    def make(*space: str, trials: int | None = None, **overrides) -> sweeping.Plan:
        return sweeping.plan("tiny", fields | overrides, "lora", None, list(space), trials)

    return make


@pytest.fixture
def quick(monkeypatch) -> list[float]:
    """In the place of training: accuracy grows the faster, the larger the rate is. The rates that were tried."""
    tried = []

    def validate(recipe, splits, folder, watchers, per_epoch):
        tried.append(recipe.learning_rate)
        steps = recipe.epochs * per_epoch
        rows = []
        for step in range(1, steps + 1):
            accuracy = min(1.0, 0.5 + recipe.learning_rate * step)
            for watcher in watchers:
                watcher.on_evaluate(
                    None, TrainerState(global_step=step, max_steps=steps), None, metrics={"eval_accuracy": accuracy}
                )
            rows.append(results.Epoch(step, 0.0, 1 - accuracy, accuracy, accuracy))
        return results.Training(1, 1, 100.0, 1.0, 1.0, 1.0, "none", rows)

    monkeypatch.setattr(training, "validate", validate)
    return tried


def trials_of(folder: Path) -> list[dict]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_combination_is_tried_once_and_the_best_is_left_as_a_recipe(work, plan_for, capsys):
    path = sweeping.run(plan_for("learning_rate=1e-2,1e-7", "batch_size=8,16"))
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
    assert not list(runs.FOLDER.glob("tiny*"))  # nothing of the trials stays behind


@pytest.mark.parametrize(("method", "space"), [
    ("ia3", "learning_rate=1e-3,5e-3"),  # 1e-3 is every method's default, but IA³'s own is another
    ("qlora", "learning_rate=1e-3,1e-4"),
    ("vera", "rank=16,8"),
    ("full", "epochs=2,1"),
])  # fmt: skip
def test_the_best_recipe_is_the_trials_own_whatever_the_method_defaults_to(work, tiny, quick, method, space):
    fields = {"base_model": tiny.id, "dataset": "sample", "max_length": 64}
    plan = sweeping.plan("tiny", fields | ({"rank": 16} if method == "qlora" else {}), method, None, [space], None)
    path = sweeping.run(plan)
    [best] = [row for row in trials_of(path.parent) if row["state"] == "complete"][:1]
    name = space.partition("=")[0]
    tried = plan.resolve({name: type(getattr(plan.resolve({}), name))(best[name])})
    assert recipes.resolve(recipe=str(path))[0] == tried


def test_a_disk_that_is_full_ends_a_sweep_with_a_line(work, plan_for, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "runs/tiny-trial-0")

    monkeypatch.setattr(training, "validate", full)
    with pytest.raises(StorageError, match=r"The disk is full .*then start the same sweep again"):
        sweeping.run(plan_for("learning_rate=1e-2,1e-3"))


def test_a_password_in_the_storage_is_not_shown(work, plan_for):
    where = f"sqlite:///{work}/sweep.db?secret=hunter2"
    sweeping._study(plan_for("learning_rate=1e-2,1e-3"), where)
    with pytest.raises(RecipeError, match="begun with another learning_rate") as refused:
        sweeping._study(plan_for("learning_rate=1e-2,1e-4"), where)
    assert "hunter2" not in str(refused.value)


def test_test_split_is_never_scored(work, plan_for, monkeypatch):
    from adapter_arena.train import evaluation

    def fail(*args, **kwargs):
        raise AssertionError("the test split was looked at")

    monkeypatch.setattr(evaluation, "evaluate", fail)
    monkeypatch.setattr(evaluation, "measure_baseline", fail)
    sweeping.run(plan_for("learning_rate=1e-2,1e-3"))


def test_sweep_goes_on_where_it_was_and_runs_what_died_again(work, plan_for, monkeypatch, quick):
    validate = training.validate

    def dies_at_the_second(recipe, *args, **kwargs):
        found = validate(recipe, *args, **kwargs)
        if len(quick) == 2:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(training, "validate", dies_at_the_second)
    plan = plan_for("learning_rate=1e-2,1e-3,1e-4")
    with pytest.raises(KeyboardInterrupt):
        sweeping.run(plan)
    path = sweeping.run(plan)
    assert quick == [1e-2, 1e-3, 1e-3, 1e-4]
    assert len(trials_of(path.parent)) == 3


def test_trial_of_a_killed_process_is_given_up(work, plan_for):
    plan = plan_for("learning_rate=1e-2,1e-3")
    study = sweeping._study(plan, str(work / "journal.log"))
    study.enqueue_trial({"learning_rate": 1e-2})
    orphan = study.ask(plan.space)
    dead = int(run_process("echo $$", shell=True).stdout)
    orphan.set_user_attr("worker", sweeping._worker() | {"pid": dead, "started": 0.0})
    taken = sweeping._ask(study, plan)
    assert taken.params == {"learning_rate": 1e-2}
    assert study.get_trials()[0].state == optuna.trial.TrialState.FAIL


def test_two_that_work_on_one_storage_take_different_trials(work, plan_for):
    plan = plan_for("learning_rate=1e-2,1e-3", "batch_size=8,16")
    studies = [sweeping._study(plan, str(work / "journal.log")) for _ in range(2)]
    taken = [sweeping._ask(study, plan).params for study in studies * 2]
    assert len({tuple(params.values()) for params in taken}) == 4


@pytest.mark.slow
def test_processes_share_the_trials(work, plan_for, tiny):
    """Two commands at once: every combination is tried, none by both."""
    command = [
        sys.executable, str(ROOT / "train_space.py"), "--base-model", tiny.id, "--dataset", "sample", "--n-train", "64",
        "--n-validation", "20", "--n-test", "2", "--epochs", "1", "--max-length", "64", "--name", "shared",
        "--storage", "shared/journal.log", "--sweep", "learning_rate=1e-2,1e-3", "batch_size=8,16",
    ]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        both = [stack.enter_context(running_process(command, **pipes)) for _ in range(2)]
        outs = [process.communicate(timeout=HANG_SECONDS) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    study = optuna.load_study(
        study_name="shared",
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("shared/journal.log")),
    )
    done = [t for t in study.get_trials() if t.state.name in ("COMPLETE", "PRUNED")]
    assert len(done) == len({tuple(t.params.values()) for t in done}) == 4
    workers = {t.user_attrs["worker"]["pid"] for t in done}
    assert len(workers) == 2


def test_hopeless_trials_are_pruned_and_the_best_is_chosen(work, plan_for, quick):
    path = sweeping.run(plan_for("learning_rate=2e-2,5e-2,1e-2,1e-9", epochs=4))
    rows = {float(row["learning_rate"]): row["state"] for row in trials_of(path.parent)}
    assert rows == {5e-2: "complete", 2e-2: "complete", 1e-2: "complete", 1e-9: "pruned"}
    assert recipes.resolve(recipe=str(path))[0].learning_rate == 5e-2


def test_range_is_searched_for_as_many_trials_as_are_asked(work, plan_for, quick):
    path = sweeping.run(plan_for("learning_rate=1e-5..1e-1", trials=3, epochs=1))
    rates = [float(row["learning_rate"]) for row in trials_of(path.parent)]
    assert len(set(rates)) == 3
    assert all(1e-5 <= rate <= 1e-1 for rate in rates)


def test_methods_are_swept_each_with_its_own_defaults(plan_for):
    plan = plan_for("method=lora,ia3")
    assert [plan.resolve(values).learning_rate for values in plan.combinations] == [1e-3, 2e-2]


def test_another_sweep_in_the_same_storage_is_refused(work, plan_for):
    sweeping._study(plan_for("learning_rate=1e-2,1e-3"), "journal.log")
    with pytest.raises(RecipeError, match="begun with another learning_rate"):
        sweeping._study(plan_for("learning_rate=1e-2,1e-4"), "journal.log")
    with pytest.raises(RecipeError, match="begun with another epochs"):
        sweeping._study(plan_for("learning_rate=1e-2,1e-3", epochs=1), "journal.log")


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ("learning_rate", "must read field=value"),
        ("learning_rat=1", "learning_rate"),
        ("learning_rate=fast", "is no number"),
        ("batch_size=8,nine", "is no whole number"),
        ("learning_rate=1e-2..1e-3", "to a greater one"),
        ("learning_rate=1e-4..1e-2", "--trials"),
        ("n_test=100,200", "decides which rows there are"),
        ("n_train=100,200", "decides which rows there are"),
        ("train_max_length=none,128", "is no whole number"),
        ("learning_rate=0,1e-3", "greater than 0"),
        ("method=lora,lroa", "lroa"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(capsys, space, reason):
    assert train_space.main(["--dataset", "sample", "--sweep", space]) == 1
    err = capsys.readouterr().err
    assert reason in err
    assert len(err.splitlines()) == 1


def test_storage_that_cannot_be_used_is_one_line(work, plan_for):
    with pytest.raises(RecipeError, match="cannot be used") as refused:
        sweeping.run(plan_for("learning_rate=1e-2,1e-3"), "nosuchdb://user:secret@host/db")
    assert "secret" not in str(refused.value)
