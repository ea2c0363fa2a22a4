"""`--compare`, its report and the tables of adapters for tasks other than single-label."""

import copy
import dataclasses
import json
import shutil

import numpy
import pytest

from adapter_arena import results, tasks
from adapter_arena.adapters import cards
from adapter_arena.data import load
from adapter_arena.errors import RecipeError
from adapter_arena.results import pack_answers, unpack_answers
from adapter_arena.train import compare, comparison, report, rows_curve, sweep

TASKS = ["multi-label", "regression"]


@pytest.fixture
def shared_runs(monkeypatch, train_once):
    """Train each recipe once for all tests and copy it from there."""

    def train(recipe, output_dir, resume=False, share_texts=False):
        return shutil.copytree(train_once(recipe), output_dir / recipe.name)

    monkeypatch.setattr(compare, "train", train)


def runs_of(folder, method: str, worse: float = 0.0) -> list[results.Results]:
    """Return two runs of a method, from one adapter's results; the scores of the second are lower by a hundredth."""
    runs = []
    for seed in (1, 2):
        found = results.read(folder)
        found.name = f"{method}-s{seed}"
        found.method = method
        found.recipe |= {"seed": seed}
        change_scores(found, worse + 0.01 * (seed - 1))
        runs.append(found)
    return runs


def change_scores(found: results.Results, less: float) -> None:
    """Lower the scores of an adapter, and make as many of its answers wrong if it is much."""
    evaluation = found.evaluation
    evaluation.scores = copy.deepcopy(evaluation.scores)
    evaluation.scores[tasks.of(found).objective.name].value -= less
    if less > 0.1:
        shape = found.task, evaluation.n, len(found.labels)
        predicted = unpack_answers(evaluation.predicted, *shape)
        predicted[::2] = predicted[::2] + 50 if found.task == "regression" else ~predicted[::2]
        evaluation.predicted = pack_answers(predicted)


@pytest.mark.parametrize("task", TASKS)
def test_a_comparison_has_the_metrics_of_the_task(adapter_for_task, tmp_path, task):
    folder = adapter_for_task(task)
    found = {"full": runs_of(folder, "full"), "lora": runs_of(folder, "lora", worse=0.3)}
    summary = comparison.summarise("tiny", found, {})
    report.write(summary, found, tmp_path)
    metric = tasks.TASKS[task].objective
    content = json.loads((tmp_path / report.FILE).read_text())
    assert [row["method"] for row in content["rows"]] == ["full", "lora"]
    assert content["rows"][0].keys().isdisjoint({"accuracy", "f1", "ece", "test_ci95"})
    scores = content["rows"][0]["scores"]
    assert list(scores) == [one.name for one in tasks.TASKS[task].metrics]
    values = [run.evaluation.scores[metric.name].value for run in found["full"]]
    assert scores[metric.name]["values"] == values
    assert scores[metric.name]["mean"] == pytest.approx(numpy.mean(values))
    assert scores[metric.name]["test_ci95"] == found["full"][1].evaluation.scores[metric.name].ci95
    low, high = scores[metric.name]["ci95"]
    assert low < scores[metric.name]["mean"] < high
    assert content["differences"][0]["p"] < 0.05
    assert [row["test"] for row in content["differences"]] == ["bootstrap"] * len(tasks.TASKS[task].tested)

    text = (tmp_path / "report.md").read_text()
    head, table = text.split("\n| method | ", 1)
    assert f"{metric.title} is the mean over seeds" in head
    assert "ccuracy" not in head.replace("Subset accuracy", "")
    assert table.startswith(f"{metric.heading} | over seeds | over texts | ")
    titles = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:8]]
    baselines = list(results.baseline_titles(task).values())[1:]
    assert titles == ["Full fine-tuning", "LoRA", tasks.TASKS[task].constant.capitalize(), *baselines, "Untrained base"]
    columns = {line.count("|") for line in table.splitlines()[1:8]}
    assert len(columns) == 1
    assert "Paired bootstrap (10,000 draws) on the same 80 test texts" in text
    assert ("hundredths (Spearman correlation), label (Mean" in text) == (task == "regression")
    for picture in ("pareto.png", "before_after.png", "curves.png"):
        assert (tmp_path / picture).stat().st_size > 5000


def test_methods_are_compared_from_a_file_of_numbers(work, task_recipe, adapter_for_task, shared_runs):
    """The finished adapter is found by its recipe, and only the other one is trained."""
    plan = {"full": [task_recipe("regression")], "lora": [task_recipe("regression", "lora", epochs=1)]}
    trained = adapter_for_task("regression").parent
    folder = compare.run("tiny", plan, work / "c", trained=trained)
    content = json.loads((folder / report.FILE).read_text())
    assert content["rows"][0]["method"] == "full"
    assert content["rows"][0]["latency_ms"] > 0
    assert [path.name for path in (folder / "adapters").iterdir()] == ["tiny-regression-lora"]
    names = {row["metric"] for row in content["differences"]}
    assert names == {"Spearman correlation", "Mean absolute error (less is better)"}


@pytest.mark.parametrize("task", TASKS)
def test_a_curve_over_rows_tests_each_method_against_the_best_baseline(adapter_for_task, tmp_path, task):
    folder = adapter_for_task(task)
    baselines = results.read(folder).evaluation.baselines
    found = {}
    for size in (64, 256):
        found[size] = {"full": runs_of(folder, "full"), "lora": runs_of(folder, "lora", worse=0.5)}
    curve = rows_curve.summarise("tiny", found, dict.fromkeys(found, baselines))
    metric = tasks.TASKS[task].objective
    best = max(baselines, key=lambda key: baselines[key].scores[metric.name].value)
    assert {test.baseline for test in curve.tests} == {results.baseline_titles(task)[best]}
    assert all(test.points < -5 for test in curve.tests if test.key == "lora")
    rows_curve.write(curve, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.startswith(f"# tiny: {metric.heading} by training rows")
    low, high = baselines[best].scores[metric.name].ci95
    assert f"{baselines[best].scores[metric.name].value:.3f} ({low:.3f}–{high:.3f})" in text
    assert (tmp_path / f"{metric.name}_by_rows.png").stat().st_size > 5000


@pytest.mark.parametrize("task", TASKS)
def test_class_weights_of_a_later_recipe_are_refused_before_anything_is_trained(work, task_recipe, monkeypatch, task):
    monkeypatch.setattr(compare, "train", None)
    plan = {"full": [task_recipe(task)], "lora": [task_recipe(task, "lora", class_weights="balanced")]}
    with pytest.raises(RecipeError, match="class_weights balanced needs texts with one class each"):
        compare.run("tiny", plan, work / "c")


@pytest.mark.parametrize("space", [["epochs=1,2"], ["class_weights=none,balanced"]])
def test_class_weights_are_refused_before_the_first_trial_of_a_sweep(work, task_recipe, monkeypatch, space):
    recipe = task_recipe("regression")
    names = ("dataset", "base_model", "n_validation", "n_test", "max_length")
    fields = {name: getattr(recipe, name) for name in names} | {"class_weights": "balanced"}
    swept = sweep.parse_space(space)
    for name in swept:
        fields.pop(name, None)
    plan = sweep.Plan("tiny-sweep", fields, "full", None, swept)
    monkeypatch.setattr(sweep.run, "validate", lambda job: pytest.fail("a trial is run"))
    with pytest.raises(RecipeError, match="class_weights balanced needs texts with one class each") as found:
        sweep.run_sweep(plan, None)
    assert "\n" not in str(found.value)


def test_each_task_has_a_table_of_its_own(adapter_for_task, trained):
    found = [results.read(trained), *(results.read(adapter_for_task(task)) for task in TASKS)]
    parts = cards.table(found).split("\n\n")
    assert len(parts) == 3
    for part, result in zip(parts, found):
        lines = part.splitlines()
        assert len({line.count("|") for line in lines}) == 1
        metric = tasks.of(result).objective
        value, (low, high) = results.score_of(result, metric)
        assert f"**{metric.write(value)}** ({metric.number(low)}–{metric.number(high)})" in lines[2]
        assert lines[-1].startswith("| untrained, ")
    assert "| accuracy (95 % interval) | F1 | ECE |" in parts[0]
    assert "| F1, macro (95 % interval) | F1, micro | Subset accuracy |" in parts[1]
    assert "| Training mean, regression.csv | " in parts[2]
    assert "| TF-IDF + ridge regression, regression.csv | " in parts[2]


@pytest.mark.parametrize("task", TASKS)
def test_errors_and_groups_add_up_and_texts_of_local_data_stay_private(adapter_for_task, task_recipe, task):
    folder = adapter_for_task(task)
    found = results.read(folder)
    evaluation = found.evaluation
    shape = task, evaluation.n, len(found.labels)
    predicted, truth = (unpack_answers(packed, *shape) for packed in (evaluation.predicted, evaluation.truth))
    splits = load.load_splits(task_recipe(task))
    expected = splits.test["label"].to_numpy()
    if task == "regression":
        assert truth == pytest.approx(expected.astype(float), rel=1e-6)
        errors = abs(predicted - truth)
        assert errors.mean() == pytest.approx(evaluation.scores["mae"].value, rel=1e-4)
    else:
        assert [tuple(numpy.flatnonzero(row)) for row in truth] == expected.tolist()
        errors = (predicted != truth).sum(axis=1)
        assert (errors == 0).mean() == pytest.approx(evaluation.scores["subset_accuracy"].value)
    largest = sorted(errors[errors > 0], reverse=True)[:10]
    assert [row.error for row in evaluation.largest_errors] == pytest.approx(largest, rel=1e-4)
    assert {row.text for row in evaluation.largest_errors} <= {None}
    for by in ("tokens", "window"):
        assert sum(part.n for part in evaluation.slices if part.by == by) == evaluation.n
    [complete] = [part for part in evaluation.slices if part.name == "complete"]
    if complete.n == evaluation.n:
        assert complete.scores == evaluation.scores
    card = (folder / "README.md").read_text()
    assert "## Scores by group" in card
    assert ("## Largest errors" in card) == bool(largest)
    content = json.loads((folder / results.FILE).read_text())
    assert "accuracy" not in content["evaluation"]["slices"][0]
    assert "correct" not in content["evaluation"]["baselines"]["tfidf"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("change", [lambda packed: packed[:-4], lambda packed: "?" + packed[1:]])
@pytest.mark.parametrize("field", ["predicted", "truth"])
def test_malformed_answers_are_refused(adapter_for_task, tmp_path, task, change, field):
    content = json.loads((adapter_for_task(task) / results.FILE).read_text())
    content["evaluation"][field] = change(content["evaluation"][field])
    (tmp_path / results.FILE).write_text(json.dumps(content))
    with pytest.raises(results.AdapterError, match=r"results\.json is malformed"):
        results.read(tmp_path)


def test_a_public_data_set_shows_excerpts_of_its_texts(adapter_for_task):
    found = results.read(adapter_for_task("multi-label"))
    error = results.LargeError(3, "a <b>film</b>", "is superb", "", 1.0, 12, True, "and *another*")
    found.evaluation = dataclasses.replace(found.evaluation, largest_errors=[error])
    card = cards.render(found)
    assert "| 1 | is superb | no label | 12, truncated | a &lt;b&gt;film&lt;/b&gt; ‖ and \\*another\\* |" in card
