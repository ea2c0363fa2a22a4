"""Baselines without fine-tuning for several labels and numbers: known answers, scikit-learn's, and what is recorded."""

import numpy
import pandas
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from adapter_arena import results, task_scores
from adapter_arena.data.load import Splits
from adapter_arena.data.rows import Rows
from adapter_arena.results import DatasetFacts, unpack_answers
from adapter_arena.serve.engine import Engine
from adapter_arena.train import baselines, embeddings, linear

NOISE = ["alpha", "bravo", "delta", "echo", "golf", "hotel", "india", "kilo", "lima", "mike"]
LABELS = ["warm", "loud", "rare"]
SIZES = {"train": 120, "validation": 60, "test": 70}


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


def rows(n: int, seed: int, task: str) -> pandas.DataFrame:
    """Return texts of random words: `warm` and `loud` are given by words, and numbers are 10 for one and -3 for the other.

    The label `rare` is given at random, and to no training row.
    """
    generator = numpy.random.default_rng(seed)
    texts = []
    labels = []
    for _ in range(n):
        has = generator.random(2) < (0.4, 0.2)
        keywords = [name for name, given in zip(LABELS, has) if given]
        texts.append(" ".join(generator.permutation([*generator.choice(NOISE, 4), *keywords])))
        if task == "regression":
            labels.append(100 + 10 * has[0] - 3 * has[1] + generator.normal(0, 0.01))
        else:
            is_rare = n != SIZES["train"] and generator.random() < 0.1
            labels.append(tuple(numpy.flatnonzero([*has, is_rare]).tolist()))
    return pandas.DataFrame(
        {"text": texts, "label": pandas.Series(labels, dtype=float if task == "regression" else object)}
    )


def splits_of(task: str) -> Splits:
    frames = {split: rows(n, seed, task) for seed, (split, n) in enumerate(SIZES.items())}
    names = ["score"] if task == "regression" else LABELS
    train = Rows.from_frame(frames["train"])
    return Splits(train, frames["validation"], frames["test"], names, DatasetFacts("d", "r", "made"), task=task)


def test_words_that_decide_labels_are_found(engine, recipe_for, capsys):
    splits = splits_of("multi-label")
    measured = baselines.measure(engine, splits, recipe_for("lora"))
    assert list(measured) == ["tfidf", "probe"]
    tfidf = measured["tfidf"]
    predicted = unpack_answers(tfidf.predicted, "multi-label", 70, 3)
    truth = splits.targets(splits.test["label"].to_numpy()).astype(bool)
    assert (predicted[:, :2] == truth[:, :2]).mean() > 0.9
    for name, average in (("f1", "macro"), ("f1_micro", "micro")):
        assert tfidf.scores[name].value == pytest.approx(f1_score(truth, predicted, average=average))
    assert (tfidf.accuracy, tfidf.correct, tfidf.train_rows) == (None, None, 120)
    assert tfidf.seconds > 0
    capsys.readouterr()
    baselines.print_scores(measured, splits)
    assert capsys.readouterr().out.startswith("TF-IDF + logistic regression: F1, macro 0.")


def test_words_that_decide_numbers_are_found(engine, recipe_for, capsys):
    splits = splits_of("regression")
    measured = baselines.measure(engine, splits, recipe_for("lora"))
    tfidf = measured["tfidf"]
    predicted = unpack_answers(tfidf.predicted, "regression", 70, 1)
    truth = splits.test["label"].to_numpy()
    assert tfidf.scores["spearmanr"].value == pytest.approx(spearmanr(predicted, truth).statistic, abs=1e-4)
    assert tfidf.scores["pearsonr"].value > 0.9
    assert tfidf.scores["mae"].value < 2
    capsys.readouterr()
    baselines.print_scores(measured, splits)
    assert capsys.readouterr().out.splitlines()[1].startswith("Frozen base + ridge regression: Spearman correlation ")


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_probe_is_scikit_learns_on_the_same_features(engine, recipe_for, task):
    splits = splits_of(task)
    recipe = recipe_for("lora")
    probe = baselines.measure(engine, splits, recipe)["probe"]
    parts = [splits.train, *map(Rows.from_frame, (splits.validation, splits.test))]
    embedded = [embeddings.embed(engine, part, recipe.max_length, "x").values for part in parts]
    scaler = StandardScaler().fit(embedded[0])
    train, validation, test = map(scaler.transform, embedded)
    found = unpack_answers(probe.predicted, task, 70, len(splits.labels))
    if task == "regression":
        model = Ridge(alpha=1 / (2 * probe.c)).fit(train, parts[0].labels)
        assert found == pytest.approx(model.predict(test), abs=1e-3)
        return
    targets = [splits.targets(part.labels).astype(bool) for part in parts]
    known = targets[0].any(axis=0)
    assert known.tolist() == [True, True, False]
    model = OneVsRestClassifier(LogisticRegression(C=probe.c, max_iter=500)).fit(
        train, targets[0][:, known].astype(int)
    )
    thresholds = task_scores.best_thresholds(model.predict_proba(validation), targets[1][:, known])
    assert (found[:, known] == (model.predict_proba(test) >= thresholds)).all()


def test_c_is_the_one_with_the_best_score_of_the_task_on_validation():
    generator = numpy.random.default_rng(0)
    features = linear.Features(*(generator.normal(size=(n, 40)) for n in (50, 300, 10)))
    for task in ("multi-label", "regression"):
        truths = []
        for part in (features.train, features.validation):
            noisy = part[:, :2] + generator.normal(size=(len(part), 2))
            truths.append(noisy[:, 0] if task == "regression" else noisy > 0.5)
        values = (1e-5, 1e-2, 10.0)
        scores = {}
        for c in values:
            only = linear.best_answers(task, (c,), dataclass_with_test(features), *truths)
            if task == "regression":
                scores[c] = spearmanr(only.answers, truths[1]).statistic
            else:
                scores[c] = f1_score(truths[1], only.answers, average="macro")
        assert linear.best_answers(task, values, features, *truths).c == max(scores, key=scores.get)


def dataclass_with_test(features: linear.Features) -> linear.Features:
    """Return features whose test rows are those of validation, to see the answers to them."""
    return linear.Features(features.train, features.validation, features.validation)


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_they_are_measured_once_and_rows_over_the_limit_are_drawn(engine, recipe_for, monkeypatch, task):
    splits = splits_of(task)
    first = baselines.measure(engine, splits, recipe_for("lora"))
    monkeypatch.setattr(baselines, "_tfidf", None)
    assert baselines.measure(engine, splits, recipe_for("full", seed=7)) == first
    drawn = baselines._at_most(splits.train, 30, 42, task)
    assert len(drawn) == 30
    assert drawn.labels.tolist() == splits.train.labels[drawn.index].tolist()


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_a_training_records_them(adapter_for_task, task):
    found = results.read(adapter_for_task(task))
    assert list(found.evaluation.baselines) == ["tfidf", "probe"]
    objective = "spearmanr" if task == "regression" else "f1"
    assert found.evaluation.baselines["tfidf"].scores[objective].value > 0.7
    card = (adapter_for_task(task) / "README.md").read_text()
    for title, baseline in results.trained_baselines(found).items():
        assert f"{title} (trained on {baseline.train_rows:,} texts, C {baseline.c:g} chosen on validation" in card
        assert f"| {baseline.scores[objective].value:.3f} ({baseline.scores[objective].ci95[0]:.3f} to" in card
