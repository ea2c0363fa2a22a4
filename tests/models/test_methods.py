import pytest

from adapter_arena.errors import RecipeError
from adapter_arena.models import methods
from adapter_arena.train import recipes, trainable


@pytest.mark.parametrize(
    ("method", "rank", "trained"),
    [("lora", 16, 1_181_954), ("qlora", 8, 887_042), ("ia3", 16, 656_642), ("full", 16, 124_647_170)],
)
def test_trainable_parameters_on_roberta_base(method, rank, trained):
    recipe, _ = recipes.resolve(method, base_model="FacebookAI/roberta-base", rank=rank)
    assert trainable.count_parameters(recipe)[0] == trained


def test_only_qlora_trains_on_a_quantised_base():
    assert [name for name, method in methods.METHODS.items() if method.base_precision == "nf4"] == ["qlora"]


@pytest.mark.parametrize("name", [name for name, method in methods.METHODS.items() if method.config])
def test_merging_and_conversion_to_lora_are_what_peft_allows(recipe_for, name):
    model, _ = trainable.build(recipe_for(name), 2)
    method = methods.METHODS[name]
    is_lora = model.active_peft_config.peft_type == "LORA"
    assert (is_lora or model.supports_lora_conversion()) == method.converts_to_lora
    assert hasattr(model.base_model, "merge_adapter") == method.merges
    if method.merges:
        model.merge_adapter()


def test_methods_have_learning_rates_of_their_own():
    rates = {name: recipes.resolve(name, dataset="sample")[0].learning_rate for name in methods.METHODS}
    assert rates["full"] < rates["lora"] < rates["ia3"]


def test_unknown_method_names_the_nearest_and_all_known_ones():
    with pytest.raises(
        RecipeError, match=r"Unknown method 'lroa': did you mean 'lora'.*Known: lora, .*full"
    ) as refused:
        methods.find("lroa")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("method", ["loha", "prompt_tuning", "lily"])
def test_other_methods_of_peft_are_unknown(method):
    with pytest.raises(RecipeError, match=f"Unknown method '{method}'"):
        recipes.resolve(method)


def test_no_method_wraps_the_head(tiny, recipe_for):
    """Both the encoder and the pooler have modules named `dense`; only the encoder's may be adapted."""
    model, _ = trainable.build(recipe_for("lora", target_modules="dense"), 2)
    for name, _ in model.named_modules():
        assert not ("pooler" in name and "lora_A" in name)


def test_wrong_target_modules_name_the_right_ones(recipe_for):
    with pytest.raises(RecipeError, match=r"q_lin.* cannot be adapted .* Choose among query, key"):
        trainable.build(recipe_for("lora", target_modules="q_lin"), 2)
