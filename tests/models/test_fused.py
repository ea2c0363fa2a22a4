"""Merged models with fused layers answer like the model they are made of."""

import pytest
import torch
from conftest import make_base
from peft import LNTuningConfig, LoraConfig
from plain_adapters import plain_adapter

from adapter_arena.adapters import store
from adapter_arena.models import compute, loading
from adapter_arena.models.fast import fused
from adapter_arena.serve.engine import Engine

LENGTHS = ([7], [5, 5, 5], [3, 9, 9, 30, 30, 64])


def adapted(base, config, folder, dtype=None):
    """An engine with one adapter of that config."""
    one = Engine(base, dtype=dtype)
    one.add(store.read(plain_adapter(base, config, folder), base))
    return one


@pytest.fixture(scope="module", params=[(kind, name) for kind in fused.MODEL_TYPES for name in compute.TYPES])
def pair(request, tmp_path_factory):
    """The engine that serves an adapter, its model from 4 bits, and the fused one."""
    place = tmp_path_factory.mktemp("fused")
    kind, name = request.param
    base = make_base(place / kind, kind)
    one = adapted(base, LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "dense"],
                                   exclude_modules=base.architecture.outside_encoder,
                                   modules_to_save=list(base.architecture.head)), place / "lora",
                  dtype=compute.TYPES[name])  # fmt: skip
    assert one.merge("lora")
    served = one.get("lora")
    yield one, served.model, one._merged.get(served)
    one.close()


@pytest.mark.parametrize("lengths", LENGTHS)
def test_a_fused_model_answers_like_the_model_it_is_made_of(pair, lengths):
    one, model, classifier = pair
    assert isinstance(classifier, fused.Classifier)
    torch.manual_seed(0)
    ids = torch.full((len(lengths), max(lengths)), one.tokenizer.pad_token_id)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, 500, (length,))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    with torch.inference_mode(), compute.autocast(model):
        wanted = model(input_ids=ids, attention_mask=mask).logits.float()
    with torch.inference_mode():
        found = classifier([ids[i, :n].tolist() for i, n in enumerate(lengths)]).float()
        singly = [classifier([ids[i, :n].tolist()])[0].float() for i, n in enumerate(lengths)]
    tolerance = 0.02 if one.dtype == torch.bfloat16 else 1e-4
    assert (found.softmax(-1) - wanted.softmax(-1)).abs().max() < tolerance
    assert (found - wanted).abs().max() < 5 * tolerance * wanted.abs().max()
    torch.testing.assert_close(found, torch.stack(singly), atol=tolerance, rtol=tolerance)


def test_only_models_on_a_cpu_are_fused(tmp_path):
    base = make_base(tmp_path / "bert", "bert")
    model = loading.load_model(base, "fp32")
    assert isinstance(fused.fuse(model, {}), fused.Classifier)
    assert fused.fuse(model.to("meta"), {}) is None  # CUDA has no layer norm of bf16 rows with fp32 weights


def test_layers_that_adapters_leave_unchanged_are_shared(tiny, tmp_path):
    norms = LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"], modules_to_save=["pooler", "classifier"])
    one = adapted(tiny, norms, tmp_path / "ln")
    assert one.merge("ln")
    assert one.merged_mb == 0
    assert one.predict(["fine ."], "ln")[0].label
    again = plain_adapter(tiny, norms, tmp_path / "again")
    one.add(store.read(again, tiny))
    assert one.merge("again")
    first, second = (one._merged.get(one.get(name)) for name in ("ln", "again"))
    for first_layer, second_layer in zip(first._layers, second._layers):
        assert first_layer.up_weight is second_layer.up_weight
        assert first_layer.attention_norm_weight is not second_layer.attention_norm_weight
    one.close()


def test_other_architectures_are_not_fused(tmp_path):
    base = make_base(tmp_path / "distilbert", "distilbert")
    model = loading.load_model(base)
    assert fused.fuse(model, {}) is None


def test_full_fine_tuning_counts_its_own_layers(tiny, adapter_of):
    one = Engine(tiny)
    adapter = one.add_folder(adapter_of("full"))
    before = one.predict(["a fine film ."])[0].confidence
    assert one.merge(adapter.name)
    assert one.merged_mb > 0
    assert abs(one.predict(["a fine film ."])[0].confidence - before) < 0.02
    one.close()
