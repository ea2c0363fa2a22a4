"""Evaluation of an adapter as it is served: scores with intervals, calibration, slices, mistakes and examples."""

import contextlib
import dataclasses
import hashlib
import json
import time
from pathlib import Path

import numpy
import pandas
from scipy.special import softmax
from sklearn.metrics import confusion_matrix
from tqdm.auto import tqdm

from adapter_arena import abstention, files, tasks
from adapter_arena.data.load import Splits
from adapter_arena.files import cache_folder
from adapter_arena.models import bases, compute, weights
from adapter_arena.recipe import Recipe
from adapter_arena.results import Baseline, ClassMetrics, Evaluation, Example, Mistake, Results, Slice, pack_rows
from adapter_arena.serve.engine import Engine
from adapter_arena.stats import (
    bootstrap,
    expected_calibration_error,
    fit_temperature,
    majority,
    reliability,
    scores,
    wilson,
)
from adapter_arena.texts import Text, length, parts

EXCERPT = 100
"""Most characters of a text in results and cards."""
_MISTAKES = 10
_CHUNK = 512
"""Texts sent to the engine at a time."""
_CONFIDENCE_BOUNDS = (0.5, 0.7, 0.9, 0.97)
_CONFIDENCE_NAMES = ["below 50 %", "50–70 %", "70–90 %", "90–97 %", "97–100 %"]
_PUBLIC_SOURCES = ("hub", "made")


def evaluate(engine: Engine, name: str, splits: Splits, baseline: Baseline, share_texts: bool = False) -> Evaluation:
    """Score adapter `name` once on the test split, with a temperature fitted on the validation split.

    Excerpts of texts are recorded for public data, and for local data only with `share_texts`.
    """
    engine.merge(name)  # adapters in demand are served merged
    validation_logits = logits_of(engine, name, splits.validation, "validation, as served")
    temperature = fit_temperature(validation_logits, splits.validation["label"].to_numpy())
    start = time.perf_counter()
    logits = logits_of(engine, name, splits.test, "test, as served")
    seconds = time.perf_counter() - start

    truth = splits.test["label"].to_numpy()
    probabilities = softmax(logits / temperature, axis=1)
    correct = truth == logits.argmax(axis=1)
    accuracy, accuracy_ci95 = _accuracy(correct)
    matrix = _confusion(splits, logits)
    precision, recall, f1 = scores(matrix)
    precision_ci95, recall_ci95, f1_ci95 = _score_intervals(matrix)
    rows = _answers(engine, name, splits, probabilities)
    is_shared = share_texts or splits.facts.source in _PUBLIC_SOURCES
    shared_rows = rows if is_shared else rows.assign(text=None)
    return Evaluation(
        split="test",
        n=len(truth),
        served_as=engine.precision,
        compute=compute.name_of(engine.dtype),
        baseline=baseline,
        accuracy=accuracy,
        accuracy_ci95=accuracy_ci95,
        f1=float(f1[-1]),
        f1_ci95=f1_ci95[-1],
        precision=float(precision[-1]),
        precision_ci95=precision_ci95[-1],
        recall=float(recall[-1]),
        recall_ci95=recall_ci95[-1],
        majority=majority(matrix, splits.labels),
        per_class=_per_class(splits.labels, matrix, f1_ci95),
        confusion_matrix=matrix.tolist(),
        ece=expected_calibration_error(probabilities, truth),
        ece_uncalibrated=expected_calibration_error(softmax(logits, axis=1), truth),
        temperature=temperature,
        seconds=seconds,
        mistakes=_mistakes(shared_rows),
        examples=_examples(shared_rows, splits.labels),
        slices=_slices(rows),
        reliability=reliability(probabilities, truth),
        abstention=abstention.curve(probabilities.max(axis=1), correct),
        correct=pack_rows(correct),
        test_sha256=digest(splits),
    )


def served_logits(engine: Engine, name: str, splits: Splits) -> numpy.ndarray:
    """Return the logits of adapter `name` on the test split as it is served, shape (rows, labels)."""
    engine.merge(name)
    return logits_of(engine, name, splits.test, "test, as served")


def measure_baseline(engine: Engine, splits: Splits, recipe: Recipe) -> Baseline:
    """Return the scores on the test split of the untrained base, its head drawn from the recipe's seed.

    They do not depend on the method, so they are cached for each base, data, window and seed.
    """
    path = baseline_cache(engine, splits, recipe)
    with contextlib.suppress(OSError, ValueError, TypeError):  # missing or damaged: measured again
        return Baseline(**json.loads(path.read_text()))
    engine.add_untrained("untrained", splits.labels, recipe.seed, recipe.max_length)
    matrix = _confusion(splits, logits_of(engine, "untrained", splits.test, "untrained baseline"))
    correct = int(matrix.trace())
    n = len(splits.test)
    _, _, f1 = scores(matrix)
    _, _, f1_ci95 = _score_intervals(matrix)
    baseline = Baseline(
        accuracy=correct / n,
        f1=float(f1[-1]),
        accuracy_ci95=list(wilson(correct, n)),
        f1_ci95=f1_ci95[-1],
        confusion_matrix=matrix.tolist(),
    )
    files.write_cache(path, json.dumps(dataclasses.asdict(baseline)))
    return baseline


def describe_baseline(baseline: Baseline) -> str:
    """Return the scores in one line."""
    return f"accuracy {baseline.accuracy:.1%}, F1 {baseline.f1:.3f}"


def baseline_cache(engine: Engine, splits: Splits, recipe: Recipe) -> Path:
    weights_sha256 = engine.base.sha256 or weights.sha256(bases.locate(engine.base))
    inputs = [weights_sha256, digest(splits), splits.labels, recipe.max_length, recipe.seed]
    if splits.task != tasks.SINGLE_LABEL:  # thresholds are chosen on validation
        inputs += [splits.task, _digest(splits, splits.validation)]
    key = json.dumps([*inputs, engine.precision, str(engine.dtype)])
    return cache_folder() / "baselines" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def digest(splits: Splits) -> str:
    """Return the sha256 of the test labels and texts, in order."""
    return _digest(splits, splits.test)


def _digest(splits: Splits, frame: pandas.DataFrame) -> str:
    labels = frame["label"]
    if splits.task == tasks.SINGLE_LABEL:
        labels = [splits.labels[label] for label in labels]
    rows = []
    for label, text in zip(labels, frame["text"]):
        rows.append("\t".join([str(label), *parts(text)]))
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).hexdigest()


def is_of(found: Results, splits: Splits) -> bool:
    """Return whether the results were measured on exactly these test rows of the same data set.

    Versions clean training rows differently, so their number matters only if the test rows' digest was not recorded.
    """
    if found.dataset.revision != splits.facts.revision:
        return False
    if found.evaluation.test_sha256 is None:
        return found.dataset.splits == splits.facts.splits
    return found.evaluation.test_sha256 == digest(splits)


def _confusion(splits: Splits, logits: numpy.ndarray) -> numpy.ndarray:
    """Return the confusion matrix of the test split, shape (labels, labels), with a row for each true label."""
    return confusion_matrix(splits.test["label"], logits.argmax(axis=1), labels=range(len(splits.labels)))


def logits_of(engine: Engine, name: str, frame: pandas.DataFrame, description: str) -> numpy.ndarray:
    """Return the logits in the order of `frame`, shape (rows, labels), and show a progress bar meanwhile."""
    texts = frame["text"].tolist()
    longest_first = sorted(range(len(texts)), key=lambda index: -length(texts[index]))  # similar lengths share a batch
    n_labels = len(engine.logits(texts[:1], name)[0])
    logits = numpy.empty((len(texts), n_labels))
    with tqdm(total=len(texts), desc=description, unit="text", dynamic_ncols=True) as bar:
        for start in range(0, len(texts), _CHUNK):
            chunk = longest_first[start : start + _CHUNK]
            logits[chunk] = engine.logits([texts[index] for index in chunk], name).numpy()
            bar.update(len(chunk))
    return logits


def _accuracy(correct: numpy.ndarray) -> tuple[float, list[float]]:
    """Return the accuracy and its 95 % interval; `correct` is bool, shape (n,)."""
    return float(correct.mean()), list(wilson(int(correct.sum()), len(correct)))


def _score_intervals(matrix: numpy.ndarray) -> list[list[list[float]]]:
    """Return the 95 % intervals of precision, recall and F1, each [low, high] per label and, last, of the mean."""
    low, high = bootstrap(matrix)
    return numpy.stack([low, high], axis=-1).tolist()


def _per_class(labels: list[str], matrix: numpy.ndarray, f1_ci95: list[list[float]]) -> dict[str, ClassMetrics]:
    precision, recall, f1 = scores(matrix).tolist()
    rows_of_label = matrix.sum(axis=1)
    metrics = {}
    for index, label in enumerate(labels):
        metrics[label] = ClassMetrics(
            precision=precision[index],
            recall=recall[index],
            f1=f1[index],
            n=int(rows_of_label[index]),
            f1_ci95=f1_ci95[index],
        )
    return metrics


def _answers(engine: Engine, name: str, splits: Splits, probabilities: numpy.ndarray) -> pandas.DataFrame:
    """Return the test rows with the label names `truth` and `predicted`, `confidence`, `tokens` and `truncated`."""
    texts = splits.test["text"]
    encoded = engine.encode(texts.tolist(), name)
    names = numpy.array(splits.labels, dtype=object)
    return pandas.DataFrame(
        {
            "text": texts,
            "truth": names[splits.test["label"]],
            "predicted": names[probabilities.argmax(axis=1)],
            "confidence": probabilities.max(axis=1),
            "tokens": [len(row.ids) for row in encoded],
            "truncated": [row.truncated for row in encoded],
        }
    )


def _mistakes(rows: pandas.DataFrame) -> list[Mistake]:
    wrong = rows[rows["truth"] != rows["predicted"]]
    wrong = wrong.sort_values("confidence", ascending=False, kind="stable")
    mistakes = []
    for index, row in wrong[:_MISTAKES].to_dict("index").items():
        row["text"], row["text_pair"] = _excerpts(row["text"])
        mistakes.append(Mistake(row=int(index), **row))
    return mistakes


def _examples(rows: pandas.DataFrame, labels: list[str]) -> dict[str, Example]:
    """Return, for each label, the most confident correct answer to a text that fits an excerpt.

    If there is none, return the correct answer to the shortest text.
    """
    correct = rows[rows["truth"] == rows["predicted"]]
    lengths = [max(EXCERPT, length(text or "")) for text in correct["text"]]
    correct = correct.assign(length=lengths)
    correct = correct.sort_values(["length", "confidence"], ascending=[True, False], kind="stable")
    examples = {}
    for label in labels:
        for index, row in correct[correct["truth"] == label][:1].to_dict("index").items():
            text, text_pair = _excerpts(row["text"])
            examples[label] = Example(int(index), text, row["confidence"], text_pair)
    return examples


def _excerpts(text: Text | None) -> tuple[str | None, str | None]:
    """Return the excerpt of a text, and that of the second text of a pair."""
    if text is None or isinstance(text, str):
        return excerpt(text), None
    first, second = text
    return excerpt(first), excerpt(second)


def excerpt(text: str | None) -> str | None:
    """Return at most 100 characters of a text, on one line and ending in … if truncated.

    Characters that cannot be printed are replaced with spaces.
    """
    if text is None:
        return None
    printable = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(printable.split())
    if len(line) <= EXCERPT:
        return line
    return line[: EXCERPT - 1].rstrip() + "…"


def _slices(rows: pandas.DataFrame) -> list[Slice]:
    """Return the accuracy by quarter of the lengths, by whether the text was truncated, and by confidence."""
    correct = (rows["truth"] == rows["predicted"]).to_numpy()
    quarter, quarter_names = _length_quarters(rows["tokens"].to_numpy())
    truncated = rows["truncated"].to_numpy(int)
    confidence = numpy.digitize(rows["confidence"], _CONFIDENCE_BOUNDS)
    return [
        *_slices_by("tokens", quarter, quarter_names, correct),
        *_slices_by("window", truncated, ["complete", "truncated"], correct),
        *_slices_by("confidence", confidence, _CONFIDENCE_NAMES, correct),
    ]


def _length_quarters(tokens: numpy.ndarray) -> tuple[numpy.ndarray, list[str]]:
    """Return the quarter of each row and the name of each, such as `12–40`; equal lengths share a quarter."""
    bounds = numpy.quantile(tokens, (0.25, 0.5, 0.75))
    _, quarter = numpy.unique(numpy.searchsorted(bounds, tokens), return_inverse=True)
    names = []
    for index in range(quarter.max() + 1):
        lengths = tokens[quarter == index]
        names.append(f"{lengths.min()}–{lengths.max()}")
    return quarter, names


def _slices_by(by: str, group: numpy.ndarray, names: list[str], correct: numpy.ndarray) -> list[Slice]:
    """Return the accuracy in each group that has rows; `group` is the index in `names` of each row."""
    slices = []
    for index, name in enumerate(names):
        rows = group == index
        if rows.any():
            accuracy, interval = _accuracy(correct[rows])
            slices.append(Slice(by, name, int(rows.sum()), accuracy, interval))
    return slices
