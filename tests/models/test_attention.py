"""A last layer for the first token only, and packed inputs; attention itself is tested with the models that use it."""

import copy
import json

import pytest
import torch
from conftest import make_base
from peft import IA3Config, LoraConfig, get_peft_model
from tiny_types import tiny_base

from adapter_arena.models import bases, compute, loading, tokens
from adapter_arena.models.fast import attention, causal, fused
from adapter_arena.serve.engine import Engine
from adapter_arena.train import trainable


def with_complete_last_layer(model):
    """The same model with transformers' own last layer."""
    plain = copy.deepcopy(model)
    for layer in plain.get_base_model().base_model.encoder.layer:
        layer.__dict__.pop("forward", None)
    return plain


@pytest.mark.parametrize("kind", fused.MODEL_TYPES)
@pytest.mark.parametrize("config", [LoraConfig(r=4, target_modules="all-linear"), IA3Config(
    target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"])])  # fmt: skip
def test_answers_and_gradients_are_those_of_the_complete_layer(tmp_path, kind, config):
    base = make_base(tmp_path / kind, kind)
    torch.manual_seed(0)
    config.task_type, config.exclude_modules = "SEQ_CLS", base.architecture.outside_encoder
    model = get_peft_model(loading.load_model(base, "fp32"), copy.deepcopy(config))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    reference = with_complete_last_layer(model)
    ids, mask = torch.randint(5, 500, (3, 20)), torch.ones(3, 20, dtype=torch.long)
    mask[0, 12:] = mask[1, 5:] = 0
    rows = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 1])}
    found, wanted = model(**rows), reference(**rows)
    torch.testing.assert_close(found.logits, wanted.logits, atol=1e-5, rtol=1e-5)
    found.loss.backward()
    wanted.loss.backward()
    compared = 0
    for (name, mine), (_, theirs) in zip(model.named_parameters(), reference.named_parameters()):
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-4, msg=name)
            compared += 1
    assert compared >= 10


@pytest.mark.parametrize("kind", fused.MODEL_TYPES)
@pytest.mark.parametrize("lengths", [[7], [5, 5, 5], [3, 9, 9, 30, 30, 31]])
def test_packed_texts_have_the_answers_of_padded_ones(tmp_path, kind, lengths):
    base = make_base(tmp_path / kind, kind)
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_CLS", init_lora_weights=False,
                        exclude_modules=base.architecture.outside_encoder)  # fmt: skip
    model = get_peft_model(loading.load_model(base, "fp32"), config).eval()
    rows = [torch.randint(5, 500, (length,)) for length in lengths]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=model.config.pad_token_id)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    with torch.inference_mode():
        found = model(**attention.packed_inputs(model, [row.tolist() for row in rows])).logits
        torch.testing.assert_close(found, model(input_ids=ids, attention_mask=mask).logits, atol=1e-5, rtol=1e-5)


def test_the_last_layer_computes_the_first_token_only(tiny):
    model, seen = loading.load_model(tiny), []
    layers = model.bert.encoder.layer
    layers[-1].output.dense.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    layers[0].output.dense.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    with compute.autocast(model):
        model(input_ids=torch.ones(2, 9, dtype=torch.long))
    assert seen == [9, 1]
    other = bases.skeleton(model)
    assert other.bert.encoder.layer[-1].forward.__self__ is other.bert.encoder.layer[-1]


@pytest.mark.parametrize("kind", causal.MODEL_TYPES)
def test_packed_texts_of_decoders_have_the_answers_of_padded_ones(tmp_path, kind):
    base = tiny_base(tmp_path / kind, kind)
    if kind == "mistral":
        path = base.folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"sliding_window": 8}))
    torch.manual_seed(0)
    config = LoraConfig(
        r=4, target_modules=list(base.architecture.all_linear), task_type="SEQ_CLS", init_lora_weights=False
    )
    model = get_peft_model(loading.load_model(base, "fp32"), config).eval()
    assert causal.supports_packed_inputs(model.get_base_model())
    rows = [torch.randint(5, 500, (length,)) for length in (3, 9, 9, 30, 31)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=model.config.pad_token_id)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    with torch.inference_mode():
        wanted = model(input_ids=ids, attention_mask=mask).logits
        found = model(**causal.packed_inputs([row.tolist() for row in rows])).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_a_full_fine_tune_of_a_decoder_is_served_in_packed_batches(tmp_path):
    base = tiny_base(tmp_path / "llama", "llama")
    trainable.save(loading.load_model(base, "fp32"), base, ["a", "b"], tmp_path / "full")
    engine = Engine(base, dtype=torch.float32)
    served = engine.get(engine.add_folder(tmp_path / "full").name)
    rows = [tokens.Encoded(torch.randint(5, 500, (length,)).tolist(), False) for length in (4, 19, 30)]
    together = engine.forward(served, rows)
    alone = torch.cat([engine.forward(served, [row]) for row in rows])
    engine.close()
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
