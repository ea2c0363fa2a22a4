"""Every model type for which transformers has a text classifier: it trains in 4 bits and serves, or it is refused."""

import pytest
import torch
from refused_types import NOT_BUILT, REFUSED_BY_TREE
from tiny_types import VOCABULARY, tiny_base, tiny_config

from adapter_arena.adapters import export
from adapter_arena.errors import BaseModelError, RecipeError
from adapter_arena.models import compute, inspect, loading
from adapter_arena.models.truncation import Encoded
from adapter_arena.serve.engine import Engine
from adapter_arena.train import recipes, trainable

QUICK = ("albert", "bart", "camembert", "gemma3_text", "gpt2", "llama", "modernbert", "mpnet", "qwen3", "t5")
"""Types in `make test`: two without bias or with shared layers, two encoder-decoders, four decoders, and GPT-2's Conv1D."""
SUPPORTED = [name for name in inspect.KINDS if name not in {*inspect.REFUSED, *REFUSED_BY_TREE, *NOT_BUILT}]
LABELS = ["a", "b", "c"]
TOLERANCE = 0.02
"""Largest change of a logit by padding or merging, relative to the largest logit but at least 1: bf16 has 8 bits."""


def supported() -> list:
    """Return the supported types; all but ten are slow."""
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SUPPORTED]


@pytest.fixture(scope="module")
def base_of_type(tmp_path_factory):
    """Return a function that makes the tiny base of a type, once."""
    bases = {}

    def base(model_type):
        if model_type not in bases:
            bases[model_type] = tiny_base(tmp_path_factory.mktemp(model_type) / "base", model_type)
        return bases[model_type]

    return base


def test_at_least_sixty_types_are_supported():
    assert len(SUPPORTED) >= 60
    assert set(QUICK) <= set(SUPPORTED)


@pytest.mark.parametrize("method", ["qlora", "ia3", "prompt"])
@pytest.mark.parametrize("model_type", supported())
def test_a_type_trains_in_four_bits_and_is_served_alike(tmp_path, base_of_type, model_type, method):
    base = base_of_type(model_type)
    recipe, _ = recipes.resolve(method, base_model=base.id, dataset="sample", name="x", rank=4)
    if method == "prompt" and base.architecture.embedding_size is None:
        with pytest.raises(RecipeError, match="reads tokens only"):
            trainable.count_parameters(recipe)
        return
    model, _ = trainable.build(recipe, len(LABELS), loading.load_model(base, "nf4", len(LABELS)))
    assert any(type(module).__name__ == "Linear4bit" for module in model.modules())
    ids, mask = batch()
    changed = changed_by_a_step(model, ids, mask)
    assert any("modules_to_save" in name for name in changed)
    assert any(part in name for name in changed for part in ("lora_B", "ia3_l", "prompt"))
    trainable.save(model, base, LABELS, tmp_path / "adapter")
    engine = Engine(base)
    served = engine.get(engine.add_folder(tmp_path / "adapter").name)
    with torch.inference_mode(), compute.autocast(model):
        expected = model.eval()(input_ids=ids, attention_mask=mask).logits.float()
        assert torch.equal(served.model(input_ids=ids, attention_mask=mask).logits.float(), expected)
    rows = [Encoded(row[keep.bool()].tolist(), False) for row, keep in zip(ids, mask)]
    together = engine.forward(served, rows)
    alone = torch.cat([engine.forward(served, [row]) for row in rows])
    assert together.isfinite().all()
    assert_alike(together, expected)
    assert_alike(together, alone)
    assert engine.merge(served.adapter.name)
    assert_alike(together, engine.forward(served, rows))
    engine.close()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids of four rows that end with a token 3, and their mask; the first row has seven places of padding."""
    torch.manual_seed(0)
    ids = torch.randint(5, VOCABULARY, (4, 12))
    mask = torch.ones_like(ids)
    ids[:, -1] = 3
    ids[0, 4] = 3
    ids[0, 5:] = 0
    mask[0, 5:] = 0
    return ids, mask


def changed_by_a_step(model, ids, mask) -> list[str]:
    """Train one step; return the names of the parameters that changed."""
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    with compute.autocast(model):
        model(input_ids=ids, attention_mask=mask, labels=torch.tensor([0, 1, 2, 1])).loss.backward()
    optimizer.step()
    return [name for name, p in model.named_parameters() if name in before and not torch.equal(p, before[name])]


def assert_alike(logits: torch.Tensor, others: torch.Tensor) -> None:
    scale = max(1.0, logits.abs().max().item())
    torch.testing.assert_close(logits, others, atol=TOLERANCE * scale, rtol=0)


@pytest.mark.parametrize("model_type", inspect.REFUSED)
def test_types_that_are_not_for_plain_texts_are_refused_with_the_reason(model_type):
    with pytest.raises(BaseModelError, match=f"is a {model_type}, which is not supported, since "):
        inspect.load_config("x/y", f'{{"model_type": "{model_type}"}}')


@pytest.mark.parametrize(("model_type", "reason"), REFUSED_BY_TREE.items())
def test_types_whose_modules_do_not_fit_are_refused_with_the_reason(model_type, reason):
    config = tiny_config(model_type).to_json_string(use_diff=False)
    with pytest.raises(BaseModelError, match=reason):
        inspect.load_config("x/y", config)


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "mpnet"])
def test_the_exported_model_answers_like_the_served_adapter(tmp_path, base_of_type, model_type):
    base = base_of_type(model_type)
    recipe, _ = recipes.resolve(
        "qlora", base_model=base.id, dataset="sample", name="x", rank=4, target_modules="all-linear"
    )
    model, _ = trainable.build(recipe, len(LABELS), loading.load_model(base, "nf4", len(LABELS)))
    changed_by_a_step(model, *batch())
    changed_by_a_step(model, *batch())
    trainable.save(model, base, LABELS, tmp_path / "adapter")
    engine = Engine(base)
    adapter = engine.add_folder(tmp_path / "adapter")
    ids, mask = batch()
    rows = [Encoded(row[keep.bool()].tolist(), False) for row, keep in zip(ids, mask)]
    served = engine.forward(engine.get(adapter.name), rows)
    engine.close()
    exported = export.merge(adapter, base)
    with torch.inference_mode():
        assert_alike(exported(input_ids=ids, attention_mask=mask).logits, served)
