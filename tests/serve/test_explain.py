import random
import threading
from itertools import pairwise

import pytest
import torch
from conftest import ROOT, SIZES, make_base
from peft import LoraConfig
from plain_adapters import CONFIGS, plain_adapter

from adapter_arena.errors import RequestError
from adapter_arena.models import bases, loading, quantise, tokens
from adapter_arena.recipe import DEFAULT_BASE
from adapter_arena.serve import explain
from adapter_arena.serve.engine import Engine

TEXT = "The acting is superb , the plot is awful and the ending a mess ."
LONG = " ".join(
    ["The actors come and go , and the film is long ."] * 12 + ["The ending is awful ."] + ["It is a film ."] * 8
)
STRANGE = {
    "emoji": "🎬🍿 a film 👍🏽 from 🇩🇪 👩‍👩‍👧!",
    "right to left": "الفيلم رائع جدا، أنصح به! הסרט נהדר",
    "no spaces": "这部电影很好看。映画はすごい!",
    "lines": "\n\n  The film\r\n\tis fine .\n",
    "no words": "... !?",
    "controls": "\x00\x01 fine \ud800 lone",
    "one word": "superb",
    "one million characters": "The acting is superb . " * 43_500,
    "one word of a million": "a" * 1_000_000,
}


def lora(base: bases.Base) -> LoraConfig:
    architecture = base.architecture
    return LoraConfig(
        r=4,
        task_type="SEQ_CLS",
        target_modules=architecture.targets("attention"),
        exclude_modules=architecture.outside_encoder,
        modules_to_save=list(architecture.head),
    )


@pytest.fixture(scope="module")
def zoo(tiny, tmp_path_factory):
    """A folder of each PEFT type, and one of a fully tuned model."""
    place = tmp_path_factory.mktemp("explained")
    folders = {name: plain_adapter(tiny, config, place / name) for name, config in CONFIGS.items()}
    model = loading.load_model(tiny, "fp32")
    torch.nn.init.normal_(model.classifier.weight, std=0.3)
    model.save_pretrained(place / "unquantised")
    quantise.quantise_folder(place / "unquantised", place / "full", tiny.architecture)
    return folders | {"full": place / "full"}


@pytest.fixture(scope="module")
def served(tiny, zoo):
    one = Engine(tiny, merged_mb=0)  # a merged adapter's answers differ by a few bits
    for folder in zoo.values():
        one.add_folder(folder)
    return one


@pytest.fixture(scope="module")
def exact(tiny, zoo):
    """An engine without the rounding of bf16."""
    one = Engine(tiny, "fp32")
    one.add_folder(zoo["lora"])
    return one


@pytest.fixture(scope="module")
def imdb():
    """The default base with the LoRA adapter of this repository."""
    one = Engine(bases.find(DEFAULT_BASE))
    one.add_folder(ROOT / "adapters" / "minilm-imdb-lora")
    return one


def joined(words, without=()):
    return "".join(word for i, (word, _) in enumerate(words) if i not in without)


def by_hand(engine, found, adapter, i):
    """The weight of word `i`, by a prediction for the text without it."""
    (answer,) = engine.predict([joined(found.words, {i})], adapter)
    return found.confidence - answer.scores[found.label]


def heaviest(weights, n):
    """Indices of the `n` largest by size, the largest first."""
    return sorted(range(len(weights)), key=lambda i: -abs(weights[i]))[:n]


def weights_of(found):
    return [weight for _, weight in found.words]


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
def test_words_join_to_the_text_exactly(served, text, monkeypatch):
    monkeypatch.setenv("ARENA_MAX_EXPLAIN", "2000000")
    found = explain.explain(served, text, "lora")
    assert joined(found.words) == text
    assert found.label in ("LABEL_0", "LABEL_1")


def test_words_are_cut_where_a_reader_would():
    def cut(text):
        edges = explain.word_edges(text)
        return [text[a:b] for a, b in pairwise(edges)]

    assert cut("“Don't miss” this well-made film: 7.5/10, e.g.") == [
        "“Don't ", "miss” ", "this ", "well-made ", "film: ", "7.5/10, ", "e.", "g."
    ]  # fmt: skip
    assert cut("good.<br /><br />Bad") == ["good.<", "br /><", "br />", "Bad"]
    assert cut("这部电影。好") == ["这", "部", "电", "影。", "好"]
    assert cut("👍🏽👩‍👩‍👧 🇩🇪!") == ["👍🏽", "👩‍👩‍👧 ", "🇩🇪!"]
    assert cut("हिन्दी फिल्म, été") == ["हिन्दी ", "फिल्म, ", "été"]


def test_a_weight_is_the_probability_lost_without_the_word(exact):
    found = explain.explain(exact, TEXT)
    expected = [by_hand(exact, found, "lora", i) for i in range(len(found.words))]
    assert weights_of(found) == pytest.approx(expected, abs=1e-5)
    assert max(map(abs, expected)) > 0.01


def test_the_only_word_is_weighed_against_an_empty_text(exact):
    found = explain.explain(exact, "superb")
    served = exact.get("lora")
    empty = tokens.Encoded([exact.tokenizer.cls_token_id, exact.tokenizer.sep_token_id], False)
    logits = exact.run_exclusively(lambda: exact.forward(served, [empty]))
    at = served.adapter.labels.index(found.label)
    assert found.words == [("superb", pytest.approx(found.confidence - float(served.scores(logits)[0, at])))]


@pytest.mark.parametrize("name", [*CONFIGS, "full"])
def test_every_peft_type_is_explained_as_it_is_served(served, name):
    for text in (TEXT, LONG):
        found = explain.explain(served, text, name)
        (answer,) = served.predict([text], name)
        assert (found.label, found.confidence) == (answer.label, answer.confidence)
        assert joined(found.words) == text
        for i in heaviest(weights_of(found), 3):
            assert found.words[i][1] == pytest.approx(by_hand(served, found, name, i), abs=0.02)
            assert found.words[i][1]


@pytest.mark.parametrize("model_type", [name for name in SIZES if name != "bert"])
def test_every_architecture_is_explained(tmp_path, model_type):
    base = make_base(tmp_path / "base", model_type)
    one = Engine(base)
    one.add_folder(plain_adapter(base, lora(base), tmp_path / "adapter"))
    found = explain.explain(one, LONG)
    (first,) = heaviest(weights_of(found), 1)
    assert found.words[first][1] == pytest.approx(by_hand(one, found, None, first), abs=0.02)


def test_the_heaviest_words_of_a_long_text_are_tried(exact):
    found = explain.explain(exact, LONG)
    tried = [i for i, (_, weight) in enumerate(found.words) if weight]
    assert len(found.words) > 3 * explain.MAX_WORDS
    assert len(tried) == explain.MAX_WORDS
    everything = [by_hand(exact, found, None, i) for i in range(len(found.words))]
    assert heaviest(weights_of(found), 3) == heaviest(everything, 3)


def test_words_outside_the_window_weigh_nothing(tiny, zoo):
    one = Engine(tiny, "fp32")
    adapter = one.add_folder(zoo["lora"])
    one.add(adapter, max_length=22)  # 5 tokens of the head, 15 of the tail
    found = explain.explain(one, " ".join(["acting"] * 30 + ["awful"] * 30))
    assert {i for i, (_, weight) in enumerate(found.words) if weight} <= {*range(5), *range(45, 60)}


@pytest.mark.parametrize("length", [32, 512])
def test_spans_are_the_positions_of_the_tokens(tiny, length):
    tokenizer = loading.load_tokenizer(tiny)
    for text in ("The acting is superb .", "The acting is awful . " * 5_000 + "The plot is superb ."):
        encoded = tokens.encode(tokenizer, [text], length)[0]
        spans = tokens.spans(tokenizer, text, length)
        assert len(spans) == len(encoded.ids)
        cut = [text[a:b].lower() for a, b in spans[1:-1]]
        assert tokenizer.convert_tokens_to_ids(cut) == encoded.ids[1:-1]


def test_shared_weights_stay_as_they_are_without_gradients(served):
    models = [served.model, *(one.model for one in served._served.values())]
    tensors = [t for model in models for t in [*model.parameters(), *model.buffers()]]
    before = [t.clone() for t in tensors]
    for name in [*CONFIGS, "full"]:
        explain.explain(served, LONG, name)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors))
    assert not any(t.requires_grad or t.grad is not None for t in tensors)


def test_predictions_during_an_explanation_are_bit_equal(served):
    expected = {name: served.predict([TEXT], name) for name in served._served}
    wrong = []
    done = threading.Event()

    def predict(names):
        while not done.is_set():
            wrong.extend(name for name in names if served.predict([TEXT], name) != expected[name])

    # One caller per adapter: two callers' texts may share a pass, and its shape moves the last bits.
    threads = [
        threading.Thread(target=predict, args=(names,)) for names in (["lora", "ia3"], ["dora"], ["prompt", "full"])
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            for name in ("lora", "dora", "prompt", "full"):
                explain.explain(served, LONG, name)
    finally:
        done.set()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("text", "reason"),
    [(" \n", "The text is empty"), (None, "must be a string"), ("x" * 3_000_000, "over the limit of 2,000,000")],
)
def test_a_text_that_cannot_be_answered_cannot_be_explained(served, text, reason):
    with pytest.raises(RequestError, match=reason):
        explain.explain(served, text)


def test_a_text_with_too_many_words_to_weigh_is_refused(served, monkeypatch):
    monkeypatch.setenv("ARENA_MAX_EXPLAIN", "1000")
    with pytest.raises(RequestError, match=r"1,001 characters, over the limit of 1,000 .*\(ARENA_MAX_EXPLAIN\)"):
        explain.explain(served, "a" * 1001)


def test_unknown_adapter_names_the_nearest(served):
    with pytest.raises(RequestError, match="did you mean 'lora'"):
        explain.explain(served, "fine", "lor")


def test_a_failing_pass_is_reported_and_the_next_text_is_explained(served, monkeypatch):
    def fail(*_):
        raise IndexError("index out of range in self")

    for name, module in (("forward", served), ("_slopes", explain)):
        with monkeypatch.context() as broken:
            broken.setattr(module, name, fail)
            with pytest.raises(RequestError, match="The model failed on this text"):
                explain.explain(served, LONG, "lora")
    assert explain.explain(served, TEXT, "lora").words


def test_to_dict_is_plain_json(served):
    answer = explain.explain(served, "fine film", "lora").to_dict()
    assert list(answer) == ["label", "confidence", "words"]
    assert [[type(part) for part in word] for word in answer["words"]] == [[str, float]] * 2


KNOWN = (
    "We saw this film on a Tuesday evening with my brother. I loved it. "
    "It is set in Paris and lasts two hours. The acting is wonderful."
)


def test_a_review_whose_verdict_is_known_is_explained_by_its_evaluative_words(imdb):
    found = explain.explain(imdb, KNOWN)
    assert found.label == "positive"
    assert {found.words[i][0].strip(" .") for i in heaviest(weights_of(found), 2)} == {"loved", "wonderful"}
    assert all(found.words[i][1] > 0 for i in heaviest(weights_of(found), 2))


def test_removing_the_words_that_support_the_label_most_moves_the_probability_most(imdb):
    found = explain.explain(imdb, KNOWN)
    weights = weights_of(found)
    # All of one sign: a word that speaks against the label would offset the others.
    top = set(sorted(range(len(weights)), key=lambda i: -weights[i])[:3])
    draw = random.Random(0)
    others = [set(draw.sample(range(len(found.words)), 3)) for _ in range(300)]
    texts = [joined(found.words, without) for without in [top, *(other for other in others if other != top)]]
    moved = [abs(found.confidence - answer.scores["positive"]) for answer in imdb.predict(texts)]
    assert moved[0] > max(moved[1:])


def test_the_verdict_of_a_long_review_is_found(imdb):
    story = "The story is set in a small town in the north and follows two brothers who run a shop there. "
    found = explain.explain(imdb, story * 4 + "The film was terrible. " + story * 4)
    assert found.label == "negative"
    assert found.words[heaviest(weights_of(found), 1)[0]][0] == "terrible. "
