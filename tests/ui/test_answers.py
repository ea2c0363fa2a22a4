"""The rows of Compare, who disagrees, and the choice of adapters, from made answers."""

import dataclasses
import re
from pathlib import Path

import pytest
from conftest import ROOT

from adapter_arena import results
from adapter_arena.adapters.store import Adapter
from adapter_arena.results import Example
from adapter_arena.serve.catalogue import UNTRAINED
from adapter_arena.serve.entries import Answer, Entry
from adapter_arena.serve.explain import Explanation
from adapter_arena.serve.served import Prediction
from adapter_arena.ui import answers, details, examples, scopes


def entry(name: str, accuracy: float | None = 0.9, dataset: str = "imdb", method: str = "lora", **fields) -> Entry:
    found = None
    if accuracy is not None:
        found = results.read(ROOT / "adapters" / "minilm-imdb-lora")
        found.dataset.id = dataset
        found.evaluation = dataclasses.replace(found.evaluation, accuracy=accuracy)
    adapter = Adapter(name, Path(), method, "base/mini", ["negative", "positive"], found, size=3_300_000)
    return Entry(name, adapter, **fields)


def answer(name: str, label: str = "positive", confidence: float = 0.95, error: str | None = None) -> Answer:
    other = "negative" if label == "positive" else "positive"
    scores = {label: confidence, other: 1 - confidence}
    prediction = Prediction(label, confidence, dict(sorted(scores.items())), name, tokens=12, truncated=False)
    return Answer(name, name, "lora", None if error else prediction, error, 14.6, 0.9, 1000, 3.3)


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html)).strip()


LORA, QLORA, IA3, FULL = (
    entry("a", method="lora"),
    entry("b", method="qlora"),
    entry("c", method="ia3"),
    entry("d", method="full"),
)


def test_rows_that_disagree_are_marked_and_named():
    found = answers.rows([LORA, QLORA, IA3], [answer("a"), answer("b"), answer("c", "negative")])
    assert [row.is_odd for row in found] == [False, False, True]
    assert text_of(answers.summary(found)) == "IA³ says negative; the other 2 say positive."
    found = answers.rows([LORA, QLORA], [answer("a"), answer("b")])
    assert text_of(answers.summary(found)) == "All 2 adapters agree: positive."


def test_a_split_has_no_odd_rows():
    given = [answer("a"), answer("b"), answer("c", "negative"), answer("d", "negative")]
    found = answers.rows([LORA, QLORA, IA3, FULL], given)
    assert not any(row.is_odd for row in found)
    said = text_of(answers.summary(found))
    assert said == "The adapters are split: LoRA and QLoRA say positive; IA³ and Full fine-tuning say negative."


def test_the_untrained_base_has_no_vote_and_is_the_last_row():
    given = [answer(UNTRAINED, "negative"), answer("a"), answer("b", "negative")]
    found = answers.rows([LORA, QLORA], given)
    assert not any(row.is_odd for row in found)
    table = answers.table(found, given[0], "a")
    body, _, foot = table.partition("</tbody>")
    assert "Untrained base" not in body
    assert "Untrained base" in foot
    assert 'data-chosen="a"' in table


def test_numbers_have_a_range_instead_of_a_majority():
    given = []
    for name, value in (("a", 1.5), ("b", 2.25)):
        prediction = Prediction(str(value), None, {"score": value}, name, 12, False, value=value)
        given.append(dataclasses.replace(answer(name), prediction=prediction))
    found = answers.rows([LORA, QLORA], given)
    assert text_of(answers.summary(found)) == "The answers are from 1.5 to 2.25."
    assert "score 2.25" in answers.table(found)


def test_a_table_without_answers_has_the_same_rows():
    pending = answers.table(answers.rows([LORA, IA3]), answers.untrained_pending())
    answered = answers.table(answers.rows([LORA, IA3], [answer("a"), answer("c")]), answer(UNTRAINED))
    assert pending.count("<tr") == answered.count("<tr") == 4
    assert pending.count("<td") == answered.count("<td")
    assert "skeleton" in pending
    assert "skeleton" not in answered


def test_an_adapter_whose_base_is_not_loaded_shows_the_price():
    far = entry('x"<b>', loads_base=True, base_to_load_mb=498.4)
    table = answers.table(answers.rows([LORA, far], [answer("a")], {"a": "It <b>failed</b>."}))
    assert 'data-load="x&quot;&lt;b&gt;"' in table
    assert "mini, 498 MB" in table
    assert "It &lt;b&gt;failed&lt;/b&gt;." in table
    assert "498 MB" in details.not_loaded(far, "LoRA")


def test_details_have_the_words_the_labels_and_the_facts():
    explanation = Explanation("World", 0.7, [("A ", 0.0), ("<i>war", 0.4)])
    scores = {"World": 0.7, "Sports": 0.2, "Business": 0.1}
    prediction = Prediction("World", 0.7, scores, "a", tokens=1234, truncated=True)
    shown = details.render(LORA, "LoRA", prediction, explanation)
    assert "&lt;i&gt;war" in shown
    assert shown.count('<span class="share">') == 3
    assert "1,234" in shown
    assert "truncated in the middle" in shown
    assert "base/mini" in shown
    assert "too long" in details.render(LORA, "LoRA", prediction, "The text is too long.")


def test_alike_adapters_are_told_apart_by_their_names():
    twins = [entry("one", 0.9), entry("two", 0.8)]
    assert [row.title for row in answers.rows(twins)] == ["one", "two"]
    apart = [entry("one", dataset="imdb"), entry("two", dataset="amazon")]
    assert [row.title for row in answers.rows(apart)] == ["LoRA · imdb", "LoRA · amazon"]


# ------------------------------------------------------------ scopes and examples


@pytest.fixture
def entries() -> list[Entry]:
    return [entry("n", 0.7, "agnews"), entry("a", 0.8), entry("b", 0.9), entry("hub", None)]


def test_the_first_scope_is_the_data_set_with_the_most_adapters(entries):
    assert [label for label, _ in scopes.choices(entries)][:2] == ["imdb: 2 adapters", "All 4 adapters"]
    assert scopes.default(entries) == scopes.of_dataset("imdb")
    assert scopes.default(entries[:1]) == "n"
    assert scopes.default([]) is None


def test_a_scope_has_its_adapters_the_best_first(entries):
    assert [found.name for found in scopes.chosen(entries, scopes.of_dataset("imdb"))] == ["b", "a"]
    assert [found.name for found in scopes.chosen(entries, scopes.ALL)] == ["b", "a", "n", "hub"]
    assert [found.name for found in scopes.chosen(entries, "n")] == ["n"]
    assert [found.name for found in scopes.chosen(entries, "removed")] == ["b", "a"]


def test_examples_fit_the_labels():
    news = entry("n", dataset="agnews")
    labels = ["World", "Sports"]
    news.results.evaluation.examples = {label: Example(1, f"A text of {label}.", 0.9) for label in labels}
    news = dataclasses.replace(news, adapter=dataclasses.replace(news.adapter, labels=labels))
    recorded = examples.of_entries([news])
    assert recorded == {"World": "A text of World.", "Sports": "A text of Sports."}
    assert examples.of_entries([LORA]) is examples.REVIEWS
    text = examples.REVIEWS["Mixed"]
    assert examples.is_from_elsewhere(text, recorded, [news, LORA])
    assert not examples.is_from_elsewhere(text, examples.REVIEWS, [news, LORA])
    assert not examples.is_from_elsewhere("My own text.", recorded, [news, LORA])


def test_examples_of_pairs_have_two_texts():
    pair = entry("p")
    pair.results.dataset.text_columns = ["first", "second"]
    pair.results.evaluation.examples.clear()
    found = examples.of_entries([pair])
    assert all(isinstance(text, tuple) for text in found.values())
    assert 'data-pair="On Sundays the shop is closed."' in examples.buttons(found)
