"""The known base models, and loading them in each precision."""

import json
import shutil

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from conftest import SIZES, disk

from adapter_arena import network
from adapter_arena.errors import BaseModelError
from adapter_arena.models import bases, compute, loading, methods
from adapter_arena.models.fast import attention
from adapter_arena.recipe import DEFAULT_BASE
from adapter_arena.train import recipes, trainable

REAL = bases.find(DEFAULT_BASE)


@pytest.mark.parametrize(
    ("base", "total"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", 22_713_986),
        ("distilbert-base-uncased", 66_955_010),
        ("bert-base-uncased", 109_483_778),
        ("FacebookAI/roberta-base", 124_647_170),
        ("microsoft/deberta-v3-base", 184_423_682),
        ("answerdotai/ModernBERT-base", 149_606_402),
    ],
)
def test_full_size_parameter_count(base, total):
    assert sum(p.numel() for p in loading.meta_model(bases.find(base)).parameters()) == total


@pytest.mark.parametrize("model_type", SIZES)
@pytest.mark.parametrize("method", ["qlora", "ia3"])
def test_every_architecture_trains_on_four_bits_and_reloads_with_identical_logits(
    tmp_path, base_of, model_type, method
):
    base = base_of(model_type)
    recipe, _ = recipes.resolve(method, base_model=base.id, dataset="sample", name="x")
    model, _ = trainable.build(recipe, 3, loading.load_model(base, "nf4", 3))
    quantised = [n for n, m in model.named_modules() if type(m).__name__ == "Linear4bit"]
    assert quantised
    assert not [n for n in quantised if any(part in base.architecture.head for part in n.split("."))]
    ids, labels = torch.randint(5, 600, (4, 12)), torch.tensor([0, 1, 2, 1])
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    with compute.autocast(model):
        model(input_ids=ids, labels=labels).loss.backward()
    optimizer.step()
    changed = [n for n, p in model.named_parameters() if n in before and not torch.equal(p, before[n])]
    assert any("lora_B" in n or "ia3_l" in n for n in changed)
    assert any("modules_to_save" in n for n in changed)
    trainable.save(model, base, ["a", "b", "c"], tmp_path / "adapter")

    from adapter_arena.serve.engine import Engine

    engine = Engine(base)
    adapter = engine.add_folder(tmp_path / "adapter")
    served = engine._served[adapter.name].model
    with torch.inference_mode(), compute.autocast(model):
        assert torch.equal(served(input_ids=ids).logits.float(), model.eval()(input_ids=ids).logits.float())


def test_default_base_in_nf4_takes_about_30_mb_and_keeps_its_head_out_of_quantisation():
    model = loading.load_model(REAL, "nf4")
    tensors = {t.data_ptr(): t for t in [*model.parameters(), *model.buffers()]}
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            state = module.weight.quant_state
            for t in (state.absmax, state.code, state.state2.absmax, state.state2.code):
                tensors[t.data_ptr()] = t
            assert module.support_avx512bf16_for_cpu is False
    size = sum(tensor.nbytes for tensor in tensors.values())
    assert size <= 30.5e6  # 30.1 in fp32, in which the pooler takes 32 bits
    assert model.classifier.weight.dtype == torch.float32
    assert model.bert.encoder.layer[0].attention.self.query.weight.dtype == torch.uint8


def test_quantised_cache_gives_the_same_logits_as_quantising(tmp_path, monkeypatch):
    ids = torch.randint(1000, 2000, (2, 16))
    logits = []
    for _ in range(2):  # first quantises, second reads the cache
        torch.manual_seed(1)
        model = loading.load_model(REAL, "nf4")
        with torch.inference_mode(), compute.autocast(model):
            logits.append(model(input_ids=ids).logits)
    assert torch.equal(*logits)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_other_precisions_agree_with_each_other_roughly(precision):
    torch.manual_seed(1)
    model = loading.load_model(REAL, precision, dtype=torch.bfloat16)
    torch.manual_seed(1)
    exact = loading.load_model(REAL, "fp32")
    ids = torch.randint(1000, 2000, (2, 16))
    with torch.inference_mode(), compute.autocast(model):
        assert torch.allclose(model(input_ids=ids).logits.float(), exact(input_ids=ids).logits.float(), atol=0.02)


def test_skeleton_shares_every_weight(tiny):
    model = loading.load_model(tiny)
    copy = bases.skeleton(model)
    assert {p.data_ptr() for p in copy.parameters()} == {p.data_ptr() for p in model.parameters()}
    assert copy.bert is not model.bert


def test_wrong_weights_are_refused_by_hash(monkeypatch):
    fake = bases.Base(REAL.id, "bert", revision=REAL.revision, sha256="0" * 64, package=REAL.package)
    with pytest.raises(BaseModelError, match="sha256 is not the pinned"):
        bases.locate(fake)


def test_the_error_for_a_base_that_cannot_be_downloaded_says_what_to_do(monkeypatch):
    monkeypatch.setattr(network, "hub_reachable", lambda: False)
    with pytest.raises(BaseModelError, match="Hub cannot be reached: use sentence-transformers/all-MiniLM-L6-v2"):
        bases.locate(bases.find("bert-base-uncased"))


def test_unknown_base_names_the_nearest():
    with pytest.raises(BaseModelError, match="did you mean 'FacebookAI/roberta-base'"):
        bases.find("FacebookAI/roberta-bas")


def test_every_method_has_targets_on_every_architecture(base_of):
    """At true size the recipes are counted; names of modules do not depend on size."""
    for model_type in SIZES:
        for method in methods.METHODS:
            recipe, _ = recipes.resolve(method, base_model=base_of(model_type).id, dataset="sample", rank=8)
            trained, total = trainable.count_parameters(recipe)
            assert 0 < trained <= total


@pytest.mark.parametrize("model_type", [name for name in SIZES if name != "deberta-v2"])
def test_our_attention_is_that_of_transformers(base_of, model_type):
    base = base_of(model_type)
    ids = torch.randint(5, 600, (3, 24))
    mask = torch.ones_like(ids)
    mask[0, 7:] = 0
    outputs, gradients = [], []
    for kernel in (attention.NAME, "eager"):
        model = loading.load_model(base, "fp32")
        torch.manual_seed(1)
        loading.reset_head(model, base.architecture, 2)
        model.set_attn_implementation(kernel)
        logits = model(input_ids=ids, attention_mask=mask).logits
        logits.square().sum().backward()
        outputs.append(logits)
        gradients.append(model.get_input_embeddings().weight.grad)
    assert outputs[0].abs().max() > 1e-3
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("options", ["size=100k", "ro"])
def test_a_cache_that_cannot_be_written_is_reported_and_changes_no_weight(tiny, tmp_path, monkeypatch, capsys, options):
    cached = loading.load_model(tiny)
    with disk(tmp_path / "cache", options) as cache:
        monkeypatch.setenv("ARENA_CACHE", str(cache))
        loaded = loading.load_model(tiny)
    assert "the 4-bit base is not cached and will be quantised at every start: " in capsys.readouterr().err
    layers = [name for name, module in cached.named_modules() if isinstance(module, Linear4bit)]
    assert layers
    assert all(torch.equal(cached.get_submodule(n).weight, loaded.get_submodule(n).weight) for n in layers)


def test_a_base_with_the_weights_of_another_keeps_its_own_config(base_of, tmp_path):
    first = base_of("roberta")
    loading.load_model(first, "nf4")  # its 4-bit copy is in the cache now
    folder = shutil.copytree(first.folder, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text()) | {"pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config))
    assert loading.load_model(bases.find(str(folder)), "nf4").config.pad_token_id == 0
