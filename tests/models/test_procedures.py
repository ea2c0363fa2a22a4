"""A trained adapter gives the same answers after it is saved and loaded onto the 4-bit base."""

import dataclasses

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from adapter_arena.errors import RecipeError
from adapter_arena.models import compute, loading, methods, procedures
from adapter_arena.serve.engine import Engine
from adapter_arena.train import arguments, callbacks, recipes, run, trainable

TEXT = "The acting is superb . " * 200
ADAPTER_METHODS = [name for name, method in methods.METHODS.items() if method.config]
TRAINED_ON_NF4 = [name for name in ADAPTER_METHODS if name != "pissa"]
# Each method, each architecture, and the pairs that need their own code: DeBERTa has no autocast, ModernBERT has one
# matrix for query, key and value and no norm before its first layer, RoBERTa's head is a module of two layers.
_PAIRS = {
    "bert": ("qlora", "dora", "oft"),
    "distilbert": ("rslora", "loraplus", "ln"),
    "roberta": ("vera", "oft", "adalora", "prompt"),
    "deberta-v2": ("ia3", "eva", "adalora", "dora", "ln"),
    "modernbert": ("lora", "vera", "prompt", "ln", "ia3"),
}


def pairs() -> list:
    """Return every method on every architecture; pairs that are not in _PAIRS are slow."""
    parameters = []
    for model_type in _PAIRS:
        for method in TRAINED_ON_NF4:
            marks = [] if method in _PAIRS[model_type] else pytest.mark.slow
            parameters.append(pytest.param(method, model_type, marks=marks))
    return parameters


def logits_of_peft(base, folder, ids):
    """Return the adapter's logits computed by PEFT without the engine, on a separate NF4 base."""
    model = loading.load_model(base)
    loading.reset_head(model, base.architecture, 2)
    model = PeftModel.from_pretrained(model, folder).eval()
    with torch.inference_mode(), compute.autocast(model):
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()


@pytest.mark.parametrize("method", [name for name, method in methods.METHODS.items() if method.config])
def test_the_engine_answers_like_peft(tiny, adapter_of, method):
    folder = adapter_of(method)
    engine = Engine(tiny)
    adapter = engine.add_folder(folder)
    logits = engine.logits([TEXT], adapter.name)
    ids = torch.tensor([engine.encode([TEXT], adapter.name)[0].ids])
    assert ids.shape[1] == 512 - (adapter.results.recipe["rank"] if method == "prompt" else 0)
    # The engine computes without padding, which changes the last bits of fp32.
    torch.testing.assert_close(logits, logits_of_peft(tiny, folder, ids), atol=1e-5, rtol=1e-5)
    engine.add_folder(folder)
    assert torch.equal(logits, engine.logits([TEXT], adapter.name))
    engine.close()


def test_pairs_have_every_method():
    assert set().union(*_PAIRS.values()) == set(TRAINED_ON_NF4)


@pytest.mark.parametrize(("method", "model_type"), pairs())
def test_every_method_trains_on_four_bits_and_reloads_with_identical_logits(tmp_path, base_of, model_type, method):
    base = base_of(model_type)
    recipe, _ = recipes.resolve(method, base_model=base.id, dataset="sample", name="x")
    model, _ = trainable.build(recipe, 2, loading.load_model(base, "nf4", 2))
    ids = torch.randint(5, 600, (4, 12))
    labels = torch.tensor([0, 1, 0, 1])
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = {name: p.detach().clone() for name, p in trained.items() if "modules_to" not in name}
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    for _ in range(2):  # the first step of VeRA and LoRA moves only the weights that start at zero
        with compute.autocast(model):
            model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
        optimizer.step()
    assert any(not torch.equal(trained[name], before) for name, before in start.items())
    trainable.save(model, base, ["a", "b"], tmp_path / "adapter")
    with torch.inference_mode(), compute.autocast(model):
        before = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
    assert torch.equal(logits_of_peft(base, tmp_path / "adapter", ids), before)


def test_adalora_saves_its_remaining_ranks_and_they_answer_as_in_training(
    work, tiny, recipe_for, monkeypatch, no_pictures
):
    trained = []
    save = trainable.save
    monkeypatch.setattr(trainable, "save", lambda model, *rest: (trained.append(model), save(model, *rest)))
    monkeypatch.setitem(
        methods.METHODS, "adalora", dataclasses.replace(methods.METHODS["adalora"], base_precision="nf4")
    )
    folder = run.train(recipe_for("adalora", n_train=160, epochs=2, rank=4))
    weights = load_file(folder / "adapter_model.safetensors")
    ranks = [tensor.shape[0] for name, tensor in weights.items() if name.endswith("lora_E")]
    assert len(ranks) == 12  # six linear layers, twice
    assert sum(ranks) <= 4 * 12 < 6 * 12
    ids = torch.randint(5, 600, (3, 20))
    with torch.inference_mode(), compute.autocast(trained[0]):
        logits = trained[0].eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
    assert torch.allclose(logits_of_peft(tiny, folder, ids), logits, atol=2e-3)


@pytest.mark.parametrize("method", ["adalora", "eva", "pissa", "loraplus"])
def test_interrupted_run_of_a_method_with_a_state_resumes_to_the_same_weights(
    work, recipe_for, monkeypatch, no_pictures, method
):
    recipe = recipe_for(method, n_train=240)  # 30 steps, with a checkpoint at 25
    undisturbed = load_file(run.train(recipe, work / "undisturbed") / "adapter_model.safetensors")

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 27:
            raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(callbacks.Progress, "on_step_begin", stop, raising=False)
        with pytest.raises(KeyboardInterrupt):
            run.train(recipe)
    resumed = load_file(run.train(recipe, resume=True) / "adapter_model.safetensors")
    assert undisturbed.keys() == resumed.keys()
    # The last bits of the sum in AdaLoRA's extra loss depend on where its weights are in memory.
    tolerance = 1e-4 if method == "adalora" else 0
    for key, weight in undisturbed.items():
        assert torch.allclose(weight, resumed[key], rtol=0, atol=tolerance)


def test_pissa_is_saved_as_lora_that_fits_the_original_weights(tmp_path, tiny, recipe_for):
    model, _ = trainable.build(recipe_for("pissa"), 2, loading.load_model(tiny, "fp32"))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    ids = torch.randint(5, 600, (4, 12))
    labels = torch.tensor([0, 1, 0, 1])
    model(input_ids=ids, labels=labels).loss.backward()
    optimizer.step()
    with torch.inference_mode():
        before = model.eval()(input_ids=ids).logits
    trainable.save(model, tiny, ["a", "b"], tmp_path)
    plain = loading.load_model(tiny, "fp32")
    loaded = PeftModel.from_pretrained(plain, tmp_path).eval()
    assert loaded.peft_config["default"].r == 2 * recipe_for("pissa").rank
    assert loaded.peft_config["default"].init_lora_weights is True
    with torch.inference_mode():
        assert torch.allclose(loaded(input_ids=ids).logits, before, atol=1e-5)


def test_eva_starts_from_the_inputs_directions(work, tiny, recipe_for):
    model, _ = trainable.build(recipe_for("eva"), 2)
    ids = torch.randint(5, 600, (8, 20))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    procedures.initialise_eva(model, [batch, batch])
    for name, weight in model.named_parameters():
        if "lora_A" in name:  # singular vectors: orthonormal rows
            assert torch.allclose(weight @ weight.T, torch.eye(len(weight)), atol=1e-3)
            assert weight.dtype == torch.float32


def test_loraplus_trains_b_at_its_ratio(tiny, recipe_for, tmp_path):
    recipe = recipe_for("loraplus", learning_rate=1e-4, lr_ratio=8.0)
    model, _ = trainable.build(recipe, 2)
    built = arguments.build(recipe, tmp_path, arguments.Schedule(64))
    optimizer = procedures.loraplus_optimizer(model, built, recipe.lr_ratio)
    rates = {}
    for group in optimizer.param_groups:
        rates.update(dict.fromkeys(group["params"], group["lr"]))
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            assert rates[parameter] == 1e-4
        if "lora_B" in name:
            assert rates[parameter] == 8e-4


def test_lr_ratio_needs_lora(recipe_for):
    with pytest.raises(RecipeError, match="lr_ratio is for LoRA"):
        recipe_for("ia3", lr_ratio=4.0)


@pytest.mark.parametrize(
    ("method", "model_type"), [("eva", "deberta-v2"), ("pissa", "deberta-v2"), ("prompt", "roberta")]
)
def test_methods_run_on_architectures_that_need_their_own_code(work, base_of, no_pictures, method, model_type):
    """DeBERTa has no autocast. RoBERTa never uses its first two positions, so its window is 512 less the prompt."""
    base = base_of(model_type)
    small = {"n_train": 16, "n_test": 10, "n_validation": 10, "epochs": 1, "max_length": 512, "name": "x"}
    folder = run.train(recipes.resolve(method, base_model=base.id, dataset="sample", **small)[0])
    engine = Engine(base)
    engine.add_folder(folder)
    (answer,) = engine.predict([TEXT])
    assert answer.tokens == 512 - (20 if method == "prompt" else 0)
