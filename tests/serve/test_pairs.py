"""Pairs of texts: the same answer alone, in a batch, padded, packed and merged; refused for adapters of single texts."""

import dataclasses
import json
import threading

import gradio as gr
import pandas
import pytest
import torch
from conftest import SMALL_RUN
from pair_bases import PAIR, TEMPLATES, pair_base
from peft import LoraConfig, PeftModel
from plain_adapters import CONFIGS, plain_adapter
from transformers import AutoTokenizer, pipeline

import train_space
from adapter_arena import results
from adapter_arena.adapters import cards, export, store
from adapter_arena.data import sample
from adapter_arena.errors import RequestError
from adapter_arena.models import loading
from adapter_arena.serve import batch, parity, timing
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.explain import explain
from adapter_arena.ui.api import Api

PAIRS = [
    PAIR,
    ("fine", "The plot is awful and the ending a mess ."),
    ("The film is " + "superb " * 30, "the acting"),
    ("the acting", "The film is " + "superb " * 30),
]
LLAMA = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["score"])


@pytest.fixture(scope="module", params=TEMPLATES)
def family(request, tmp_path_factory):
    """The name of a family, an engine with an adapter `lora` on a base of it, and the adapter's folder."""
    place = tmp_path_factory.mktemp("pairs")
    base = pair_base(place / "base", request.param)
    folder = plain_adapter(base, LLAMA if request.param == "llama" else CONFIGS["lora"], place / "lora")
    one = Engine(base, dtype=torch.float32, merged_mb=100)
    one.add_folder(folder)
    yield request.param, one, folder
    one.close()


def alone(base, folder) -> torch.Tensor:
    """Return the logits of the adapter on a base of its own, from the tokenizer's own call."""
    model = loading.load_model(base, dtype=torch.float32)
    loading.reset_head(model, base.architecture, 2)
    model = PeftModel.from_pretrained(model, folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(base.id)
    with torch.inference_mode():
        return torch.cat([model(**tokenizer(*pair, return_tensors="pt")).logits.float() for pair in PAIRS])


def test_every_path_gives_the_answer_of_transformers(family, monkeypatch):
    name, one, folder = family
    wanted = alone(one.base, folder)
    singly = torch.cat([one.logits([pair], "lora") for pair in PAIRS])
    torch.testing.assert_close(singly, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.logits(PAIRS, "lora"), wanted, atol=1e-4, rtol=1e-4)
    with monkeypatch.context() as patch:
        patch.setattr(one, "_packs_inputs", False)
        torch.testing.assert_close(one.logits(PAIRS, "lora"), wanted, atol=1e-4, rtol=1e-4)
    assert one.merge("lora")
    torch.testing.assert_close(one.logits(PAIRS, "lora"), wanted, atol=1e-3, rtol=1e-3)
    mixed = one.logits([PAIRS[0], "a single text", PAIRS[2]], "lora")
    torch.testing.assert_close(mixed[[0, 2]], wanted[[0, 2]], atol=1e-3, rtol=1e-3)
    types = one.token_types(one.encode(PAIRS, "lora"))
    assert (types is not None) == (name == "bert")


@pytest.mark.parametrize("peft_type", ["prompt"])
def test_virtual_tokens_stand_before_pairs(family, tmp_path, peft_type):
    name, one, _ = family
    if name != "bert":
        pytest.skip("only BERT has token types")
    folder = plain_adapter(one.base, CONFIGS[peft_type], tmp_path / peft_type)
    one.add_folder(folder)
    torch.testing.assert_close(one.logits(PAIRS, peft_type), alone(one.base, folder), atol=1e-4, rtol=1e-4)


def test_a_long_pair_is_read_completely_in_windows(family):
    _, one, folder = family
    one.add(store.read(folder, one.base), max_length=20)
    (truncated,) = one.predict([PAIRS[2]], "lora")
    (complete,) = one.predict([PAIRS[2]], "lora", whole_text=True)
    one.add(store.read(folder, one.base))
    assert (truncated.truncated, complete.truncated) == (True, False)
    assert complete.tokens > 40 > truncated.tokens == 20


def test_words_of_both_texts_are_explained(family):
    _, one, _ = family
    found = explain(one, PAIR, "lora")
    assert "".join(word for word, _ in found.words) == PAIR[0]
    assert "".join(word for word, _ in found.words_pair) == PAIR[1]
    label = one.get("lora").adapter.labels.index(found.label)
    probabilities = one.get("lora").scores(one.logits([PAIR, ("The acting superb .", PAIR[1])], "lora"))
    change = float(probabilities[0, label] - probabilities[1, label])
    assert found.words[2] == ("is ", pytest.approx(change, abs=1e-3))
    shorter = one.get("lora").scores(one.logits([(PAIR[0], "the film is ")], "lora"))
    assert found.words_pair[-1] == (
        "awful",
        pytest.approx(float(probabilities[0, label] - shorter[0, label]), abs=1e-3),
    )
    long_pair = (PAIRS[2][0] * 3, PAIR[1])
    assert sum(weight != 0 for _, weight in explain(one, long_pair, "lora").words) > 10


def as_trained_on(columns, folder, trained, base):
    """Return the adapter with results that say it was trained on these text columns."""
    found = results.read(trained)
    found.dataset = dataclasses.replace(found.dataset, text_columns=columns)
    return dataclasses.replace(store.read(folder, base), results=found)


@pytest.mark.parametrize(
    ("columns", "text", "reason"),
    [
        (["a", "b"], "one text", r"lora classifies pairs of texts \(a and b\)\. Send the second one as text_pair"),
        (["a"], PAIR, r"lora classifies single texts, not pairs\. Leave out the second text"),
        (["a", "b"], (" ", "fine"), "The first text of the pair is empty"),
        (["a", "b"], ("fine", ""), "The second text of the pair is empty"),
        (["a", "b"], ("fine", 5), "A pair must be two strings"),
        (["a", "b"], ("one", "two", "three"), "A pair must be two strings"),
    ],
)
def test_wrong_texts_are_refused_in_one_line(family, trained, columns, text, reason):
    _, one, folder = family
    one.register(as_trained_on(columns, folder, trained, one.base))
    (answer,) = one.predict([text], "lora")
    assert isinstance(answer, RequestError)
    with pytest.raises(RequestError, match=reason):
        raise answer
    with pytest.raises(RequestError, match=reason):
        explain(one, text, "lora")
    one.register(store.read(folder, one.base))


def test_the_api_sends_pairs_and_lists_of_pairs(family):
    _, one, _ = family
    api = Api(Catalogue(one))
    label, confidence = api.predict(PAIR[0], "lora", False, PAIR[1])["label"], one.predict([PAIR], "lora")[0].confidence
    assert label == one.predict([PAIR], "lora")[0].label
    answers = api.predict_batch([list(PAIR), ["fine", ""], PAIR[0]], "lora")
    assert answers[0]["confidence"] == pytest.approx(confidence, abs=1e-3)
    assert "second text of the pair is empty" in answers[1]["error"]
    assert answers[2]["tokens"] < answers[0]["tokens"]
    assert set(api.explain(PAIR[0], "lora", PAIR[1])) == {"label", "confidence", "words", "words_pair"}
    assert set(api.explain(PAIR[0], "lora")) == {"label", "confidence", "words"}
    assert {row["tokens"] for row in api.compare(*PAIR)} == {answers[0]["tokens"]}
    with pytest.raises(gr.Error, match="The first text of the pair is empty"):
        api.predict(" ", "lora", False, PAIR[1])


def test_a_file_of_pairs_is_trained_served_scored_and_exported(work, capsys):
    """From a file to every way of asking: the answers are equal."""
    base = pair_base(work / "base", "bert")
    texts = sample.make(240)
    frame = pandas.DataFrame(
        {"premise": texts["text"], "hypothesis": texts["text"][::-1].tolist(), "label": texts["label"]}
    )
    frame.to_csv("pairs.csv", index=False)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in (SMALL_RUN | {"dataset": "pairs.csv"}).items()]
    assert train_space.main([*flags, "--base-model", base.id, "--name", "pairs", "--max-length=64"]) == 0
    printed = capsys.readouterr().out
    assert "pair 'premise' and 'hypothesis', label 'label'" in printed
    folder = work / "adapters" / "pairs"
    found = results.read(folder)
    assert found.dataset.text_columns == ["premise", "hypothesis"]
    assert found.base_model.pair_separator is None

    served = Engine(base, dtype=torch.float32)
    adapter = served.add_folder(folder)
    pairs = list(frame[["premise", "hypothesis"]].itertuples(index=False, name=None))[:20]
    answers = served.predict(pairs)
    confidences = [answer.confidence for answer in answers]
    scoring = batch.Scoring(frame.head(20), "premise", adapter.labels, "label", pair_column="hypothesis")
    list(scoring.run(served.predict, threading.Event()))
    outcome = scoring.outcome()
    assert outcome.frame["confidence"].tolist() == pytest.approx(confidences, abs=1e-3)
    assert outcome.frame["text_pair"].tolist() == [second for _, second in pairs]
    assert outcome.comparison.n == 20
    (timed,) = served.predict([timing.text_for(adapter)])
    assert timed.adapter == "pairs"

    exported = export.write(adapter, base, work / "out")
    assert parity.largest_difference(exported, adapter, base, pairs) < 0.02
    classify = pipeline("text-classification", str(exported), top_k=None)
    asked = [{"text": first, "text_pair": second} for first, second in pairs]
    for answer, scores in zip(answers, classify(asked)):
        assert {row["label"]: row["score"] for row in scores} == pytest.approx(answer.scores, abs=0.02)
    assert train_space.main(["--export", "pairs", "--base-model", base.id]) == 0
    assert (
        'pipeline("text-classification", "exports/pairs")({"text": "first", "text_pair": "second"})'
        in capsys.readouterr().out
    )
    assert train_space.main(["--evaluate", "pairs", "--dataset", "pairs.csv", "--base-model", base.id]) == 0

    found.evaluation.examples = {"good": results.Example(1, "A text.", 0.9, 'Another "text".')}
    snippets = cards.snippets(found)
    assert "tokenizer(text, text_pair, truncation=True" in snippets["peft"]
    assert '{"text": "A text.", "text_pair": "Another \\"text\\"."}' in snippets["pipeline"]
    assert json.loads(snippets["curl"].split(" -d ")[1].strip("'"))["data"][2:] == [False, 'Another "text".']
    found.base_model.pair_separator = "<eos>"
    assert 'tokenizer(text + "<eos>" + text_pair' in cards.snippets(found)["peft"]
