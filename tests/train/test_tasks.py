"""Each task from a file to the exported model, on a tiny base."""

import ast
import dataclasses
import json
import threading

import numpy
import pandas
import pytest

import app
from adapter_arena import results, tasks
from adapter_arena.adapters import cards, export, store
from adapter_arena.data import load, sample, tables
from adapter_arena.errors import RecipeError
from adapter_arena.serve import batch, batch_outcome, parity
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.explain import explain
from adapter_arena.train import out_of_domain, run
from adapter_arena.ui import board_table, comparison, fragments
from adapter_arena.ui.api import Api


@pytest.fixture
def engine(tiny):
    engine = Engine(tiny)
    yield engine
    engine.close()


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_a_task_is_learned_measured_and_written(adapter_for_task, task):
    folder = adapter_for_task(task)
    found = results.read(folder)
    assert found.task == task
    evaluation = found.evaluation
    content = json.loads((folder / results.FILE).read_text())
    assert not {"accuracy", "ece", "confusion_matrix", "baseline", "majority"} & content["evaluation"].keys()
    assert "validation_accuracy" not in content["training"]["epochs"][0]
    for name, score in evaluation.scores.items():
        low, high = score.ci95
        assert low <= score.value <= high
        better = score.value - evaluation.constant.scores[name].value
        assert (better < 0) == (name in ("mae", "rmse"))
    assert evaluation.untrained.keys() == evaluation.scores.keys()


def test_labels_above_their_thresholds_are_given(adapter_for_task, engine):
    adapter = engine.add_folder(adapter_for_task("multi-label"))
    both, none = engine.predict(["superb awful film", "a film"])
    thresholds = dict(zip(adapter.labels, adapter.thresholds))
    for answer in (both, none):
        assert set(answer.labels) == {name for name, score in answer.scores.items() if score >= thresholds[name]}
        assert answer.label == "|".join(answer.labels)
        assert answer.confidence == max(answer.scores.values())
        assert "value" not in answer.to_dict()
    assert len(both.labels) > len(none.labels)


def test_a_number_is_predicted_in_the_scale_of_the_data(adapter_for_task, engine):
    engine.add_folder(adapter_for_task("regression"))
    low, high = engine.predict(["awful awful film", "superb superb film"])
    assert 20 < low.value < high.value < 70
    assert low.to_dict().keys() == {"label", "scores", "value", "adapter", "tokens", "truncated"}
    assert float(low.label) == pytest.approx(low.value, rel=1e-5)


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_the_exported_model_answers_equally(adapter_for_task, tiny, tmp_path, task):
    adapter = store.read(adapter_for_task(task), tiny)
    folder = export.write(adapter, tiny, tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    assert config["problem_type"] == {"multi-label": "multi_label_classification"}.get(task, task)
    tolerance = 0.02 if task == "multi-label" else 0.02 * adapter.scale.std
    assert parity.largest_difference(folder, adapter, tiny, ["superb film", "awful film"]) < tolerance


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_the_card_has_the_metrics_of_the_task(adapter_for_task, task):
    folder = adapter_for_task(task)
    found = results.read(folder)
    card = (folder / "README.md").read_text()
    rows = cards.metadata(found).eval_results
    reported = {row.metric_type: row.metric_value for row in rows}
    for name, score in found.evaluation.scores.items():
        assert reported[name] == score.value
        assert [reported[f"{name}_ci95_low"], reported[f"{name}_ci95_high"]] == score.ci95
    assert "accuracy" not in reported
    assert ("softmax" in card, "confusion" in card) == (False, False)
    code = cards.snippets(found)
    for name in ("peft", "pipeline", "client"):
        ast.parse(code[name])
    assert "sigmoid" in code["peft"] if task == "multi-label" else str(found.scale.std) in code["peft"]


def scored(engine, adapter, texts) -> batch_outcome.Outcome:
    scoring = batch.Scoring(pandas.DataFrame({"text": texts}), "text", adapter.labels, task=adapter.task)
    list(scoring.run(lambda chunk: engine.predict(chunk, adapter.name), threading.Event()))
    return scoring.outcome()


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_a_file_gets_the_answers_of_the_engine(adapter_for_task, engine, tmp_path, task):
    adapter = engine.add_folder(adapter_for_task(task))
    texts = ["superb awful film", "a film", "superb film", " "]
    outcome = scored(engine, adapter, texts)
    batch_outcome.save(outcome, tmp_path / "out.csv")
    rows = tables.read(tmp_path / "out.csv", tables.Limits()).frame
    answers = engine.predict(texts[:3], adapter.name)
    if task == "multi-label":
        assert rows["label"].tolist()[:3] == [answer.label for answer in answers]
        assert outcome.counts == {name: sum(name in a.labels for a in answers) for name in adapter.labels}
        for name in adapter.labels:
            expected = [answer.scores[name] for answer in answers]
            assert rows[f"p_{name}"][:3].astype(float).tolist() == pytest.approx(expected, abs=0.01)
    else:
        assert rows["label"][:3].astype(float).tolist() == pytest.approx([a.value for a in answers], abs=0.3)
        assert not {"confidence", "p_label"} & set(rows)
        assert sum(outcome.histogram) == 3
    assert rows["error"].tolist()[3] == "The text is empty."


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_the_api_and_the_page_show_the_answer_of_the_task(adapter_for_task, engine, task):
    adapter = engine.add_folder(adapter_for_task(task))
    catalogue = Catalogue(engine)
    answer = engine.predict(["superb film"])[0]
    api = Api(catalogue)
    assert api.predict("superb film") == answer.to_dict()
    untrained, trained = api.compare("superb film")
    assert trained.items() >= answer.to_dict().items()
    assert untrained["scores"].keys() == trained["scores"].keys()
    (listed,) = api.list_adapters()
    assert (listed["task"], listed["accuracy"]) == (task, None)
    assert listed["scores"].keys() == adapter.results.evaluation.scores.keys()
    entry = catalogue.find(adapter.name)
    board = board_table.render([entry], board_table.DEFAULT_COLUMNS)
    shown = comparison.Comparison(catalogue).answer(comparison.Query("superb film", "", adapter.name), None).table
    if task == "multi-label":
        assert "F1, micro" in board
        assert "is superb" in shown
    else:
        assert "Spearman correlation" in board
        assert f"label {answer.value:.4g}" in shown
        assert "%" not in fragments.verdict(answer)


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_the_word_that_decides_is_explained(adapter_for_task, engine, task):
    engine.add_folder(adapter_for_task(task))
    found = explain(engine, "superb film")
    weights = dict(found.words)
    assert weights["superb "] == max(weights.values())
    before, after = engine.predict(["superb film", "film"])
    expected = before.scores[found.label] - after.scores[found.label]
    assert weights["superb "] == pytest.approx(expected, abs=0.3 if task == "regression" else 0.02)
    assert ("value" in found.to_dict()) == (task == "regression")


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_a_limit_of_confidence_concerns_answers_that_have_one(adapter_for_task, engine, task):
    adapter = engine.add_folder(adapter_for_task(task))
    texts = ["superb awful film", "a film", "superb film", " "]
    scoring = batch.Scoring(pandas.DataFrame({"text": texts}), "text", adapter.labels, task=task)
    list(scoring.run(lambda chunk: engine.predict(chunk, adapter.name), threading.Event()))
    answers = engine.predict(texts[:3], adapter.name)
    if task == "regression":
        outcome = scoring.outcome(min_confidence=1.0)
        assert (outcome.abstained, "abstained" in outcome.frame) == (0, False)
        assert not answers[0].is_abstained(1.0)
    else:
        lowest = min(answers, key=lambda answer: answer.confidence)
        limit = sorted(answer.confidence for answer in answers)[1] - 1e-3
        outcome = scoring.outcome(min_confidence=limit)
        assert outcome.abstained == 1
        others = [answer for answer in answers if answer is not lowest]
        assert outcome.counts == {name: sum(name in a.labels for a in others) for name in adapter.labels}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_weights": "balanced"}, "class_weights balanced needs texts with one class each"),
        ({"metric": "accuracy"}, "metric accuracy is not measured for {task}: use --metric .*loss"),
    ],
)
@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_what_a_task_does_not_have_is_refused_before_training(
    task_file, recipe_for, tmp_path, monkeypatch, task, fields, message
):
    monkeypatch.chdir(tmp_path)
    recipe = recipe_for("full", dataset=str(task_file(task)), name="refused", n_train=None, **fields)
    monkeypatch.setattr(run, "fit", lambda job: pytest.fail("it is trained"))
    with pytest.raises(RecipeError, match=message.format(task=task)):
        run.train(recipe, tmp_path / "adapters")


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_other_data_are_for_single_labels(adapter_for_task, task_file, recipe_for, task):
    folder = adapter_for_task(task)
    recipe = recipe_for("full", dataset=str(task_file(task)), name=folder.name, n_train=None)
    with pytest.raises(RecipeError, match=f"is a {task} adapter: only single-label ones"):
        out_of_domain.measure(folder.name, recipe, folder.parent)


def test_numbers_of_pairs_are_read_and_their_batch_has_both_texts(tmp_path, recipe_for, adapter_for_task, engine):
    texts = sample.make(300)["text"].tolist()
    table = pandas.DataFrame({"sentence1": texts, "sentence2": texts[::-1]})
    table["score"] = numpy.random.default_rng(0).normal(size=len(table)).round(3)
    table.to_csv(tmp_path / "pairs.csv", index=False)
    recipe = recipe_for("full", dataset=str(tmp_path / "pairs.csv"), name="pairs", n_train=None, label_column="score")
    splits = load.load_splits(recipe)
    assert (splits.task, splits.facts.has_pairs) == ("regression", True)
    expected = {(first, second): score for first, second, score in table.itertuples(index=False)}
    for text, score in zip(splits.test["text"], splits.test["label"]):
        assert expected[text] == score
    scoring = batch.Scoring(table.head(3), "sentence1", ["text_pair"], pair_column="sentence2", task="regression")
    adapter = engine.add_folder(adapter_for_task("regression"))
    answer = engine.predict(["superb film"], adapter.name)[0]
    renamed = dataclasses.replace(answer, scores={"text_pair": answer.value})
    list(scoring.run(lambda chunk: [renamed] * len(chunk), threading.Event()))
    frame = scoring.outcome().frame
    assert frame["text_pair"].tolist() == table["sentence2"].tolist()[:3]
    assert frame["value"].tolist() == pytest.approx([answer.value] * 3)


def test_the_app_orders_adapters_of_any_task(adapter_for_task, tiny):
    found = [store.read(adapter_for_task(task), tiny) for task in ("multi-label", "regression")]
    best_first = sorted(found, key=app.best_measured_first)
    scores = [results.score_of(adapter.results, tasks.of(adapter.results).objective)[0] for adapter in best_first]
    assert scores == sorted(scores, reverse=True)
