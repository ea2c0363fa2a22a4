"""Each task from a file to the exported model, on a tiny base."""

import json

import numpy
import pandas
import pytest

from adapter_arena import results
from adapter_arena.adapters import export, store
from adapter_arena.data import sample
from adapter_arena.serve import parity
from adapter_arena.serve.engine import Engine

WORDS = ["superb", "awful"]


@pytest.fixture(scope="session")
def task_file(shared):
    """Return a function that writes a file whose labels follow from the words of its texts."""

    def write(task: str):
        texts = sample.make(500)["text"].tolist()
        generator = numpy.random.default_rng(0)
        given = generator.random((len(texts), 2)) < 0.4
        words = [" ".join(word for word, has in zip(WORDS, row) if has) for row in given]
        texts = [f"{found} {text}" for found, text in zip(words, texts)]
        if task == "multi-label":
            labels = [json.dumps([f"is {word}" for word, has in zip(WORDS, row) if has]) for row in given]
        else:
            labels = 50 + 10 * given[:, 0] - 20 * given[:, 1] + generator.normal(size=len(texts)).round(2)
        path = shared / f"{task}.csv"
        if not path.is_file():
            pandas.DataFrame({"text": texts, "label": labels}).to_csv(path, index=False)
        return path

    return write


@pytest.fixture(scope="session")
def adapter_for_task(task_file, recipe_for, train_once):
    def train(task: str):
        recipe = recipe_for(
            "full",
            dataset=str(task_file(task)),
            name=f"tiny-{task}",
            n_train=None,
            n_validation=60,
            n_test=80,
            epochs=4,
            learning_rate=2e-3,
        )
        return train_once(recipe)

    return train


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
