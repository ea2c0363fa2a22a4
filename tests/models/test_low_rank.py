"""Accelerated LoRA layers have the results and gradients of PEFT's; other layers are unchanged."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from adapter_arena.models import compute, loading
from adapter_arena.models.fast import low_rank


def model_with(tiny, precision, dtype, **more):
    torch.manual_seed(0)
    config = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=["query", "value", "dense"],
                        exclude_modules=tiny.architecture.outside_encoder, init_lora_weights=False,
                        modules_to_save=list(tiny.architecture.head), **more)  # fmt: skip
    return get_peft_model(loading.load_model(tiny, precision, dtype=dtype), config).train()


def loss_and_gradients(model):
    ids = torch.randint(5, 500, (3, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 12:] = 0
    with compute.autocast(model):
        loss = model(input_ids=ids, attention_mask=mask, labels=torch.tensor([0, 1, 1])).loss
    loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return loss.detach(), gradients


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_loss_and_gradients_are_those_of_peft(tiny, precision, dtype, tolerance):
    model = model_with(tiny, precision, dtype)
    wanted_loss, wanted = loss_and_gradients(model)
    low_rank.accelerate(model)
    loss, found = loss_and_gradients(model)
    torch.testing.assert_close(loss, wanted_loss, atol=tolerance, rtol=tolerance)
    assert found.keys() == wanted.keys()
    assert sum("lora_" in name for name in found) == 2 * 2 * 5  # A and B of five layers, twice
    for name, gradient in found.items():
        scale = wanted[name].abs().max()
        assert (gradient - wanted[name]).abs().max() <= tolerance * scale, name


@pytest.mark.parametrize("more", [{"lora_dropout": 0.5}, {"use_dora": True}])
def test_layers_that_are_not_plain_lora_are_unchanged(tiny, more):
    model = low_rank.accelerate(model_with(tiny, "bf16", torch.float32, **more))
    assert not [module for module in model.modules() if "forward" in vars(module) and hasattr(module, "lora_A")]
