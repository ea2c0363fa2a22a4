"""Baselines without fine-tuning, from scikit-learn, on the rows that an adapter is trained and measured on.

They say what fine-tuning buys. They do not depend on the method, so they are measured once for each base and data.
"""

import contextlib
import dataclasses
import hashlib
import json
import time
from pathlib import Path

import numpy
import pandas
from pydantic import TypeAdapter
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import confusion_matrix
from sklearn.preprocessing import StandardScaler

from adapter_arena import files, stats, task_scores, tasks
from adapter_arena.data.load import Splits
from adapter_arena.data.rows import Rows
from adapter_arena.data.splits import draw
from adapter_arena.recipe import Recipe
from adapter_arena.results import SimpleBaseline, baseline_titles, pack_answers, pack_rows, score_in
from adapter_arena.serve.engine import Engine
from adapter_arena.texts import parts
from adapter_arena.train import embeddings, linear
from adapter_arena.train.task_evaluation import truth_of

TFIDF_ROWS = 50_000
"""Most training rows of TF-IDF, whose 1- and 2-grams are counted in memory."""
PROBE_ROWS = 10_000
"""Most training rows of the probe: its cost is a forward pass for each."""
_MOST_NGRAMS = 200_000
_TFIDF_C = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_PROBE_C = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
_C_OF_RIDGE = {"tfidf": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0), "probe": (1e-6, 1e-5, 0.0001, 0.001, 0.01, 0.1)}
_CACHE_VERSION = 1
_CACHED = TypeAdapter(dict[str, SimpleBaseline])


def measure(engine: Engine, splits: Splits, recipe: Recipe) -> dict[str, SimpleBaseline]:
    """Return the baselines by their key in BASELINE_TITLES, from the cache if these data were measured before.

    One that cannot be trained on these rows is left out, with a printed line. The majority class is single-label only.
    """
    path = _cache_path(engine, splits, recipe)
    with contextlib.suppress(OSError, ValueError):  # missing or damaged: measured again
        return _CACHED.validate_json(path.read_bytes())
    measured = {}
    if splits.task == tasks.SINGLE_LABEL:
        measured["majority"] = _majority(splits)
    targets = truth_of(splits, splits.train.labels)
    if (targets == targets[0]).all():
        print("baselines TF-IDF and frozen base: left out, since all training rows have one label", flush=True)
    else:
        measured |= _tfidf(splits, recipe)
        measured["probe"] = _probe(engine, splits, recipe)
    content = {name: dataclasses.asdict(baseline) for name, baseline in measured.items()}
    files.write_cache(path, json.dumps(content))
    return measured


def print_scores(measured: dict[str, SimpleBaseline], splits: Splits) -> None:
    """Print a line for each baseline: its scores, how many of the training rows it used, and its cost."""
    task = tasks.TASKS[splits.task]
    titles = baseline_titles(task.name)
    n_train = len(splits.train)
    for name, baseline in measured.items():
        scores = []
        for metric in task.table_metrics:
            value, _ = score_in(baseline, metric)
            if value is not None:
                scores.append(f"{metric.heading} {metric.write(value)}")
        line = f"{titles[name]}: {', '.join(scores)}"
        if baseline.c is not None:
            rows = f"{baseline.train_rows:,}"
            if baseline.train_rows < n_train:
                rows += f" of {n_train:,}"
            line += f" ({rows} training rows, C {baseline.c:g}, {baseline.seconds:,.0f} s)"
        print(line, flush=True)


def _cache_path(engine: Engine, splits: Splits, recipe: Recipe) -> Path:
    key = [_CACHE_VERSION, *embeddings.base_key(engine), recipe.max_length, recipe.data_seed, splits.labels]
    for rows in _all_rows(splits):
        labels = hashlib.sha256(truth_of(splits, rows.labels).tobytes()).hexdigest()
        key += [embeddings.rows_key(rows), labels]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
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
    train = _at_most(splits.train, TFIDF_ROWS, recipe.data_seed, splits.task)
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, max_features=_MOST_NGRAMS, token_pattern=r"(?u)\b\w+\b"
    )
    try:
        train_features = vectorizer.fit_transform(_texts(train))
    except ValueError:  # scikit-learn's for an empty vocabulary
        title = baseline_titles(splits.task)["tfidf"]
        print(f"baseline {title}: left out, since the training texts have no words", flush=True)
        return {}
    _, validation, test = _all_rows(splits)
    features = linear.Features(
        train_features, vectorizer.transform(_texts(validation)), vectorizer.transform(_texts(test))
    )
    chosen = _best_answers("tfidf", splits, features, train)
    return {"tfidf": _scored(splits, chosen.answers, len(train), chosen.c, time.perf_counter() - start)}


def _probe(engine: Engine, splits: Splits, recipe: Recipe) -> SimpleBaseline:
    """Return the baseline on the embeddings by the frozen base of texts in the adapter's window."""
    train = _at_most(splits.train, PROBE_ROWS, recipe.data_seed, splits.task)
    _, validation, test = _all_rows(splits)

    def embed(rows: Rows, split: str) -> embeddings.Embeddings:
        return embeddings.embed(engine, rows, recipe.max_length, f"frozen base, {split}")

    embedded = [embed(train, "train"), embed(validation, "validation"), embed(test, "test")]
    start = time.perf_counter()
    scaler = StandardScaler().fit(embedded[0].values)
    features = linear.Features(*(scaler.transform(part.values) for part in embedded))
    chosen = _best_answers("probe", splits, features, train)
    seconds = time.perf_counter() - start + sum(part.seconds for part in embedded)
    return _scored(splits, chosen.answers, len(train), chosen.c, seconds)


def _best_answers(key: str, splits: Splits, features: linear.Features, train: Rows) -> linear.Chosen:
    values = {"tfidf": _TFIDF_C, "probe": _PROBE_C}
    if splits.task == tasks.REGRESSION:
        values = _C_OF_RIDGE
    validation = truth_of(splits, splits.validation["label"].to_numpy())
    return linear.best_answers(splits.task, values[key], features, truth_of(splits, train.labels), validation)


def _at_most(rows: Rows, limit: int, seed: int, task: str) -> Rows:
    """Return the rows, or `limit` of them: spread over the classes, or at random if rows have no one class."""
    if len(rows) <= limit:
        return rows
    frame = pandas.DataFrame({"label": rows.labels, "position": numpy.arange(len(rows))})
    chosen = draw(frame, limit, seed, task)["position"].to_numpy()
    return dataclasses.replace(rows, index=rows.index[chosen], labels=rows.labels[chosen])


def _texts(rows: Rows) -> list[str]:
    return ["\n".join(parts(text)) for batch in rows.iter_texts() for text in batch]


def _scored(splits: Splits, answers: numpy.ndarray, train_rows: int, c: float | None, seconds: float) -> SimpleBaseline:
    truth = truth_of(splits, splits.test["label"].to_numpy())
    if splits.task != tasks.SINGLE_LABEL:
        scores, _ = task_scores.measure(splits.task, answers, truth, splits.labels)
        return SimpleBaseline(
            scores=scores, predicted=pack_answers(answers), seconds=seconds, train_rows=train_rows, c=c
        )
    correct = answers == truth
    matrix = confusion_matrix(truth, answers, labels=range(len(splits.labels)))
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
