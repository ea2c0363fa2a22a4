import gc
import os
import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import psutil
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from conftest import HANG_SECONDS, paused, wait_until
from peft import (
    LoraConfig,
    PeftModel,
    PeftType,
)
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.lora.dora import DoraLinearLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from plain_adapters import CONFIGS, TARGETS, plain_adapter

from adapter_arena import results
from adapter_arena.adapters import store
from adapter_arena.errors import AdapterError, BusyError, RequestError
from adapter_arena.models import bases, compute, loading, tokens
from adapter_arena.models.fast import fused, merging
from adapter_arena.recipe import DEFAULT_BASE
from adapter_arena.serve import engine
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.scheduler import SHARE_TOKENS
from adapter_arena.serve.served import Prediction

TEXTS = ["The acting is superb .", "The plot is awful and the ending a mess .", "fine"]


@pytest.fixture(scope="module", autouse=True)
def _all_cores():
    """Compute on all cores, since their concurrency is under test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def zoo(tiny, tmp_path_factory):
    """One folder for each PEFT type."""
    place = tmp_path_factory.mktemp("zoo")
    return {name: plain_adapter(tiny, config, place / name) for name, config in CONFIGS.items()}


@pytest.fixture(scope="module")
def served(tiny, zoo):
    """An engine with every type loaded."""
    one = Engine(tiny, merged_mb=0)
    for folder in zoo.values():
        one.add_folder(folder)
    return one


def alone(base, folder, texts, served):
    """Logits of the adapter on a base of its own, by PEFT alone."""
    model = loading.load_model(base)
    loading.reset_head(model, base.architecture, 2)
    model = PeftModel.from_pretrained(model, folder).eval()
    rows = []
    for text in texts:
        ids = torch.tensor([tokens.encode(served.tokenizer, [text], 512)[0].ids])
        with torch.inference_mode(), compute.autocast(model):
            rows.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].float())
    return torch.stack(rows)


def merged_model(one, name):
    """Return the adapter's merged model, or None."""
    return one._merged.get(one.get(name))


def assert_same(one, other):
    """Assert that two rows of logits are equal but for the order in which fp32 numbers were added up."""
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_peft_type_on_the_shared_base_equals_itself_alone(tiny, zoo, served, name):
    shared = torch.cat([served.logits([text], name) for text in TEXTS])
    assert_same(shared, alone(tiny, zoo[name], TEXTS, served))


def test_dora_of_embeddings_is_served_as_alone(tiny, tmp_path):
    config = LoraConfig(r=4, use_dora=True, **TARGETS | {"target_modules": ["query", "word_embeddings"]})
    folder = plain_adapter(tiny, config, tmp_path / "dora-e")
    one = Engine(tiny, merged_mb=0)
    one.add_folder(folder)
    found = torch.cat([one.logits([text], "dora-e") for text in TEXTS])
    assert_same(found, alone(tiny, folder, TEXTS, one))
    one.close()


def test_dora_takes_its_norms_once(tiny, zoo, monkeypatch):
    one = Engine(tiny, merged_mb=0)
    taken = []
    one.add_folder(zoo["dora"])
    norm = DoraLinearLayer.get_weight_norm
    monkeypatch.setattr(DoraLinearLayer, "get_weight_norm", lambda *a, **k: taken.append(1) or norm(*a, **k))
    first = one.logits(TEXTS, "dora")
    assert len(taken) == len([m for m in one.get("dora").model.modules() if isinstance(m, DoraLinearLayer)]) > 0
    before = len(taken)
    assert torch.equal(one.logits(TEXTS, "dora"), first)
    assert len(taken) == before
    one.close()


@pytest.mark.parametrize("kind", ["BEFT", "BOFT", "FOURIERFT", "MISS", "SHIRA", "UNILORA", "HIRA", "ROAD"])
def test_types_that_are_not_trained_here_are_served_as_on_the_dequantised_base(tiny, tmp_path, kind):
    folder = plain_adapter(tiny, PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)](**TARGETS), tmp_path / kind.lower())
    one = Engine(tiny, merged_mb=0)
    one.add_folder(folder)
    alone = PeftModel.from_pretrained(loading.load_model(tiny, "nf4", 2).dequantize().float(), folder).eval()
    with torch.inference_mode():
        rows = [alone(input_ids=torch.tensor([row.ids])).logits[0].float() for row in one.encode(TEXTS)]
    difference = torch.softmax(torch.stack(rows), -1) - torch.softmax(one.logits(TEXTS), -1)
    assert difference.abs().max() < 0.02
    one.close()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_merged_adapter_answers_as_before(tiny, zoo, served, name):
    other = Engine(tiny)
    other.add_folder(zoo[name])
    assert other.merge(name)
    copy = merged_model(other, name)
    assert isinstance(copy, fused.Classifier) == (name != "prompt")  # whose virtual tokens PEFT puts before the text
    body = copy.get_base_model().bert if name == "prompt" else copy
    assert not any(isinstance(module, Linear4bit | BaseTunerLayer) for module in body.modules())
    difference = torch.softmax(other.logits(TEXTS, name), -1) - torch.softmax(served.logits(TEXTS, name), -1)
    assert difference.abs().max() < 0.02
    other.close()


@pytest.mark.parametrize("name", CONFIGS)
def test_an_adapter_is_merged_and_answers_while_another_thread_loads_a_model(tiny, zoo, served, name):
    one = Engine(tiny)
    one.add_folder(zoo[name])
    torch.set_default_dtype(torch.bfloat16)  # which transformers does for everybody, for as long as it loads
    try:
        unmerged = one.logits(TEXTS, name)
        assert one.merge(name)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(unmerged, served.logits(TEXTS, name))
    other = Engine(tiny)
    other.add_folder(zoo[name])
    assert other.merge(name)
    assert torch.equal(one.logits(TEXTS, name), other.logits(TEXTS, name))
    one.close()
    other.close()


def test_a_base_that_is_also_dequantised_answers_as_from_4_bits(tiny, zoo):
    texts = ["The acting is superb .", "dull ."]
    answers = {}
    for merged_mb in (0, 512):
        one = Engine(tiny, merged_mb=merged_mb)
        one.add_folder(zoo["lora"])
        assert any(name.endswith(".wide") for name, _ in one.get(None).model.named_buffers()) == bool(merged_mb)
        answers[merged_mb] = one.logits(texts)
        one.close()
    torch.testing.assert_close(answers[0], answers[512])


def test_an_adapter_is_merged_after_enough_texts_and_the_least_recently_used_is_evicted(tiny, zoo):
    one = Engine(tiny)
    for name in ("lora", "dora", "vera"):
        one.add_folder(zoo[name])
        assert merged_model(one, name) is None
        one.predict(["fine"] * (engine.ROWS_BEFORE_MERGE - 1), name)
        assert merged_model(one, name) is None
        one.predict(["fine"], name)
        wait_until(lambda name=name: merged_model(one, name) is not None)
    assert one.merge("lora")
    one._merged._cache.budget = one._merged.megabytes * 1e6 + 1  # room for these three
    one.add_folder(zoo["oft"])
    assert one.merge("oft")
    assert merged_model(one, "dora") is None
    for name in ("vera", "lora", "oft"):
        assert merged_model(one, name) is not None
    one._merged._cache.budget = 10
    one.add_folder(zoo["ia3"])
    assert not one.merge("ia3")
    assert one.predict(["fine"], "ia3")[0].adapter == "ia3"
    one.close()


def test_a_registered_adapter_is_loaded_on_request_and_the_least_recently_used_is_evicted(tiny, zoo, monkeypatch):
    sizes = {name: store.read(zoo[name], tiny).size for name in ("lora", "ia3", "vera")}
    monkeypatch.setenv("ARENA_LOADED_MB", str((sum(sizes.values()) - 1) / 1e6))
    one = Engine(tiny)
    for name in sizes:
        one.register(store.read(zoo[name], tiny))
    assert [adapter.name for adapter in one.adapters] == list(sizes)
    assert not any(served.model for served in one._served.values())
    first = one.logits(TEXTS, "lora")
    assert one.merge("lora")
    one.predict(TEXTS, "ia3")
    one.predict(TEXTS, "vera")
    assert [served.model is not None for served in one._served.values()] == [False, True, True]
    assert one._merged.megabytes == 0
    torch.testing.assert_close(one.logits(TEXTS, "lora"), first)
    assert [served.model is not None for served in one._served.values()] == [True, False, True]
    one.close()


def test_other_requests_are_answered_while_an_adapter_is_loaded(tiny, zoo, monkeypatch):
    one = Engine(tiny)
    started = threading.Event()
    go_on = threading.Event()
    one.add_folder(zoo["lora"])
    one.register(store.read(zoo["ia3"], tiny))
    load = one._load_peft
    monkeypatch.setattr(
        one, "_load_peft", lambda adapter: started.set() or (go_on.wait(HANG_SECONDS) and load(adapter))
    )
    answers = []
    threads = [threading.Thread(target=lambda: answers.extend(one.predict(["fine"], "ia3"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert started.wait(HANG_SECONDS)
    assert one.predict(["fine"], "lora")[0].label
    assert not answers
    go_on.set()
    for thread in threads:
        thread.join()
    assert [answer.adapter for answer in answers] == ["ia3"] * 3
    one.close()


def test_a_registered_adapter_that_cannot_be_loaded_is_named_on_request(tiny, zoo, tmp_path):
    folder = tmp_path / "gone"
    shutil.copytree(zoo["lora"], folder)
    one = Engine(tiny)
    one.register(store.read(folder, tiny))
    shutil.rmtree(folder)
    with pytest.raises(AdapterError, match="Adapter gone does not fit"):
        one.predict(["fine"], "gone")
    one.close()


def test_a_peft_type_that_cannot_be_merged_is_served_as_it_is(tiny, zoo, monkeypatch, caplog):
    def fail(*_):
        raise NotImplementedError("no such layer")

    monkeypatch.setattr(merging, "_merge_layer", fail)
    one = Engine(tiny)
    one.add_folder(zoo["lora"])
    for _ in range(5):
        assert not one.merge("lora")
    assert caplog.text.count("lora is served unmerged: no such layer") == 3  # then it is not tried any more
    assert one.predict(["fine"], "lora")[0].label
    one.close()


def test_a_failed_merge_is_tried_again_after_as_many_texts(tiny, zoo, monkeypatch):
    original = merging._merge_layer
    failed = threading.Event()

    def fail(_):
        failed.set()
        raise RuntimeError("out of memory")

    monkeypatch.setattr(merging, "_merge_layer", fail)
    one = Engine(tiny)
    one.add_folder(zoo["lora"])
    one.predict(["fine"] * engine.ROWS_BEFORE_MERGE, "lora")
    assert failed.wait(HANG_SECONDS)
    monkeypatch.setattr(merging, "_merge_layer", original)
    served = one.get("lora")
    wait_until(lambda: one.predict(["fine"], "lora") and one._merged.get(served) is not None)
    one.close()


def test_an_adapter_is_not_merged_by_two_threads(tiny, zoo, monkeypatch):
    merge = merging.merge
    begun = threading.Event()
    go_on = threading.Event()
    merges = []

    def slow(*args):
        merges.append(1)
        begun.set()
        go_on.wait(HANG_SECONDS)
        return merge(*args)

    monkeypatch.setattr(merging, "merge", slow)
    one = Engine(tiny)
    one.add_folder(zoo["lora"])
    served = one.get("lora")
    threads = [threading.Thread(target=one._merged.merge, args=(served,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(HANG_SECONDS)
    go_on.set()
    for thread in threads:
        thread.join(HANG_SECONDS)
    assert len(merges) == 1
    assert one._merged.get(served) is not None
    one.close()


def test_a_layer_that_is_not_linear_is_not_merged(tiny, zoo, monkeypatch):
    one = Engine(tiny)
    one.add_folder(zoo["lora"])
    layers = [m for m in one.get("lora").model.modules() if isinstance(m, BaseTunerLayer)]

    class Bent(type(layers[0])):
        def forward(self, x):
            return super().forward(x).square()

    layers[0].__class__ = Bent
    assert not one.merge("lora")
    one.close()


def test_a_long_batch_does_not_delay_single_texts(tiny, zoo, monkeypatch):
    one = Engine(tiny, merged_mb=0)
    passes = []
    one.add_folder(zoo["lora"])
    one.add_folder(zoo["ia3"])
    forward = one.forward
    monkeypatch.setattr(one, "forward", lambda *arguments: passes.append(arguments) or forward(*arguments))
    texts = [f"{text} {'the film is long . ' * 20}" for text in TEXTS * 100]
    with ThreadPoolExecutor() as pool:
        with paused(one):
            batch = pool.submit(one.predict, texts, "lora")
            wait_until(lambda: one.waiting == len(texts))
            pool.submit(one.predict, ["fine"], "ia3")
            wait_until(lambda: one.waiting == len(texts) + 1)
        assert len(batch.result()) == len(texts)
    names = [served.adapter.name for served, _ in passes]
    earlier = sum(len(rows) for _, rows in passes[: names.index("ia3")])
    assert earlier <= 3 * SHARE_TOKENS / 80  # three shares at most
    assert one.waiting == 0
    one.close()


def test_too_many_waiting_texts_are_refused(tiny, zoo, monkeypatch):
    monkeypatch.setenv("ARENA_MAX_WAITING", "50")
    one = Engine(tiny, merged_mb=0)
    one.add_folder(zoo["lora"])
    with ThreadPoolExecutor() as pool:
        with paused(one):
            first = pool.submit(one.predict, ["fine"] * 60, "lora")  # over the limit, but nothing waits before it
            wait_until(lambda: one.waiting == 60)
            with pytest.raises(
                BusyError,
                match=r"Too many texts are waiting \(60, the limit is 50, ARENA_MAX_WAITING\). Please try again",
            ):
                one.predict(["fine"], "lora")
        assert len(first.result()) == 60
    assert one.predict(["fine"], "lora")[0].label
    one.close()


def test_texts_of_an_interrupted_caller_are_not_computed(tiny, zoo, monkeypatch):
    one = Engine(tiny, merged_mb=0)
    passes = []
    one.add_folder(zoo["lora"])
    forward = one.forward
    exception = Future.exception

    def interrupted(*arguments):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return exception(*arguments)

    monkeypatch.setattr(one, "forward", lambda served, rows: passes.append(len(rows)) or forward(served, rows))
    with paused(one), monkeypatch.context() as patch:
        patch.setattr(Future, "exception", interrupted)
        with pytest.raises(KeyboardInterrupt):
            one.predict(["fine"] * 10, "lora")
    one.predict(["fine", "dull"], "lora")
    assert passes == [2]
    one.close()


def test_waiting_texts_are_answered_after_close(tiny, zoo):
    one = Engine(tiny)
    one.add_folder(zoo["lora"])
    texts = ["fine " * 100] * (
        2 * engine.ROWS_BEFORE_MERGE
    )  # several shares, in one of which the adapter would be merged
    with ThreadPoolExecutor() as pool:
        with paused(one):
            waiting = pool.submit(one.predict, texts, "lora")
            wait_until(lambda: one.waiting == len(texts))
            one.close()
        assert len(waiting.result(HANG_SECONDS)) == len(texts)


def test_a_replaced_adapter_does_not_answer_with_its_predecessors_merged_copy(tiny, zoo, tmp_path):
    one = Engine(tiny)
    first = tmp_path / "first" / "mine"
    second = tmp_path / "second" / "mine"
    shutil.copytree(zoo["lora"], first)
    shutil.copytree(zoo["vera"], second)
    one.add_folder(first)
    assert one.merge("mine")
    before = one.logits(TEXTS, "mine")
    one.add_folder(second)
    assert not torch.allclose(before, one.logits(TEXTS, "mine"))
    one.close()


def test_adapters_differ_from_each_other(served):
    logits = {name: served.logits(TEXTS, name) for name in CONFIGS}
    names = list(CONFIGS)
    assert not any(torch.allclose(logits[a], logits[b]) for i, a in enumerate(names) for b in names[:i])


def test_batched_answers_are_those_of_the_text_alone(served):
    texts = [f"{text} {'the film is long . ' * n}" for n in range(12) for text in TEXTS]
    together = served.predict(texts, "lora")
    for text, answer in zip(texts, together):
        (single,) = served.predict([text], "lora")
        assert abs(single.confidence - answer.confidence) < 0.02
        assert single.tokens == answer.tokens


def test_many_threads_get_their_own_answers(served):
    expected = {name: served.predict(TEXTS, name) for name in CONFIGS}
    wrong = []

    def ask(name):
        for _ in range(5):
            for mine, right in zip(served.predict(TEXTS, name), expected[name]):
                if mine.adapter != name or mine.label != right.label or abs(mine.confidence - right.confidence) > 0.02:
                    wrong.append((name, mine, right))

    threads = [threading.Thread(target=ask, args=(name,)) for name in CONFIGS for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_whole_text_is_the_mean_of_its_windows(served, monkeypatch):
    monkeypatch.setattr(served.get("lora"), "max_length", 12)
    text = "The plot is awful and the ending a mess . " * 2 + "The acting is superb . " * 4
    [cut] = served.predict([text], "lora")
    [whole] = served.predict([text], "lora", whole_text=True)
    pieces = tokens.windows(served.tokenizer, text, 12)
    logits = torch.stack(
        [served.run_exclusively(lambda row=row: served.forward(served.get("lora"), [row]))[0] for row in pieces]
    )
    means = served.get("lora").scores(logits).mean(0)
    assert list(whole.scores.values()) == pytest.approx(means.tolist(), abs=0.01)
    assert (cut.truncated, whole.truncated) == (True, False)
    assert whole.tokens > cut.tokens
    answers = served.predict(["fine", "", text], "lora", whole_text=True)
    assert isinstance(answers[1], RequestError)
    assert answers[2].scores == pytest.approx(whole.scores, abs=0.01)


def test_invalid_texts_affect_no_others(served):
    answers = served.predict(["fine", "", "  \n", None, ["a"], "x" * 3_000_000, "fine"], "lora")
    assert [isinstance(answer, RequestError) for answer in answers] == [False, True, True, True, True, True, False]
    # Computed in one batch, they may differ in the last bits.
    assert answers[0].scores == pytest.approx(answers[-1].scores, abs=1e-6)
    assert "must be a string, not list" in str(answers[4])
    assert "3,000,000 characters, over the limit" in str(answers[5])


@pytest.mark.parametrize("text", ["🎬🍿👍", "الفيلم رائع جدا", "\x00\x01", "\ud800 lone", "a" * 1_000_000])
def test_strange_texts_are_answered(served, text):
    (answer,) = served.predict([text], "lora")
    assert answer.tokens >= 2
    assert sum(answer.scores.values()) == pytest.approx(1)


def test_a_failing_pass_is_reported_and_the_next_text_is_answered(served, monkeypatch):
    def fail(*_):
        raise IndexError("index out of range in self")

    with monkeypatch.context() as broken:
        broken.setattr(served, "forward", fail)
        (answer,) = served.predict(["fine"], "lora")
        assert "The model failed on this text (index out of range in self)" in str(answer)
    assert served.predict(["fine"], "lora")[0].label


def test_a_text_that_fails_fails_alone(served, monkeypatch):
    forward = served.forward

    def failing(adapter, rows):
        if any(len(row.ids) > 40 for row in rows):
            raise SystemExit("no room")
        return forward(adapter, rows)

    monkeypatch.setattr(served, "forward", failing)
    good, bad, also_good = served.predict(["fine .", "fine " * 50, "fine too ."], "lora")
    assert "no room" in str(bad)
    assert (good.label, also_good.label) == tuple(a.label for a in served.predict(["fine .", "fine too ."], "lora"))


def test_an_output_that_is_not_a_number_is_reported_for_its_text_only(served, monkeypatch):
    forward = served.forward

    def spoilt(adapter, rows):
        logits = forward(adapter, rows).clone()
        logits[[len(row.ids) > 40 for row in rows]] = float("nan")
        return logits

    monkeypatch.setattr(served, "forward", spoilt)
    good, bad = served.predict(["fine .", "fine " * 50], "lora")
    assert isinstance(good, Prediction)
    assert "not a number" in str(bad)


@pytest.mark.parametrize("fault", ["cut", "deleted", "replaced"])
def test_the_files_of_a_loaded_adapter_may_be_changed_under_it(tiny, zoo, tmp_path, fault):
    folder = shutil.copytree(zoo["lora"], tmp_path / "mine")
    one = Engine(tiny, merged_mb=0)
    one.add_folder(folder)
    before = one.logits(TEXTS)
    weights = folder / "adapter_model.safetensors"
    if fault == "cut":
        with weights.open("r+b") as file:
            file.truncate(10)
    elif fault == "replaced":
        with weights.open("r+b") as file:  # in place: the very bytes that a memory map would show
            file.write(bytes(weights.stat().st_size))
    else:
        shutil.rmtree(folder)
    assert torch.equal(one.logits(TEXTS), before)
    assert one.merge("mine") is False
    one.register(one.adapters[0])
    with pytest.raises(AdapterError, match="mine"):
        one.predict(TEXTS)
    one.add_folder(zoo["ia3"])
    assert one.predict(TEXTS, "ia3")[0].label


def test_unknown_adapter_names_the_nearest(served):
    with pytest.raises(RequestError, match="Unknown adapter 'lor': did you mean 'lora'"):
        served.predict(["fine"], "lor")


def test_no_adapter_at_all_says_how_to_get_one(tiny):
    with pytest.raises(RequestError, match=r"train_space\.py"):
        Engine(tiny).predict(["fine"])


def test_an_adapter_that_does_not_fit_is_refused_and_the_others_are_served(tiny, zoo, served, tmp_path):
    bad = plain_adapter(tiny, LoraConfig(r=4, **TARGETS), tmp_path / "bad")
    weights = bad / store.ADAPTER_WEIGHTS
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    key = next(k for k in tensors if "lora_A" in k)
    tensors[key] = torch.zeros(4, 9)
    save_file(tensors, weights)
    with pytest.raises(AdapterError, match="Adapter bad does not fit"):
        served.add_folder(bad)
    assert served.predict(["fine"], "lora")[0].adapter == "lora"


def test_labels_and_temperature_come_from_results(trained, tiny):
    one = Engine(tiny)
    adapter = one.add_folder(trained)
    (answer,) = one.predict(["The acting is superb ."])
    scaled = torch.softmax(one.logits(["The acting is superb ."])[0] / results.read(trained).evaluation.temperature, -1)
    assert list(answer.scores) == ["negative", "positive"] == adapter.labels
    assert list(answer.scores.values()) == pytest.approx(scaled.tolist())


def test_more_classes_than_the_base_was_loaded_with(tiny, tmp_path):
    one = Engine(tiny)
    one.add_folder(plain_adapter(tiny, LoraConfig(r=4, **TARGETS), tmp_path / "seven", labels=7))
    assert len(one.predict(["fine"])[0].scores) == 7


def test_a_further_adapter_costs_at_most_twice_its_file(tmp_path):
    """On the real base, resident memory of the process, over many adapters so that noise averages out."""
    base = bases.find(DEFAULT_BASE)
    config = LoraConfig(r=16, **{**TARGETS, "target_modules": list(base.architecture.all_linear)})
    folder = plain_adapter(base, config, tmp_path / "lora-0")
    one = Engine(base, merged_mb=0)
    one.add_folder(folder)
    one.predict(["warm up"])
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    n = 12
    for i in range(1, n + 1):
        one.add_folder(shutil.copytree(folder, tmp_path / f"lora-{i}"))
    gc.collect()
    grown = (process.memory_info().rss - before) / n
    assert grown <= 2 * (folder / "adapter_model.safetensors").stat().st_size
