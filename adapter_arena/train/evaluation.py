"""Metrics of an adapter as it is served: scores with intervals, calibration, slices, mistakes."""

import contextlib
import dataclasses
import hashlib
import json
import time

import numpy
import pandas
from scipy.special import softmax
from sklearn.metrics import confusion_matrix
from tqdm.auto import tqdm

from adapter_arena import files
from adapter_arena.data.load import Splits
from adapter_arena.files import cache_folder, sha256_of
from adapter_arena.models import compute
from adapter_arena.recipe import Recipe
from adapter_arena.results import Baseline, ClassMetrics, Evaluation, Example, Mistake, Results, Slice
from adapter_arena.serve.engine import Engine
from adapter_arena.stats import bootstrap, expected_calibration_error, fit_temperature, reliability, scores, wilson

EXCERPT = 100
"""Characters of a text that results and cards may show."""
_MISTAKES = 10
_CHUNK = 512


def evaluate(engine: Engine, name: str, splits: Splits, baseline: Baseline, share_texts: bool = False) -> Evaluation:
    """Score adapter `name` once on the test split; the temperature is fitted on the validation split.

    Excerpts of texts are recorded for public data, for local data only with `share_texts`.
    """
    engine.heat(name)  # as all but its first answers will be given
    validation = _logits(engine, name, splits.validation, "validation, as served")
    temperature = fit_temperature(validation, splits.validation["label"].to_numpy())
    start = time.perf_counter()
    logits = _logits(engine, name, splits.test, "test, as served")
    seconds = time.perf_counter() - start
    truth, probabilities = splits.test["label"].to_numpy(), softmax(logits / temperature, axis=1)
    correct, matrix = truth == logits.argmax(axis=1), _confusion(splits, logits)
    (precision, recall, f1), (low, high) = scores(matrix), bootstrap(matrix)
    rows = _rows(engine, name, splits, probabilities)
    shown = rows if share_texts or splits.facts.source in ("hub", "made") else rows.assign(text=None)
    return Evaluation(
        split="test",
        n=len(truth),
        served_as=engine.precision,
        compute=compute.name_of(engine.dtype),
        baseline=baseline,
        accuracy=float(correct.mean()),
        accuracy_ci95=list(wilson(int(correct.sum()), len(truth))),
        f1=float(f1[-1]),
        precision=float(precision[-1]),
        recall=float(recall[-1]),
        per_class={
            label: ClassMetrics(*map(float, (precision[i], recall[i], f1[i])), int(n), [low[2, i], high[2, i]])
            for i, (label, n) in enumerate(zip(splits.labels, matrix.sum(axis=1)))
        },
        confusion_matrix=matrix.tolist(),
        ece=expected_calibration_error(probabilities, truth),
        ece_uncalibrated=expected_calibration_error(softmax(logits, axis=1), truth),
        temperature=temperature,
        seconds=seconds,
        precision_ci95=[low[0, -1], high[0, -1]],
        recall_ci95=[low[1, -1], high[1, -1]],
        f1_ci95=[low[2, -1], high[2, -1]],
        mistakes=_mistakes(shown),
        examples=_examples(shown, splits.labels),
        slices=_slices(rows),
        reliability=reliability(probabilities, truth),
        correct=numpy.packbits(correct).tobytes().hex(),
        test_sha256=digest(splits),
    )


def measure_baseline(engine: Engine, splits: Splits, recipe: Recipe) -> Baseline:
    """Accuracy and macro F1 of the untrained base, its head drawn from the recipe's seed, on the test split.

    It is the same for every method, so it is measured once for each base, data, window and seed.
    """
    weights = engine.base.sha256 or sha256_of(engine.base.folder / "model.safetensors")
    key = json.dumps(
        [weights, digest(splits), splits.labels, recipe.max_length, recipe.seed, engine.precision, str(engine.dtype)]
    )
    path = cache_folder() / "baselines" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):  # not there, or damaged: it is measured
        return Baseline(**json.loads(path.read_text()))
    engine.add_untrained("untrained", splits.labels, recipe.seed, recipe.max_length)
    matrix = _confusion(splits, _logits(engine, "untrained", splits.test, "untrained baseline"))
    right, n = int(matrix.trace()), len(splits.test)
    found = Baseline(
        right / n,
        float(scores(matrix)[2, -1]),
        list(wilson(right, n)),
        bootstrap(matrix)[:, 2, -1].tolist(),
        matrix.tolist(),
    )
    files.write_cache(path, json.dumps(dataclasses.asdict(found)))
    return found


def digest(splits: Splits) -> str:
    """sha256 of the test labels and texts, in order."""
    rows = (f"{splits.labels[label]}\t{text}" for label, text in zip(splits.test["label"], splits.test["text"]))
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).hexdigest()


def is_of(found: Results, splits: Splits) -> bool:
    """Whether the results were trained and measured on these very rows."""
    same = (found.dataset.revision, found.dataset.splits) == (splits.facts.revision, splits.facts.splits)
    return same and found.evaluation.test_sha256 in (None, digest(splits))


def _confusion(splits: Splits, logits: numpy.ndarray) -> numpy.ndarray:
    return confusion_matrix(splits.test["label"], logits.argmax(axis=1), labels=range(len(splits.labels)))


def _logits(engine: Engine, name: str, frame: pandas.DataFrame, what: str) -> numpy.ndarray:
    """Raw logits in the order of `frame`, shape (rows, labels), with a bar while it takes."""
    texts = frame["text"].tolist()
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # like lengths share a batch
    chunks = [order[i : i + _CHUNK] for i in range(0, len(order), _CHUNK)]
    logits = numpy.empty((len(texts), len(engine.logits(texts[:1], name)[0])))
    with tqdm(total=len(texts), desc=what, unit="text", dynamic_ncols=True) as bar:
        for chunk in chunks:
            logits[chunk] = engine.logits([texts[i] for i in chunk], name).numpy()
            bar.update(len(chunk))
    return logits


def _share(correct: numpy.ndarray) -> tuple[float, list[float]]:
    """Accuracy and its interval."""
    return float(correct.mean()), list(wilson(int(correct.sum()), len(correct)))


def _rows(engine: Engine, name: str, splits: Splits, probabilities: numpy.ndarray) -> pandas.DataFrame:
    """The test rows with what the adapter made of each: truth, predicted (names), confidence, tokens, truncated."""
    encoded, names = engine.encode(splits.test["text"].tolist(), name), numpy.array(splits.labels, dtype=object)
    return pandas.DataFrame(
        {
            "text": splits.test["text"],
            "truth": names[splits.test["label"]],
            "predicted": names[probabilities.argmax(axis=1)],
            "confidence": probabilities.max(axis=1),
            "tokens": [len(row.ids) for row in encoded],
            "truncated": [row.truncated for row in encoded],
        }
    )


def _mistakes(rows: pandas.DataFrame) -> list[Mistake]:
    """The ten most confident wrong answers."""
    wrong = rows[rows["truth"] != rows["predicted"]].sort_values("confidence", ascending=False, kind="stable")
    first = wrong[:_MISTAKES].to_dict("index")
    return [Mistake(int(i), **row | {"text": excerpt(row["text"])}) for i, row in first.items()]


def _examples(rows: pandas.DataFrame, labels: list[str]) -> dict[str, Example]:
    """For each label the most confidently right text of those that an excerpt holds whole, else the shortest one."""
    right = rows[rows["truth"] == rows["predicted"]]
    length = right["text"].fillna("").str.len().clip(lower=EXCERPT)
    best = right.assign(length=length).sort_values(["length", "confidence"], ascending=[True, False], kind="stable")
    best = best.drop_duplicates("truth").reset_index().set_index("truth")
    return {
        label: Example(int(best["index"][label]), excerpt(best["text"][label]), float(best["confidence"][label]))
        for label in labels
        if label in best.index
    }


def excerpt(text: str | None) -> str | None:
    """At most 100 characters of a text on one line, ending in … when cut; what cannot be printed becomes a space."""
    if text is None:
        return None
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1].rstrip() + "…"


def _slices(rows: pandas.DataFrame) -> list[Slice]:
    """Accuracy by length in quarters of the rows, by whether the window held the text, and by confidence."""
    tokens, correct = rows["tokens"].to_numpy(), (rows["truth"] == rows["predicted"]).to_numpy()
    _, quarter = numpy.unique(
        numpy.searchsorted(numpy.quantile(tokens, (0.25, 0.5, 0.75)), tokens), return_inverse=True
    )
    bounds = [f"{tokens[quarter == q].min()}–{tokens[quarter == q].max()}" for q in range(quarter.max() + 1)]
    level = numpy.digitize(rows["confidence"], (0.5, 0.7, 0.9, 0.97))
    parts = {
        "tokens": (quarter, bounds),
        "window": (rows["truncated"].to_numpy(int), ["read whole", "cut"]),
        "confidence": (level, ["below 50 %", "50–70 %", "70–90 %", "90–97 %", "97–100 %"]),
    }
    return [
        Slice(by, name, int((group == i).sum()), *_share(correct[group == i]))
        for by, (group, names) in parts.items()
        for i, name in enumerate(names)
        if (group == i).any()
    ]
