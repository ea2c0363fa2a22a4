"""Accuracy by training rows: nested subsets, the plan of the runs, the verdict on made results, and the report."""

import dataclasses
import json
import shutil

import numpy
import pytest
from conftest import SMALL_RUN

import train_space
from adapter_arena import results, tasks
from adapter_arena.data import load
from adapter_arena.errors import RecipeError
from adapter_arena.results import SimpleBaseline, pack_rows
from adapter_arena.stats import wilson
from adapter_arena.train import compare, plans, rows_curve, run

N = 400


def answers(right: int) -> numpy.ndarray:
    """Return whether each of 400 test rows is answered correctly: the first `right` are."""
    return numpy.arange(N) < right


def runs_with(trained, right: int, seeds: int = 1) -> list[results.Results]:
    """Return the results of a method that answers `right` of 400 test rows."""
    found = results.read(trained)
    found.evaluation = dataclasses.replace(
        found.evaluation,
        n=N,
        accuracy=right / N,
        accuracy_ci95=list(wilson(right, N)),
        correct=pack_rows(answers(right)),
        baselines={},
    )
    return [found] * seeds


def baseline(right: int, rows: int = 64) -> SimpleBaseline:
    interval = list(wilson(right, N))
    return SimpleBaseline(
        accuracy=right / N,
        accuracy_ci95=interval,
        f1=right / N,
        f1_ci95=interval,
        seconds=1.0,
        train_rows=rows,
        correct=pack_rows(answers(right)),
        c=1.0,
    )


def curve_of(trained, right_of_lora: dict[int, int]) -> rows_curve.Curve:
    """Return the curve of LoRA, of IA³ that never learns, of TF-IDF with 300 right answers and a probe with 280."""
    found = {}
    measured = {}
    for size, right in right_of_lora.items():
        lora, ia3 = runs_with(trained, right), runs_with(trained, 200)
        ia3[0].method = "ia3"
        found[size] = {"lora": lora, "ia3": ia3}
        measured[size] = {"tfidf": baseline(300, size), "probe": baseline(280, size)}
    return rows_curve.summarise("made", found, measured)


def test_the_verdict_names_the_number_from_which_fine_tuning_wins(trained):
    curve = curve_of(trained, {16: 250, 64: 303, 256: 330, 1024: 360})
    assert curve.verdict == (
        "Fine-tuning is significantly better than the best baseline: LoRA from 256 training rows on; IA³ never."
    )
    tests = {test.rows: test for test in curve.tests if test.key == "lora"}
    assert {test.baseline for test in tests.values()} == {"TF-IDF + logistic regression"}
    assert tests[64].points == pytest.approx(0.75)
    assert not tests[64].is_better  # 3 of 3 discordant rows: p is 0.25
    assert tests[16].p < 0.05  # significantly worse is no win
    assert not tests[16].is_better


def test_a_win_that_more_rows_undo_is_said_to_be_one_at_these_rows(trained):
    never = "Fine-tuning with LoRA, IA³ never becomes significantly better than the best baseline."
    assert curve_of(trained, {16: 300, 64: 300}).verdict == never
    assert "LoRA at 16, 64 training rows; IA³ never" in curve_of(trained, {16: 360, 64: 360, 256: 300}).verdict
    assert "LoRA from 64 training rows on" in curve_of(trained, {16: 300, 64: 360}).verdict


def test_the_report_has_each_number_the_sentence_and_the_figure(trained, tmp_path):
    curve = curve_of(trained, {16: 250, 1024: 360})
    rows_curve.write(curve, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert curve.verdict in text
    low, high = (100 * end for end in wilson(360, N))
    assert f"| 1,024 | 90.00 ({low:.2f}–{high:.2f}) | 50.00 (45.12–54.88) | 75.00 (" in text
    assert "| training rows | LoRA | IA³ | TF-IDF + logistic regression | Frozen base + logistic regression |" in text
    assert "| 1,024 | LoRA | TF-IDF + logistic regression | +15.00 | < 0.001 | better |" in text
    assert "| 16 | LoRA | TF-IDF + logistic regression | -12.50 | < 0.001 | worse |" in text
    assert "![Accuracy by training rows](accuracy_by_rows.png)" in text
    assert (tmp_path / "accuracy_by_rows.png").stat().st_size > 5000
    content = json.loads((tmp_path / rows_curve.FILE).read_text())
    assert {(p["key"], p["rows"]) for p in content["points"]} == {
        (key, rows) for key in ("lora", "ia3", "tfidf", "probe") for rows in (16, 1024)
    }


def test_the_figure_has_a_line_for_each_method_and_a_dashed_one_for_each_baseline(trained):
    from matplotlib.figure import Figure

    from adapter_arena.adapters import plots

    figure = Figure()
    curve = curve_of(trained, {16: 250, 1024: 360})
    plots._rows_curve(curve.points, tasks.of(None).objective, list(results.BASELINE_TITLES), figure)
    [axes] = figure.axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["16", "1,024"]
    lines = {container.get_label(): container.lines[0] for container in axes.containers}
    assert lines["LoRA"].get_ydata().tolist() == pytest.approx([62.5, 90])
    assert lines["LoRA"].get_xdata().tolist() == [16, 1024]
    assert [title for title, line in lines.items() if line.get_linestyle() == "--"] == list(results.BASELINE_TITLES.values())[1:]  # fmt: skip


def test_results_on_other_test_rows_are_refused(trained):
    other = runs_with(trained, 300)
    other[0].evaluation.test_sha256 = "0" * 64
    found = {16: {"lora": runs_with(trained, 300)}, 64: {"lora": other}}
    with pytest.raises(RecipeError, match="cannot be compared, since their test rows differ"):
        rows_curve.summarise("made", found, {16: {"tfidf": baseline(1)}, 64: {"tfidf": baseline(1)}})


def test_smaller_training_sets_are_parts_of_larger_ones(recipe_for):
    texts = []
    tests = []
    for rows in (10, 33, 120, None):
        splits = load.load_splits(recipe_for("lora", n_train=rows))
        texts.append(set(splits.train.frame()["text"]))
        tests.append(splits.test["text"].tolist())
    assert texts[0] < texts[1] < texts[2] < texts[3]
    assert [len(part) for part in texts[:3]] == [10, 33, 120]
    assert tests[0] == tests[1] == tests[2] == tests[3]


def test_few_rows_get_enough_steps_unless_epochs_are_given():
    fields = {"dataset": "sample"}
    by_rows = plans.make_by_rows("lora,ia3", "1", fields, ("all", 256, 16))
    assert [plan["lora"][0].n_train for plan in by_rows] == [16, 256, None]
    batch = by_rows[0]["lora"][0].batch_size
    usual = by_rows[2]["lora"][0].epochs
    assert by_rows[0]["lora"][0].epochs * -(-16 // batch) >= 100
    assert by_rows[1]["lora"][0].epochs * -(-256 // batch) >= 100
    assert by_rows[2]["lora"][0].epochs == usual == 2
    given = plans.make_by_rows("lora,ia3", "1", fields | {"epochs": 3}, (16, "all"))
    assert {runs[0].epochs for plan in given for runs in plan.values()} == {3}


@pytest.fixture
def started(monkeypatch, trained) -> list[str]:
    """Replace a training by results of its recipe and data; the list has the names of the started runs."""
    names = []

    def train(recipe, output_dir, resume=False, share_texts=False):
        names.append(recipe.name)
        found = results.read(trained)
        found.name = recipe.name
        found.method = recipe.method
        found.recipe = dataclasses.asdict(recipe) | run.without_paths(recipe)
        found.dataset.splits = load.load_splits(recipe).facts.splits
        folder = output_dir / recipe.name
        folder.mkdir(parents=True)
        found.write(folder)
        return folder

    monkeypatch.setattr(compare, "train", train)
    return names


def test_an_interrupted_curve_trains_only_what_is_missing(work, tiny, started):
    fields = SMALL_RUN | {"base_model": tiny.id, "max_length": 64}
    del fields["n_train"]
    by_rows = plans.make_by_rows("lora,ia3", "1", fields, (16, "all"))
    folder = rows_curve.run("tiny", by_rows, work / "c")
    stem = by_rows[0]["lora"][0].name.removesuffix("-lora-16-s42")
    assert started == [f"{stem}-{run}-s42" for run in ("lora-16", "ia3-16", "lora-all", "ia3-all")]
    content = (folder / rows_curve.FILE).read_bytes()
    all_rows = len(load.load_splits(by_rows[1]["lora"][0]).train)
    points = json.loads(content)["points"]
    assert {(p["key"], p["rows"]) for p in points} == {
        (key, rows) for key in ("lora", "ia3", "majority", "tfidf", "probe") for rows in (16, all_rows)
    }
    started.clear()
    shutil.rmtree(folder / "adapters" / f"{stem}-ia3-16-s42")
    rows_curve.run("tiny", by_rows, folder)
    assert started == [f"{stem}-ia3-16-s42"]
    assert (folder / rows_curve.FILE).read_bytes() == content


def test_more_rows_than_there_are_are_refused_before_anything_is_trained(work, tiny, started):
    fields = {"dataset": "sample", "base_model": tiny.id, "n_test": 40}
    for counts in ((16, 50_000), (16, 50_000, "all")):
        with pytest.raises(RecipeError, match=r"--n-train 50000: sample has only [\d,]+ training rows: leave it out"):
            rows_curve.run("tiny", plans.make_by_rows("lora,ia3", "1", fields, counts), work / "c")
    assert started == []


def test_command_line_lists_the_runs_of_each_number(capsys):
    flags = ["--compare", "lora,ia3", "--n-train", "64,all,16", "--seeds", "1", "--dataset", "sample", "--dry-run"]
    assert train_space.main(flags) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("minilm")]
    assert [line[0] for line in lines] == [
        f"minilm-sample-{method}-{rows}-s42" for rows in ("16", "64", "all") for method in ("lora", "ia3")
    ]
    assert lines[-1][-2:] == ["epochs", "2"]


@pytest.mark.parametrize(("flags", "says"), [
    (["--method", "lora", "--n-train", "16,64"], "--n-train with several numbers needs --compare: give one number"),
    (["--sweep", "epochs=1,2", "--n-train", "16,64"], "--n-train with several numbers needs --compare"),
    (["--evaluate", "x", "--n-train", "16,64"], "--n-train with several numbers needs --compare"),
    (["--compare", "lora,ia3", "--n-train", "16,16"], "'16,16' has a number twice"),
    (["--compare", "lora,ia3", "--n-train", "16,many"], "'many' is not a valid integer"),
    (["--compare", "lora,ia3", "--n-train", "16,,64"], "'' is not a valid integer"),
    (["--compare", "lora,ia3", "--n-train", "0,16"], "n_train should be greater than or equal to 1, not 0"),
    (["--compare", "lora,ia3", "--n-train", "16,64", "--streaming", "--n-test", "40"], "--streaming reads other rows"),
    (["--compare", "lora,ia3", "--n-test", "16,64"], "'16,64' is not a valid integer"),
])  # fmt: skip
def test_command_line_refuses_in_one_line(capsys, flags, says):
    assert train_space.main([*flags, "--dataset", "sample"]) == 1
    err = capsys.readouterr().err
    assert says in err
    assert len(err.splitlines()) == 1
