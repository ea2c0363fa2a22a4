"""Baselines without fine-tuning, from scikit-learn, on the rows that an adapter is trained and measured on.

They say what fine-tuning buys. They do not depend on the method, so they are measured once for each base and data.
"""

import contextlib
import dataclasses
import hashlib
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy
import pandas
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.preprocessing import StandardScaler

from adapter_arena import files, stats, tasks
from adapter_arena.data.load import Splits
from adapter_arena.data.rows import Rows
from adapter_arena.data.splits import balanced
from adapter_arena.recipe import Recipe
from adapter_arena.results import BASELINE_TITLES, SimpleBaseline, pack_rows
from adapter_arena.serve.engine import Engine
from adapter_arena.texts import parts
from adapter_arena.train import embeddings

TFIDF_ROWS = 50_000
"""Most training rows of TF-IDF, whose 1- and 2-grams are counted in memory."""
PROBE_ROWS = 10_000
"""Most training rows of the probe: its cost is a forward pass for each."""
_MOST_NGRAMS = 200_000
_TFIDF_C = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_PROBE_C = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
_ITERATIONS = 500
_CACHE_VERSION = 1


def measure(engine: Engine, splits: Splits, recipe: Recipe) -> dict[str, SimpleBaseline]:
    """Return the baselines by their key in BASELINE_TITLES, from the cache if these data were measured before.

    One that cannot be trained on these rows is left out, with a printed line. There are none for other tasks than
    single-label.
    """
    if splits.task != tasks.SINGLE_LABEL:
        return {}
    path = _cache_path(engine, splits, recipe)
    with contextlib.suppress(OSError, ValueError, TypeError):  # missing or damaged: measured again
        cached = json.loads(path.read_text())
        return {name: SimpleBaseline(**fields) for name, fields in cached.items()}
    measured = {"majority": _majority(splits)}
    if len(numpy.unique(splits.train.labels)) < 2:
        print("baselines TF-IDF and frozen base: left out, since all training rows have one label", flush=True)
    else:
        measured |= _tfidf(splits, recipe)
        measured["probe"] = _probe(engine, splits, recipe)
    content = {name: dataclasses.asdict(baseline) for name, baseline in measured.items()}
    files.write_cache(path, json.dumps(content))
    return measured


def print_scores(measured: dict[str, SimpleBaseline], n_train: int) -> None:
    """Print a line for each baseline: its scores, how many of the `n_train` training rows it used, and its cost."""
    for name, baseline in measured.items():
        line = f"{BASELINE_TITLES[name]}: accuracy {baseline.accuracy:.1%}, F1 {baseline.f1:.3f}"
        if baseline.c is not None:
            rows = f"{baseline.train_rows:,}"
            if baseline.train_rows < n_train:
                rows += f" of {n_train:,}"
            line += f" ({rows} training rows, C {baseline.c:g}, {baseline.seconds:,.0f} s)"
        print(line, flush=True)


def _cache_path(engine: Engine, splits: Splits, recipe: Recipe) -> Path:
    parts = [_CACHE_VERSION, *embeddings.base_key(engine), recipe.max_length, recipe.data_seed, splits.labels]
    for rows in _all_rows(splits):
        labels = hashlib.sha256(rows.labels.astype(numpy.int64).tobytes()).hexdigest()
        parts += [embeddings.rows_key(rows), labels]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return files.cache_folder() / "baselines" / f"simple-{digest[:32]}.json"


def _all_rows(splits: Splits) -> tuple[Rows, Rows, Rows]:
    """Return the rows of train, validation and test."""
    return splits.train, Rows.from_frame(splits.validation), Rows.from_frame(splits.test)


def _majority(splits: Splits) -> SimpleBaseline:
    """Return the scores of the most frequent label of the test rows, the best answer that no text can change."""
    start = time.perf_counter()
    truth = splits.test["label"].to_numpy()
    predicted = numpy.full(len(truth), numpy.bincount(truth).argmax())
    return _scored(splits, predicted, len(splits.train), None, time.perf_counter() - start)


def _tfidf(splits: Splits, recipe: Recipe) -> dict[str, SimpleBaseline]:
    """Return the baseline on words and pairs of words of the complete texts, or nothing if there are no words."""
    start = time.perf_counter()
    train = _at_most(splits.train, TFIDF_ROWS, recipe.data_seed)
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, max_features=_MOST_NGRAMS, token_pattern=r"(?u)\b\w+\b"
    )
    try:
        train_features = vectorizer.fit_transform(_texts(train))
    except ValueError:  # scikit-learn's for an empty vocabulary
        print(f"baseline {BASELINE_TITLES['tfidf']}: left out, since the training texts have no words", flush=True)
        return {}
    _, validation, test = _all_rows(splits)
    model, c = _best_model(
        _TFIDF_C, train_features, train.labels, vectorizer.transform(_texts(validation)), validation.labels
    )
    predicted = model.predict(vectorizer.transform(_texts(test)))
    return {"tfidf": _scored(splits, predicted, len(train), c, time.perf_counter() - start)}


def _probe(engine: Engine, splits: Splits, recipe: Recipe) -> SimpleBaseline:
    """Return the baseline on the embeddings by the frozen base of texts in the adapter's window."""
    train = _at_most(splits.train, PROBE_ROWS, recipe.data_seed)
    _, validation, test = _all_rows(splits)

    def embed(rows: Rows, split: str) -> embeddings.Embeddings:
        return embeddings.embed(engine, rows, recipe.max_length, f"frozen base, {split}")

    embedded = [embed(train, "train"), embed(validation, "validation"), embed(test, "test")]
    start = time.perf_counter()
    scaler = StandardScaler().fit(embedded[0].values)
    train_features, validation_features, test_features = (scaler.transform(part.values) for part in embedded)
    model, c = _best_model(_PROBE_C, train_features, train.labels, validation_features, validation.labels)
    predicted = model.predict(test_features)
    seconds = time.perf_counter() - start + sum(part.seconds for part in embedded)
    return _scored(splits, predicted, len(train), c, seconds)


def _best_model(
    values: tuple[float, ...],
    train_features: Any,
    train_labels: numpy.ndarray,
    validation_features: Any,
    validation_labels: numpy.ndarray,
) -> tuple[LogisticRegression, float]:
    """Return the logistic regression of the best accuracy on validation, and its C, the smallest of several."""
    best = None
    best_accuracy = -1.0
    for c in values:
        model = LogisticRegression(C=c, max_iter=_ITERATIONS)
        with warnings.catch_warnings():
            # A large C may need more iterations; validation decides whether the model is good as it is.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train_features, train_labels)
        accuracy = model.score(validation_features, validation_labels)
        if accuracy > best_accuracy:
            best = model
            best_accuracy = accuracy
    return best, best.C


def _at_most(rows: Rows, limit: int, seed: int) -> Rows:
    """Return the rows, or `limit` of them spread over the classes."""
    if len(rows) <= limit:
        return rows
    frame = pandas.DataFrame({"label": rows.labels, "position": numpy.arange(len(rows))})
    chosen = balanced(frame, limit, seed)["position"].to_numpy()
    return dataclasses.replace(rows, index=rows.index[chosen], labels=rows.labels[chosen])


def _texts(rows: Rows) -> list[str]:
    return ["\n".join(parts(text)) for batch in rows.iter_texts() for text in batch]


def _scored(
    splits: Splits, predicted: numpy.ndarray, train_rows: int, c: float | None, seconds: float
) -> SimpleBaseline:
    truth = splits.test["label"].to_numpy()
    correct = predicted == truth
    matrix = confusion_matrix(truth, predicted, labels=range(len(splits.labels)))
    _, _, f1 = stats.scores(matrix)
    _, _, f1_ci95 = numpy.moveaxis(stats.bootstrap(matrix)[:, :, -1], 0, -1).tolist()
    return SimpleBaseline(
        accuracy=float(correct.mean()),
        accuracy_ci95=list(stats.wilson(int(correct.sum()), len(truth))),
        f1=float(f1[-1]),
        f1_ci95=f1_ci95,
        seconds=seconds,
        train_rows=train_rows,
        correct=pack_rows(correct),
        c=c,
    )
