"""What a method leaves is the same adapter once it is saved and loaded onto the 4-bit base."""

import dataclasses

import pytest
import torch
from conftest import SIZES
from peft import PeftModel, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file

from adapter_arena.errors import RecipeError
from adapter_arena.models import bases, methods, procedures
from adapter_arena.serve.engine import Engine
from adapter_arena.train import model as model_module
from adapter_arena.train import recipes, training

TEXT = "The acting is superb . " * 200
_ON_NF4 = [name for name, method in methods.METHODS.items() if method.config and name != "pissa"]
# Each method, each architecture, and those pairs that need code of their own: DeBERTa has no autocast, ModernBERT has one
# matrix for query, key and value and no norm before its first layer, RoBERTa's head is a module of two layers.
_PAIRS = {
    "bert": ("qlora", "dora", "oft"),
    "distilbert": ("rslora", "loraplus", "ln"),
    "roberta": ("vera", "oft", "adalora", "prompt"),
    "deberta-v2": ("ia3", "eva", "adalora", "dora", "ln"),
    "modernbert": ("lora", "vera", "prompt", "ln", "ia3"),
}


def pairs() -> list:
    """Every method on every architecture; those that are not in _PAIRS are slow."""
    return [
        pytest.param(method, kind, marks=[] if method in _PAIRS[kind] else pytest.mark.slow)
        for kind in SIZES
        for method in _ON_NF4
    ]


def alone(base, folder, ids):
    """Logits, by PEFT alone, of the adapter on an NF4 base of its own."""
    model = bases.load_model(base)
    bases.reset_head(model, base.architecture, 2)
    model = PeftModel.from_pretrained(model, folder).eval()
    with torch.inference_mode(), bases.autocast(model):
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()


@pytest.mark.parametrize("method", [name for name, method in methods.METHODS.items() if method.config])
def test_trained_adapter_on_the_shared_base_equals_itself_alone(tiny, adapter_of, method):
    folder = adapter_of(method)
    engine = Engine(tiny)
    adapter = engine.add_folder(folder)
    again = engine.logits([TEXT], adapter.name)
    ids = torch.tensor([engine.encode([TEXT], adapter.name)[0].ids])
    assert ids.shape[1] == 512 - (adapter.results.recipe["rank"] if method == "prompt" else 0)
    # Its texts have no padding between, which changes the last bits of fp32.
    torch.testing.assert_close(again, alone(tiny, folder, ids), atol=1e-5, rtol=1e-5)
    engine.add_folder(folder)
    assert torch.equal(again, engine.logits([TEXT], adapter.name))
    engine.close()


def test_pairs_have_every_method():
    assert {method for chosen in _PAIRS.values() for method in chosen} == set(_ON_NF4)


@pytest.mark.parametrize(("method", "model_type"), pairs())
def test_every_method_trains_on_four_bits_and_reloads_with_identical_logits(tmp_path, base_of, model_type, method):
    base = base_of(model_type)
    recipe, _ = recipes.resolve(method, base_model=base.id, dataset="sample", name="x")
    model, _ = training.build(recipe, 2, bases.load_model(base, "nf4", 2))
    ids, labels = torch.randint(5, 600, (4, 12)), torch.tensor([0, 1, 0, 1])
    adapted = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad and "modules_to" not in n}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # VeRA's and LoRA's first step moves only what starts at zero
        with bases.autocast(model):
            model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
        optimizer.step()
    assert any(not torch.equal(p, adapted[n]) for n, p in model.named_parameters() if n in adapted)
    training._save(model, base, ["a", "b"], tmp_path / "adapter")
    with torch.inference_mode(), bases.autocast(model):
        before = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
    assert torch.equal(alone(base, tmp_path / "adapter", ids), before)


def test_adalora_saves_the_ranks_it_kept_and_they_answer_as_in_training(
    work, tiny, recipe_for, monkeypatch, no_pictures
):
    trained, save = [], model_module.save
    monkeypatch.setattr(model_module, "save", lambda model, *rest: (trained.append(model), save(model, *rest)))
    monkeypatch.setitem(
        methods.METHODS, "adalora", dataclasses.replace(methods.METHODS["adalora"], base_precision="nf4")
    )
    folder = training.run(recipe_for("adalora", n_train=160, epochs=2, rank=4))
    ranks = [
        tensor.shape[0]
        for name, tensor in load_file(folder / "adapter_model.safetensors").items()
        if name.endswith("lora_E")
    ]
    assert len(ranks) == 12  # six linear layers, twice
    assert sum(ranks) <= 4 * 12 < 6 * 12
    ids = torch.randint(5, 600, (3, 20))
    with torch.inference_mode(), bases.autocast(trained[0]):
        logits = trained[0].eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
    assert torch.allclose(alone(tiny, folder, ids), logits, atol=2e-3)


@pytest.mark.parametrize("method", ["adalora", "eva", "pissa", "loraplus"])
def test_interrupted_run_of_a_method_with_a_state_resumes_to_the_same_weights(
    work, recipe_for, monkeypatch, no_pictures, method
):
    recipe = recipe_for(method, n_train=240)  # 30 steps, with a checkpoint at 25
    whole = load_file(training.run(recipe, work / "whole") / "adapter_model.safetensors")

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 27:
            raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(training.Progress, "on_step_begin", stop, raising=False)
        with pytest.raises(KeyboardInterrupt):
            training.run(recipe)
    resumed = load_file(training.run(recipe, resume=True) / "adapter_model.safetensors")
    assert whole.keys() == resumed.keys()
    # AdaLoRA's extra loss sums to the last bit otherwise once its weights lie elsewhere in memory.
    tolerance = 1e-4 if method == "adalora" else 0
    assert all(torch.allclose(whole[key], resumed[key], rtol=0, atol=tolerance) for key in whole)


def test_pissa_is_saved_as_lora_that_fits_the_bases_own_weights(tmp_path, tiny, recipe_for):
    model, _ = training.build(recipe_for("pissa"), 2, bases.load_model(tiny, "fp32"))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    ids, labels = torch.randint(5, 600, (4, 12)), torch.tensor([0, 1, 0, 1])
    model(input_ids=ids, labels=labels).loss.backward()
    optimizer.step()
    with torch.inference_mode():
        before = model.eval()(input_ids=ids).logits
    training._save(model, tiny, ["a", "b"], tmp_path)
    plain = bases.load_model(tiny, "fp32")
    loaded = PeftModel.from_pretrained(plain, tmp_path).eval()
    assert loaded.peft_config["default"].r == 2 * recipe_for("pissa").rank
    assert loaded.peft_config["default"].init_lora_weights is True
    with torch.inference_mode():
        assert torch.allclose(loaded(input_ids=ids).logits, before, atol=1e-5)


def test_eva_starts_from_the_inputs_directions(work, tiny, recipe_for):
    model, _ = training.build(recipe_for("eva"), 2)
    ids = torch.randint(5, 600, (8, 20))
    methods.METHODS["eva"].look(model, [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}] * 2)
    for name, weight in model.named_parameters():
        if "lora_A" in name:  # singular vectors: orthonormal rows
            assert torch.allclose(weight @ weight.T, torch.eye(len(weight)), atol=1e-3)
            assert weight.dtype == torch.float32


def test_loraplus_trains_b_at_its_ratio(tiny, recipe_for, tmp_path):
    recipe = recipe_for("loraplus", learning_rate=1e-4, lr_ratio=8.0)
    model, _ = training.build(recipe, 2)
    arguments = training._arguments(recipe, tiny, tmp_path, 64, "none")
    optimizer = procedures.loraplus_optimizer(model, arguments, recipe.lr_ratio)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: rates[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    assert {rate for name, rate in named.items() if "lora_A" in name} == {1e-4}
    assert {rate for name, rate in named.items() if "lora_B" in name} == {8e-4}


@pytest.mark.parametrize(
    "method", sorted({kind.lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING} - set(methods.METHODS))
)
def test_every_other_method_of_peft_is_refused_with_the_reason_in_one_line(method):
    with pytest.raises(RecipeError, match=f"Method {method} cannot be used: .* use ") as refused:
        recipes.resolve(method)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("method", methods.NO_4BIT)
def test_methods_said_to_have_no_4_bit_layer_have_none(tiny, method):
    fields = {"task_type": "SEQ_CLS", "target_modules": ["query", "value"]} | {"c3a": {"block_size": 16}}.get(
        method, {}
    )
    model, ids = bases.load_model(tiny, "nf4", 2), torch.ones(1, 8, dtype=torch.long)
    config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(method.upper())](**fields)
    with pytest.raises((RuntimeError, ValueError, TypeError)):  # no ImportError, no wrong name of a field's
        get_peft_model(model, config)(input_ids=ids, labels=torch.tensor([0])).loss.backward()


def test_lr_ratio_needs_lora(recipe_for):
    with pytest.raises(RecipeError, match="lr_ratio is LoRA's"):
        recipe_for("ia3", lr_ratio=4.0)


@pytest.mark.parametrize(
    ("method", "model_type"), [("eva", "deberta-v2"), ("pissa", "deberta-v2"), ("prompt", "roberta")]
)
def test_methods_run_on_architectures_with_ways_of_their_own(work, base_of, no_pictures, method, model_type):
    """DeBERTa has no autocast; RoBERTa never uses its first two positions, so a full window is 512 less the prompt."""
    base = base_of(model_type)
    small = {"n_train": 16, "n_test": 10, "n_validation": 10, "epochs": 1, "max_length": 512, "name": "x"}
    folder = training.run(recipes.resolve(method, base_model=base.id, dataset="sample", **small)[0])
    engine = Engine(base)
    engine.add_folder(folder)
    (answer,) = engine.predict([TEXT])
    assert answer.tokens == 512 - (20 if method == "prompt" else 0)
