"""The sentence above the answers, from made results."""

import dataclasses

import numpy
import pytest
from conftest import ROOT

from adapter_arena import results
from adapter_arena.results import Constant, Scale, Score, SimpleBaseline
from adapter_arena.ui import headline

N = 2000
TITLES = {"lora": "LoRA", "qlora": "QLoRA", "full": "Full fine-tuning", "ia3": "IA³", "dora": "DoRA", "vera": "VeRA"}


def rows(n_correct: int, first: int = 0) -> numpy.ndarray:
    """Return which of N test rows are answered correctly: `n_correct` of them from `first` on, past the end from 0."""
    correct = numpy.zeros(N, dtype=bool)
    correct[(first + numpy.arange(n_correct)) % N] = True
    return correct


def made(right: numpy.ndarray, weights: int = 800_000, **fields) -> results.Results:
    """Return results of a single-label adapter of `films`; `fields` are those of the evaluation."""
    shipped = results.read(ROOT / "adapters" / "minilm-imdb-lora")
    accuracy = float(right.mean())
    evaluation = dataclasses.replace(
        shipped.evaluation,
        n=N,
        accuracy=accuracy,
        accuracy_ci95=[accuracy - 0.01, accuracy + 0.01],
        **({"correct": results.pack_rows(right), "test_sha256": "same", "baselines": {}} | fields),
    )
    return dataclasses.replace(
        shipped,
        dataset=dataclasses.replace(shipped.dataset, id="films"),
        training=dataclasses.replace(shipped.training, trainable_params=weights),
        evaluation=evaluation,
    )


def of_task(task: str, metric: str, value: float, interval: list[float]) -> results.Results:
    """Return results of a multi-label adapter or of a regression of pairs."""
    found = made(rows(1000), correct=None)
    constant = Constant("mean", {metric: Score(0.125, [0.1, 0.2])})
    evaluation = dataclasses.replace(
        found.evaluation, scores={metric: Score(value, interval)}, untrained={}, constant=constant
    )
    pairs = dataclasses.replace(found.dataset, text_columns=["first", "second"])
    return dataclasses.replace(found, task=task, evaluation=evaluation, scale=Scale(0.0, 1.0), dataset=pairs)


def sentence(**found: results.Results) -> str:
    return headline.sentence(found, TITLES)


def test_adapters_that_cannot_be_told_apart_and_the_price_of_a_cheaper_one():
    found = sentence(
        full=made(rows(1835), 22_700_000),
        qlora=made(rows(1840)),
        ia3=made(rows(1790), 160_000),
        lora=made(rows(1838)),
    )
    assert found == (
        "QLoRA, LoRA and full fine-tuning cannot be told apart on 2,000 texts of films; "
        "IA³ costs 2.5 points and trains a fifth of QLoRA's weights."
    )


def test_an_equal_adapter_that_is_cheaper_has_no_cost():
    found = sentence(full=made(rows(1840), 22_700_000), lora=made(rows(1838), 800_000))
    assert found == (
        "Full fine-tuning and LoRA cannot be told apart on 2,000 texts of films; "
        "LoRA trains 3.5 % of full fine-tuning's weights."
    )


def test_all_equal_adapters_are_counted_if_they_are_many():
    found = sentence(**{name: made(rows(1840)) for name in TITLES})
    assert found.endswith(" and 3 others cannot be told apart on 2,000 texts of films.")
    assert found.count(",") == 3


def test_every_two_of_the_best_cannot_be_told_apart():
    # IA³ cannot be told apart from QLoRA, but from LoRA: it is right on a part of LoRA's rows.
    lora = rows(1840)
    lora[:60] = False
    lora[1840:1898] = True
    ia3 = lora.copy()
    ia3[100:115] = False
    found = sentence(qlora=made(rows(1840)), ia3=made(ia3))
    assert found == "QLoRA and IA³ cannot be told apart on 2,000 texts of films."
    found = sentence(qlora=made(rows(1840)), lora=made(lora), ia3=made(ia3))
    assert found == "QLoRA and LoRA cannot be told apart on 2,000 texts of films."


def test_the_best_of_several_and_its_lead():
    found = sentence(qlora=made(rows(1900)), lora=made(rows(1800)), ia3=made(rows(1700), 80_000))
    assert found == (
        "QLoRA is the most accurate of 3 tested on the same 2,000 texts of films, 5.0 points ahead of LoRA; "
        "IA³ costs 10.0 points and trains a tenth of its weights."
    )
    found = sentence(qlora=made(rows(1900)), full=made(rows(1800), 22_700_000))
    assert found == "QLoRA is 5.0 points ahead of full fine-tuning on 2,000 texts of films."


@pytest.mark.parametrize(("correct", "points"), [(1820, "1.0 point"), (1822, "0.9 points")])
def test_points_agree_with_their_number(correct, points):
    assert f"is {points} ahead of" in sentence(qlora=made(rows(1840)), lora=made(rows(correct)))


def test_nothing_is_claimed_without_a_paired_test():
    found = sentence(qlora=made(rows(1840), correct=None), lora=made(rows(1700), correct=None))
    assert found == (
        "QLoRA scores highest, 92.0 % on 2,000 texts of films, and its 95 % interval is above that of LoRA."
    )
    found = sentence(qlora=made(rows(1840), correct=None), lora=made(rows(1830), correct=None))
    assert found.endswith("but the 95 % interval of LoRA overlaps.")
    found = sentence(qlora=made(rows(1840), test_sha256="one"), lora=made(rows(1600), test_sha256="two"))
    assert found.endswith("92.0 % on 2,000 texts of films, but LoRA was not tested on the same texts.")


def test_adapters_tested_on_other_rows_are_left_out():
    found = sentence(
        vera=made(rows(1990), test_sha256="another"),
        qlora=made(rows(1840)),
        lora=made(rows(1838)),
        ia3=made(rows(1839)),
    )
    assert found.startswith("QLoRA, IA³ and LoRA cannot be told apart")
    assert "VeRA" not in found


def baseline(correct: numpy.ndarray) -> SimpleBaseline:
    accuracy = float(correct.mean())
    return SimpleBaseline(
        accuracy=accuracy,
        accuracy_ci95=[accuracy, accuracy],
        f1=0.5,
        f1_ci95=[0.5, 0.5],
        seconds=1.0,
        train_rows=100,
        correct=results.pack_rows(correct),
        c=1.0,
    )


def test_one_adapter_and_its_baselines():
    assert sentence(lora=made(rows(1828))) == "LoRA scores 91.4 % on 2,000 texts of films."
    tfidf = {"majority": baseline(rows(1000)), "tfidf": baseline(rows(1750))}
    found = sentence(lora=made(rows(1828), baselines=tfidf))
    assert found == "LoRA scores 91.4 % on 2,000 texts of films; TF-IDF is 3.9 points below it."
    found = sentence(lora=made(rows(1828), baselines={"tfidf": baseline(rows(1829))}))
    assert found.endswith("; TF-IDF cannot be told apart from it.")
    found = sentence(lora=made(rows(1828), baselines={"tfidf": baseline(rows(1950))}))
    assert found.endswith("; TF-IDF is 6.1 points above it.")
    found = sentence(lora=made(rows(1840), baselines=tfidf), qlora=made(rows(1839)))
    assert found.endswith("cannot be told apart on 2,000 texts of films; TF-IDF is 4.5 points below LoRA.")


def test_other_tasks_have_intervals_but_no_tests():
    best = of_task("regression", "spearmanr", 0.87, [0.85, 0.89])
    found = sentence(lora=best, full=of_task("regression", "spearmanr", 0.84, [0.82, 0.86]))
    assert found == (
        "LoRA scores highest, 0.870 (Spearman correlation) on 2,000 pairs of films, "
        "but the 95 % interval of full fine-tuning overlaps."
    )
    found = sentence(lora=of_task("multi-label", "f1", 0.46, [0.44, 0.48]))
    assert found == "LoRA scores 0.460 (F1, macro) on 2,000 pairs of films; the most frequent label scores 0.125."
    measured = of_task("multi-label", "f1", 0.46, [0.44, 0.48])
    scores = {"f1": Score(0.31, [0.3, 0.32])}
    measured.evaluation.baselines = {"tfidf": SimpleBaseline(seconds=1.0, train_rows=99, scores=scores)}
    assert sentence(lora=measured).endswith("films; TF-IDF scores 0.310.")


def test_a_column_tells_what_the_texts_are():
    found = made(rows(1840))
    found.dataset.text_columns = ["Review"]
    assert sentence(lora=found) == "LoRA scores 92.0 % on 2,000 reviews of films."


def test_without_results_there_is_no_sentence():
    assert headline.sentence({}, {}) == ""
    assert headline.of_entries([]) == ""
