"""Baselines without fine-tuning: known answers on made data, the probe against scikit-learn, and the caches."""

import dataclasses

import numpy
import pandas
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel

from adapter_arena.data.load import Splits
from adapter_arena.data.rows import Rows
from adapter_arena.models import bases, tokens
from adapter_arena.results import DatasetFacts, unpack_rows
from adapter_arena.serve.engine import Engine
from adapter_arena.train import baselines, embeddings, linear

NOISE = ["alpha", "bravo", "delta", "echo", "golf", "hotel", "india", "kilo", "lima", "mike"]


@pytest.fixture(scope="module")
def engine(tiny):
    """An engine with the tiny base."""
    engine = Engine(tiny)
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache of the test's own, so that nothing is read that another test has measured."""
    monkeypatch.setenv("ARENA_CACHE", str(tmp_path))


def keyword_rows(n: int, seed: int, keywords=("yes", "no")) -> pandas.DataFrame:
    """Return texts of random words of which one, anywhere, decides the label; a fifth of the labels are 1."""
    rng = numpy.random.default_rng(seed)
    texts = []
    labels = []
    for row in range(n):
        label = int(row % 5 == 0)
        words = [*rng.choice(NOISE, rng.integers(3, 6)), keywords[label]]
        texts.append(" ".join(rng.permutation(words)))
        labels.append(label)
    return pandas.DataFrame({"text": texts, "label": labels})


def splits_of(train: pandas.DataFrame, validation: pandas.DataFrame, test: pandas.DataFrame) -> Splits:
    return Splits(Rows.from_frame(train), validation, test, ["no", "yes"], DatasetFacts("d", "r", "made"))


@pytest.fixture
def keyword_splits() -> Splits:
    return splits_of(keyword_rows(100, 1), keyword_rows(40, 2), keyword_rows(60, 3))


def test_tfidf_finds_a_keyword_and_the_majority_class_does_not(engine, keyword_splits, recipe_for):
    measured = baselines.measure(engine, keyword_splits, recipe_for("lora"))
    assert list(measured) == ["majority", "tfidf", "probe"]
    majority, tfidf = measured["majority"], measured["tfidf"]
    assert majority.accuracy == 0.8
    assert majority.f1 == pytest.approx(0.8 / 1.8)  # F1 of the one class 1.6 / 1.8, of the other 0
    assert (tfidf.accuracy, tfidf.f1) == (1.0, 1.0)
    assert tfidf.accuracy_ci95[0] == pytest.approx(0.9398, abs=1e-4)  # Wilson, 60 of 60
    assert majority.f1_ci95[0] < majority.f1 < majority.f1_ci95[1] < 0.5
    assert unpack_rows(majority.correct, 60).tolist() == (keyword_splits.test["label"] == 0).tolist()
    assert all(row.seconds > 0 and row.train_rows == 100 for row in measured.values())


def test_tfidf_learns_from_train_and_not_from_test(engine, recipe_for):
    shuffled = keyword_rows(100, 1)
    shuffled["label"] = numpy.random.default_rng(0).permutation(shuffled["label"])
    found = baselines.measure(engine, splits_of(shuffled, keyword_rows(40, 2), keyword_rows(60, 3)), recipe_for("lora"))
    assert found["tfidf"].accuracy < 0.95


def test_probe_is_scikit_learns_on_the_same_features(engine, keyword_splits, recipe_for):
    recipe = recipe_for("lora")
    probe = baselines.measure(engine, keyword_splits, recipe)["probe"]
    parts = [keyword_splits.train, *map(Rows.from_frame, (keyword_splits.validation, keyword_splits.test))]
    train, validation, test = (embeddings.embed(engine, rows, recipe.max_length, "x").values for rows in parts)
    scaler = StandardScaler().fit(train)
    models = []
    for c in baselines._PROBE_C:
        models.append(LogisticRegression(C=c, max_iter=2000).fit(scaler.transform(train), parts[0].labels))
    best = max(models, key=lambda model: model.score(scaler.transform(validation), parts[1].labels))
    assert probe.c == best.C
    expected = best.predict(scaler.transform(test)) == parts[2].labels
    assert unpack_rows(probe.correct, 60).tolist() == expected.tolist()


def test_c_is_the_best_on_validation_and_the_smallest_of_equals():
    rng = numpy.random.default_rng(0)
    features = linear.Features(rng.normal(size=(30, 60)), rng.normal(size=(400, 60)), rng.normal(size=(400, 60)))
    train, validation = ((part[:, 0] > 0).astype(int) for part in (features.train, features.validation))
    chosen = linear.best_answers("single-label", (1e-9, 1e-3, 1.0), features, train, validation)
    models = {}
    for value in (1e-9, 1e-3, 1.0):
        models[value] = LogisticRegression(C=value, max_iter=500).fit(features.train, train)
    best = max(models, key=lambda value: models[value].score(features.validation, validation))
    assert chosen.c == best
    assert chosen.answers.tolist() == models[best].predict(features.test).tolist()
    separable = numpy.array([[-1.0], [1.0]] * 5)
    labels = numpy.array([0, 1] * 5)
    equal = linear.Features(separable, separable, separable)
    assert linear.best_answers("single-label", (0.1, 1.0, 10.0), equal, labels, labels).c == 0.1


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "modernbert"])
def test_embeddings_are_the_means_of_transformers_last_states(base_of, model_type):
    engine = Engine(base_of(model_type), "fp32")
    texts = ["the acting is superb", "a mess", "the plot and the cast are dull", "fine", "so bad"]
    rows = Rows.from_frame(pandas.DataFrame({"text": texts, "label": [0] * 5}))
    found = embeddings.embed(engine, rows, 64, "x").values
    model = AutoModel.from_pretrained(bases.locate(engine.base)).eval()
    for encoded, row in zip(tokens.encode(engine.tokenizer, texts, 64), found):
        with torch.no_grad():
            states = model(torch.tensor([encoded.ids]))[0]
        assert row == pytest.approx(states[0].mean(0).numpy(), abs=1e-4)
    engine.close()


def test_baselines_of_the_same_data_and_base_are_computed_once(engine, keyword_splits, recipe_for, monkeypatch):
    first = baselines.measure(engine, keyword_splits, recipe_for("lora"))
    computed = []
    monkeypatch.setattr(baselines, "_tfidf", lambda *_: computed.append("tfidf") or {})
    monkeypatch.setattr(embeddings, "_compute", None)  # embeddings are in the cache too
    for method in ("ia3", "full"):
        assert baselines.measure(engine, keyword_splits, recipe_for(method, seed=7)) == first
    assert computed == []
    changed = dataclasses.replace(keyword_splits, train=dataclasses.replace(keyword_splits.train, labels=1 - keyword_splits.train.labels))  # fmt: skip
    baselines.measure(engine, changed, recipe_for("lora"))
    assert computed == ["tfidf"]


def test_test_rows_are_embedded_once_for_every_number_of_training_rows(engine, recipe_for, monkeypatch):
    validation, test = keyword_rows(40, 2), keyword_rows(60, 3)
    baselines.measure(engine, splits_of(keyword_rows(100, 1), validation, test), recipe_for("lora"))
    sizes = []
    compute = embeddings._compute

    def count(engine, rows, *rest):
        sizes.append(len(rows))
        return compute(engine, rows, *rest)

    monkeypatch.setattr(embeddings, "_compute", count)
    baselines.measure(engine, splits_of(keyword_rows(20, 1), validation, test), recipe_for("lora"))
    assert sizes == [20]


def test_a_damaged_cache_is_measured_again(engine, keyword_splits, recipe_for, tmp_path):
    first = baselines.measure(engine, keyword_splits, recipe_for("lora"))
    for path in [*tmp_path.glob("baselines/*.json"), *tmp_path.glob("embeddings/*.npz")]:
        path.write_bytes(path.read_bytes()[:40])
    again = baselines.measure(engine, keyword_splits, recipe_for("lora"))
    assert [row.correct for row in again.values()] == [row.correct for row in first.values()]


def test_rows_over_the_limit_are_drawn_over_the_classes_and_counted(
    engine, keyword_splits, recipe_for, monkeypatch, capsys
):
    monkeypatch.setattr(baselines, "TFIDF_ROWS", 30)
    monkeypatch.setattr(baselines, "PROBE_ROWS", 20)
    measured = baselines.measure(engine, keyword_splits, recipe_for("lora"))
    capsys.readouterr()
    assert {name: row.train_rows for name, row in measured.items()} == {"majority": 100, "tfidf": 30, "probe": 20}
    drawn = baselines._at_most(keyword_splits.train, 30, 42, "single-label")
    assert numpy.bincount(drawn.labels).tolist() == [15, 15]
    complete = keyword_splits.train.frame()
    assert drawn.frame()["label"].tolist() == complete.loc[drawn.index, "label"].tolist()
    baselines.print_scores(measured, keyword_splits)
    assert "(20 of 100 training rows, C " in capsys.readouterr().out.splitlines()[2]


def test_what_cannot_be_trained_is_left_out_with_a_line(engine, recipe_for, capsys):
    train, validation, test = keyword_rows(50, 1), keyword_rows(40, 2), keyword_rows(60, 3)
    one_label = train[train["label"] == 0].reset_index(drop=True)
    assert list(baselines.measure(engine, splits_of(one_label, validation, test), recipe_for("lora"))) == ["majority"]
    assert "since all training rows have one label" in capsys.readouterr().out
    signs = train.assign(text=[f"{'!' * (1 + row)} ?" for row in range(50)])
    found = baselines.measure(engine, splits_of(signs, validation, test), recipe_for("lora"))
    assert list(found) == ["majority", "probe"]
    assert "TF-IDF + logistic regression: left out, since the training texts have no words" in capsys.readouterr().out
