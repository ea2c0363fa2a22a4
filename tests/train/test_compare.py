import dataclasses
import json
import math
import shutil
import sys

import numpy
import pytest
from conftest import ROOT, run_process, running_process, wait_until

import train_space
from adapter_arena import results, stats
from adapter_arena.data import load, sample
from adapter_arena.errors import RecipeError, StorageError
from adapter_arena.results import Bin
from adapter_arena.train import compare, comparison, report


@pytest.fixture
def plan(recipe_for):
    """Two methods with two seeds each."""

    def seeds_of(method: str) -> list:
        return [recipe_for(method, seed=seed, name=f"tiny-{method}-s{seed}") for seed in (1, 2)]

    return {"lora": seeds_of("lora"), "ia3": seeds_of("ia3")}


@pytest.fixture
def shared_runs(monkeypatch, train_once) -> list[str]:
    """Train each recipe once for all tests and copy it from there; the list has the names of the started runs."""
    started = []

    def train(recipe, output_dir, resume=False, share_texts=False):
        started.append(recipe.name)
        return shutil.copytree(train_once(recipe), output_dir / recipe.name)

    monkeypatch.setattr(compare, "train", train)
    return started


def numbers(folder) -> list:
    """Return the numbers of a comparison that a second measurement does not change: all but times and memory."""
    content = json.loads((folder / report.FILE).read_text())
    return [(row["method"], row["seeds"], row["accuracies"], row["f1"], row["ece"]) for row in content["rows"]]


def test_comparison_has_every_method_with_every_seed_and_its_pictures(work, plan, shared_runs):
    folder = compare.run("tiny", plan, work / "comparisons" / "tiny")
    content = json.loads((folder / report.FILE).read_text())
    assert {row["method"] for row in content["rows"]} == {"lora", "ia3"}
    assert all(row["seeds"] == [1, 2] and row["accuracy_ci95"] for row in content["rows"])
    assert len(content["differences"]) == 1
    text = (folder / "report.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    titles = [line.split(" | ")[0].removeprefix("| ") for line in lines[4:8]]
    assert titles == [*results.BASELINE_TITLES.values(), "Untrained base"]
    assert f"| {100 * content['baselines']['tfidf']['accuracy']:.2f} | |" in lines[5]
    for picture in ("pareto.png", "before_after.png", "curves.png"):
        assert f"({picture})" in text
        assert (folder / picture).stat().st_size > 5000
    for name in content["runs"]["lora"]:
        assert results.read(folder / "adapters" / name).evaluation.n == content["n_test"]


def test_an_interrupted_comparison_reuses_finished_runs_and_ends_with_the_same_numbers(
    work, plan, shared_runs, monkeypatch
):
    undisturbed = numbers(compare.run("tiny", plan, work / "undisturbed"))
    shared_runs.clear()
    train = compare.train

    def dies_at_the_third(recipe, *args, **kwargs):
        if len(shared_runs) == 2:
            raise KeyboardInterrupt
        return train(recipe, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(compare, "train", dies_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            compare.run("tiny", plan, work / "broken")
    folder = compare.run("tiny", plan, work / "broken")
    assert shared_runs == ["tiny-lora-s1", "tiny-lora-s2", "tiny-ia3-s1", "tiny-ia3-s2"]
    assert numbers(folder) == undisturbed


@pytest.mark.slow
def test_a_killed_comparison_ends_with_the_numbers_of_an_uninterrupted_one(work, tiny):
    """After kill -9 during the second run, the first is reused and the second resumed from its checkpoint."""
    command = [
        sys.executable, str(ROOT / "train_space.py"), "--compare", "lora,ia3", "--seeds", "2", "--base-model", tiny.id,
        "--dataset", "sample", "--n-train", "256", "--n-test", "40", "--n-validation", "20", "--epochs", "5",
        "--batch-size", "8", "--max-length", "64",
    ]  # fmt: skip
    run_process([*command, "--name", "uninterrupted"], check=True)
    with (work / "out.log").open("w") as out, running_process([*command, "--name", "killed"], stdout=out, stderr=out) as killed:  # fmt: skip
        wait_until(
            lambda: killed.poll() is not None or list((work / "runs").glob("*-lora-s43/checkpoint-*/progress.json"))
        )
        assert killed.poll() is None
        killed.kill()
        killed.wait()
    first = work / "comparisons" / "killed" / "adapters"
    [finished] = [path.parent for path in first.glob("*/results.json")]
    written = finished.stat().st_mtime_ns
    again = run_process([*command, "--name", "killed"], check=True)
    assert again.stdout.count("finished before") == 1
    assert finished.stat().st_mtime_ns == written
    assert numbers(work / "comparisons" / "killed") == numbers(work / "comparisons" / "uninterrupted")


def test_a_folder_of_another_recipe_is_refused(work, plan, shared_runs):
    folder = compare.run("tiny", plan, work / "c")
    plan["lora"] = [dataclasses.replace(recipe, learning_rate=1e-4) for recipe in plan["lora"]]
    with pytest.raises(RecipeError, match="another learning_rate"):
        compare.run("tiny", plan, folder)


def test_a_run_among_the_shipped_adapters_is_used(work, plan, shared_runs):
    shipped = dataclasses.replace(plan["lora"][0], name="tiny-shipped")
    compare.train(shipped, work / "adapters")
    folder = compare.run("tiny", plan, work / "c", trained=work / "adapters")
    assert shared_runs == ["tiny-shipped", "tiny-lora-s2", "tiny-ia3-s1", "tiny-ia3-s2"]
    assert json.loads((folder / report.FILE).read_text())["runs"]["lora"] == ["tiny-shipped", "tiny-lora-s2"]


def test_a_finished_run_with_named_labels_is_recognised(work, plan, no_pictures, monkeypatch):
    names = {0: "negative", 1: "positive"}  # a recipe file's keys are numbers, those of results.json strings
    plan = {method: [dataclasses.replace(seeds[0], label_names=names)] for method, seeds in plan.items()}
    monkeypatch.setattr(sample, "make", lambda n=200, _make=sample.make: _make(n).replace({"label": {"negative": 0, "positive": 1}}))  # fmt: skip
    folder = compare.run("tiny", plan, work / "c")
    before = numbers(folder)
    monkeypatch.setattr(compare, "train", None)
    assert numbers(compare.run("tiny", plan, folder)) == before


@pytest.mark.parametrize(("field", "value"), [("data_seed", 1), ("n_train", 50), ("base_model", "roberta-base")])
def test_runs_on_other_data_are_refused_before_anything_is_trained(work, plan, monkeypatch, field, value):
    monkeypatch.setattr(compare, "train", None)
    plan["ia3"] = [dataclasses.replace(recipe, **{field: value}) for recipe in plan["ia3"]]
    with pytest.raises(RecipeError, match=f"cannot be compared, since their {field} differs"):
        compare.run("tiny", plan, work / "c")


def test_results_on_other_rows_are_not_compared(trained):
    runs = [results.read(trained), results.read(trained)]
    runs[1].evaluation.test_sha256 = "0" * 64
    with pytest.raises(RecipeError, match="cannot be compared, since their data differ"):
        comparison.summarise("tiny", {"lora": runs}, {})


def test_finished_runs_on_rows_that_have_changed_since_are_not_used(work, plan, no_pictures):
    frame = sample.make()
    frame.to_csv("reviews.csv", index=False)
    plan = {method: [dataclasses.replace(seeds[0], dataset="reviews.csv")] for method, seeds in plan.items()}
    shipped = compare.train(dataclasses.replace(plan["lora"][0], name="tiny-shipped"), work / "adapters")
    folder = compare.run("tiny", plan, work / "c", trained=work / "adapters")
    assert json.loads((folder / report.FILE).read_text())["runs"]["lora"] == [shipped.name]
    frame.assign(text=frame["text"] + " indeed").to_csv("reviews.csv", index=False)
    with pytest.raises(RecipeError, match=r"tiny-ia3-s1 contains a run on other rows than reviews\.csv has now"):
        compare.run("tiny", plan, work / "c", trained=work / "adapters")
    again = compare.run("tiny", plan, work / "d", trained=work / "adapters")
    assert json.loads((again / report.FILE).read_text())["runs"]["lora"] == [plan["lora"][0].name]


def test_a_report_says_whether_budgets_differ(work, plan, shared_runs):
    plan = {method: seeds[:1] for method, seeds in plan.items()}
    plan["ia3"] = [dataclasses.replace(recipe, epochs=1, batch_size=32) for recipe in plan["ia3"]]
    text = (compare.run("tiny", plan, work / "c") / "report.md").read_text()
    assert "**budgets differ**" in text
    assert "IA³: 1 epoch, batch 32, served on the 4-bit base at" in text


def test_a_report_that_cannot_be_written_gives_one_line(work, plan, shared_runs, monkeypatch):
    plan = {method: seeds[:1] for method, seeds in plan.items()}

    def full(*_):
        raise OSError(28, "No space left on device", "report.md")

    monkeypatch.setattr(report, "write", full)
    with pytest.raises(StorageError, match="then start the same comparison again"):
        compare.run("tiny", plan, work / "c")


def test_seeds_share_their_data(plan):
    assert load.load_splits(plan["lora"][0]).train.frame().equals(load.load_splits(plan["lora"][1]).train.frame())


def test_median_run_is_not_the_best(trained, tmp_path):
    runs = []
    for accuracy in (0.9, 0.7, 0.8):
        found = results.read(trained)
        found.evaluation.accuracy = accuracy
        runs.append(found)
    assert comparison.median_run(runs).evaluation.accuracy == 0.8


def test_seconds_are_those_of_the_fastest_run(trained):
    runs = []
    for speed in (20.0, 30.0, 10.0):
        found = results.read(trained)
        found.training.samples_per_second = speed
        found.training.seconds = 600 / speed
        found.training.device = f"a machine of {speed:.0f}"
        runs.append(found)
    [row] = comparison.summarise("tiny", {"lora": runs}, {}).rows
    assert row.samples_per_second == 30.0
    assert row.train_seconds == 20.0
    assert row.device == "a machine of 30"


def test_costs_of_different_machines_are_told_apart():
    assert results.machines({"LoRA": "cpu: 2 cores", "IA³": "cpu: 2 cores"}) == ""
    said = results.machines({"LoRA": "cuda: H100", "DoRA": "cpu: 2 cores", "IA³": "cpu: 2 cores"})
    assert said.endswith("cuda: H100: LoRA; cpu: 2 cores: DoRA, IA³.")


def test_interval_over_seeds_by_hand():
    # mean 0.9, standard deviation 0.01, t(2) = 4.3027: half is 4.3027 * 0.01 / sqrt(3)
    assert comparison.interval_over_seeds([0.89, 0.90, 0.91]) == pytest.approx(
        [0.9 - 0.024842, 0.9 + 0.024842], abs=1e-5
    )
    assert comparison.interval_over_seeds([0.9]) is None


def test_calibration_error_by_chance_is_that_of_a_coin_of_known_bias():
    n, p = 2000, 0.8
    one = stats.ece_by_chance([Bin(p, p, [p, p], n)])
    assert one == pytest.approx(1.96 * math.sqrt(p * (1 - p) / n), rel=0.06)
    assert stats.ece_by_chance([Bin(1.0, 0.9, [0.9, 0.9], n)]) == 0
    several = [Bin(c, c, [c, c], n // 5) for c in (0.55, 0.65, 0.75, 0.85, 0.95)]
    assert one < stats.ece_by_chance(several) < 5 * one  # errors of bins add up, whatever their sign


def test_mcnemar_and_holm_by_hand():
    first = numpy.array([True] * 25 + [False] * 10 + [True] * 50)
    second = numpy.array([False] * 25 + [True] * 10 + [True] * 50)
    by_hand = 2 * sum(math.comb(35, k) for k in range(11)) / 2**35  # 10 of the 35 on which they differ
    assert stats.mcnemar(first, second) == pytest.approx(by_hand)
    assert stats.mcnemar(first, first) == 1.0
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def listed(capsys) -> list[str]:
    """Return the lines that a dry run prints, up to those about the data."""
    lines = capsys.readouterr().out.splitlines()
    (data,) = [index for index, line in enumerate(lines) if line.startswith("data ")]
    return lines[:data]


def test_command_line_lists_the_runs(capsys):
    assert train_space.main(["--compare", "lora,ia3", "--seeds", "2", "--dataset", "sample", "--dry-run"]) == 0
    assert [line.split()[0] for line in listed(capsys)] == [
        "minilm-sample-lora-s42", "minilm-sample-lora-s43", "minilm-sample-ia3-s42", "minilm-sample-ia3-s43",
    ]  # fmt: skip


def test_each_method_may_have_its_own_number_of_seeds(capsys):
    assert train_space.main(["--compare", "lora,ia3", "--seeds", "2,1", "--dataset", "sample", "--dry-run"]) == 0
    assert [line.split()[0] for line in listed(capsys)] == [
        "minilm-sample-lora-s42", "minilm-sample-lora-s43", "minilm-sample-ia3-s42",
    ]  # fmt: skip


@pytest.mark.parametrize("seeds", ["0", "2,0", "1,2,3", "two", ""])
def test_numbers_of_seeds_that_fit_no_method_are_refused_with_a_line(capsys, seeds):
    assert train_space.main(["--compare", "lora,ia3", "--seeds", seeds, "--dataset", "sample", "--dry-run"]) == 1
    assert f"--seeds {seeds} is neither one number from 1 up nor" in capsys.readouterr().err


def test_recipes_are_compared_by_their_names(capsys):
    names = "minilm-3k-lora,minilm-3k-ia3"
    assert train_space.main(["--compare", names, "--seeds", "1", "--dataset", "sample", "--dry-run"]) == 0
    lines = [line.split() for line in listed(capsys)]
    assert [line[:4] for line in lines] == [
        ["minilm-3k-lora-s42", "lora", "lr", "0.001"], ["minilm-3k-ia3-s42", "ia3", "lr", "0.01"],
    ]  # fmt: skip


@pytest.mark.parametrize(("flags", "says"), [
    (["--compare", "lora"], "needs at least two"),
    (["--compare", "lora,lora"], "needs at least two"),
    (["--compare", "lora,lroa"], "Unknown method or recipe 'lroa': did you mean 'lora'?"),
    (["--compare", "lora,minilm-imdb-lroa"], "did you mean 'minilm-imdb-lora'?"),
    (["--compare", "lora,loha"], "Unknown method or recipe 'loha'"),
    (["--compare", "lora,ia3", "--report-to", "trackio"], "--report-to has no effect with --compare"),
    (["--compare", "lora,ia3", "--push"], "--push has no effect with --compare"),
    (["--compare", "lora,ia3", "--recipe", "minilm-imdb-lora"], "--recipe has no effect with --compare"),
    (["--compare", "lora,ia3", "--name", "../x"], "must be a plain folder name"),
    (["--compare", "lora,mine.yaml"], "mine.yaml"),
    (["--sweep", "epochs=1,2", "--push"], "--push has no effect with --sweep"),
    (["--sweep", "epochs=1,2", "--report-to", "trackio"], "--report-to has no effect with --sweep"),
])  # fmt: skip
def test_command_line_refuses_in_one_line(capsys, flags, says):
    assert train_space.main([*flags, "--dataset", "sample"]) == 1
    err = capsys.readouterr().err
    assert says in err
    assert len(err.splitlines()) == 1


def test_the_same_run_under_two_names_is_refused(capsys):
    assert train_space.main(["--compare", "lora,minilm-imdb-lora", "--dry-run"]) == 1
    assert "the same recipe twice, as minilm-imdb-lora-s42" in capsys.readouterr().err


def test_seed_0_is_a_seed(capsys):
    assert train_space.main(["--compare", "lora,ia3", "--seeds", "1", "--seed", "0", "--dataset", "sample", "--dry-run"]) == 0  # fmt: skip
    assert "minilm-sample-lora-s0" in capsys.readouterr().out


def test_recipe_files_are_compared_too(work, capsys):
    (work / "mine.yaml").write_text("method: lora\nlearning_rate: 2.0e-3\n")
    assert train_space.main(["--compare", "mine.yaml,lora", "--seeds", "1", "--dataset", "sample", "--dry-run"]) == 0
    lines = [line.split()[:4] for line in listed(capsys)]
    assert lines == [["mine-s42", "lora", "lr", "0.002"], ["minilm-sample-lora-s42", "lora", "lr", "0.001"]]


def test_report_is_written_again_from_finished_runs(work, plan, shared_runs):
    folder = compare.run("tiny", plan, work / "c")
    before = numbers(folder)
    (folder / "report.md").unlink()
    shared_runs.clear()
    assert numbers(compare.run("tiny", plan, folder)) == before
    assert shared_runs == []
    assert (folder / "report.md").is_file()
