import dataclasses
import json

import pytest
import torch
from conftest import ROOT

import train_space
from adapter_arena import results
from adapter_arena.adapters import store
from adapter_arena.errors import RecipeError
from adapter_arena.models import bases, compute, loading, memory
from adapter_arena.models.fast import attention
from adapter_arena.recipe import with_current_names
from adapter_arena.train import arguments, recipes, run, trainable


def test_merging_order_is_defaults_method_recipe_command_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("method: ia3\nbatch_size: 4\nepochs: 7\n")
    recipe, origin = recipes.resolve(recipe=str(path), epochs=9)
    assert (recipe.name, recipe.method, recipe.batch_size, recipe.epochs) == ("mine", "ia3", 4, 9)
    assert recipe.learning_rate == 2e-2
    assert origin["learning_rate"] == "method"
    assert origin["batch_size"] == "recipe"
    assert origin["epochs"] == "command line"
    assert "seed" not in origin


def test_method_alone_takes_our_recipe_for_imdb():
    recipe, _ = recipes.resolve("qlora")
    assert (recipe.name, recipe.target_modules, recipe.rank) == ("minilm-imdb-qlora", "all-linear", 16)


def test_other_data_takes_the_methods_defaults():
    recipe, _ = recipes.resolve("lora", dataset="some/reviews.csv")
    assert (recipe.name, recipe.target_modules) == ("minilm-reviews-lora", "attention")


def test_how_the_recipes_dataset_is_arranged_says_nothing_about_another():
    hub, _ = recipes.resolve(recipe="minilm-mrpc-lora")
    copy, _ = recipes.resolve(recipe="minilm-mrpc-lora", dataset="some/mrpc")
    assert (hub.dataset_config, copy.dataset_config, copy.text_pair_column) == ("mrpc", None, "sentence2")
    named, _ = recipes.resolve("lora", dataset="some/sst2")
    assert (named.name, named.batch_size, named.test_split) == ("minilm-sst2-lora", 32, None)
    own, _ = recipes.resolve(recipe="minilm-mrpc-lora", dataset="some/mrpc", dataset_config="b")
    assert own.dataset_config == "b"


TRAINABLE = {
    "bert-imdb-qlora": 887_042,
    "distilbert-amazon-lora": 628_994,
    "distilbert-imdb-lora": 739_586,
    "minilm-3k-full": 22_713_986,
    "minilm-3k-ia3": 164_738,
    "minilm-3k-lora": 296_066,
    "minilm-3k-qlora": 222_338,
    "minilm-agnews-lora": 812_932,
    "minilm-amazon-lora": 812_162,
    "minilm-imdb-dora": 832_898,
    "minilm-imdb-eva": 812_162,
    "minilm-imdb-ln": 158_594,
    "minilm-imdb-rslora": 2_802_818,
    "minilm-imdb-full": 22_713_986,
    "minilm-imdb-ia3": 164_738,
    "minilm-imdb-lora": 812_162,
    "minilm-imdb-loraplus": 812_162,
    "minilm-imdb-qlora": 812_162,
    "minilm-goemotions-full": 22_713_986,  # the 28 labels are known from the data
    "minilm-goemotions-ia3": 164_738,
    "minilm-goemotions-lora": 812_162,
    "minilm-goemotions-qlora": 812_162,
    "minilm-mrpc-full": 22_713_986,
    "minilm-mrpc-ia3": 164_738,
    "minilm-mrpc-lora": 812_162,
    "minilm-mrpc-qlora": 812_162,
    "minilm-sst2-full": 22_713_986,
    "minilm-sst2-ia3": 164_738,
    "minilm-sst2-lora": 812_162,
    "minilm-sst2-qlora": 812_162,
    "minilm-stsb-full": 22_713_986,  # so is that a regression has one output
    "minilm-stsb-ia3": 164_738,
    "minilm-stsb-lora": 812_162,
    "minilm-stsb-qlora": 812_162,
    "mmbert-base-imdb-qlora": 2_281_730,
    "modernbert-large-imdb-qlora": 4_649_986,
    "qwen3-06b-imdb-qlora": 5_048_320,
    "roberta-imdb-full": 124_647_170,
    "roberta-imdb-ia3": 656_642,
    "roberta-imdb-lora": 1_181_954,
    "roberta-imdb-qlora": 887_042,
    "roberta-imdb-rslora": 2_327_498,
    "roberta-large-imdb-qlora": 4_590_594,
    "smollm2-135m-imdb-lora": 4_885_632,
    "xlm-roberta-base-imdb-lora": 3_246_338,
}


def test_every_recipe_file_has_an_expected_count():
    assert sorted(TRAINABLE) == recipes.names()


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_file_resolves_and_counts(name):
    recipe, _ = recipes.resolve(recipe=name)
    assert recipe.name == name
    assert recipes.describe(name)["description"]
    assert trainable.count_parameters(recipe)[0] == TRAINABLE[name]


@pytest.mark.parametrize(
    ("base_model", "method", "millions"),
    [
        ("roberta-large", "qlora", 355),
        ("xlm-roberta-base", "lora", 278),
        ("answerdotai/ModernBERT-large", "qlora", 396),
        ("jhu-clsp/mmBERT-base", "qlora", 308),
        ("Qwen/Qwen3-0.6B", "qlora", 596),
        ("HuggingFaceTB/SmolLM2-135M", "lora", 135),
    ],
)
def test_further_bases_have_their_published_size_and_qlora_from_300_million(base_model, method, millions):
    recipe, _ = recipes.resolve(base_model=base_model, dataset="sample")
    assert recipe.method == method
    base = bases.find(base_model)
    assert round(memory.estimate(base.full_config, base.architecture).parameters / 1e6) == millions


def one_of_each_kind() -> list[str]:
    """A recipe of each method on each architecture that recipes are for."""
    found: dict[tuple, str] = {}
    for name in recipes.names():
        recipe, _ = recipes.resolve(recipe=name)
        found.setdefault((recipe.method, bases.find(recipe.base_model).model_type), name)
    return list(found.values())


@pytest.mark.parametrize("name", one_of_each_kind())
def test_recipes_train_two_steps_on_a_small_model_of_their_architecture(work, base_of, no_pictures, name):
    recipe, _ = recipes.resolve(recipe=name)
    base = base_of(bases.find(recipe.base_model).model_type)
    less = {"dataset": "sample", "label_names": None, "n_train": 2 * recipe.batch_size, "n_test": 10, "epochs": 1}
    folder = run.train(dataclasses.replace(recipe, base_model=base.id, n_validation=10, **less))
    assert results.read(folder).training.losses[-1][0] == 2


def test_known_set_ups_say_what_they_reproduce_and_what_it_reported(capsys):
    assert train_space.main(["--list-recipes"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[lines.index("reported: accuracy 90.2 %") - 1].startswith("reproduces: the best of a sweep")
    assert "reproduces" not in recipes.describe("minilm-imdb-lora")


def test_a_known_set_up_is_taken_only_by_name():
    recipe, origin = recipes.resolve("lora", base_model="FacebookAI/roberta-base")
    assert (recipe.name, recipe.n_train) == ("roberta-imdb-lora", None)
    assert "recipe" not in origin.values()


def test_results_of_before_the_newer_fields_still_resolve(tmp_path):
    original, _ = recipes.resolve("lora", dataset="sample")
    old = {
        k: v for k, v in vars(original).items() if k not in {"training_arguments", "precision", "attention", "lr_ratio"}
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"schema_version": 1, "recipe": old}))
    assert recipes.resolve(recipe=str(path))[0] == original


def test_fields_of_earlier_versions_are_training_arguments(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text("optimizer: paged_adamw_8bit\nprecision: fp16\n")
    recipe, _ = recipes.resolve(recipe=str(path))
    assert recipe.training_arguments == {"optim": "paged_adamw_8bit", "fp16": True}
    assert recipe.precision == "auto"
    path.write_text("optimizer: adamw\nprecision: fp32\n")
    recipe, _ = recipes.resolve(recipe=str(path))
    assert (recipe.training_arguments, recipe.precision) == ({}, "fp32")


def test_a_precision_replaces_the_recipes_fp16():
    recipe, _ = recipes.resolve(recipe="distilbert-imdb-lora")
    assert recipe.training_arguments == {"fp16": True}
    recipe, _ = recipes.resolve(recipe="distilbert-imdb-lora", precision="fp32")
    assert (recipe.training_arguments, recipe.precision) == ({}, "fp32")


def test_attention_is_the_recipes_in_training_and_ours_when_served(tiny, recipe_for):
    model, _ = trainable.build(recipe_for("lora", attention="sdpa"), 2)
    assert model.config._attn_implementation == "sdpa"
    assert loading.load_model(tiny).config._attn_implementation == attention.NAME


@pytest.mark.skipif(torch.cuda.is_available(), reason="only without CUDA")
def test_what_needs_cuda_is_refused_or_replaced_with_a_line(recipe_for, tiny, tmp_path, capsys):
    with pytest.raises(RecipeError, match="flash_attn needs CUDA: use eager or sdpa"):
        run.train(recipe_for("lora", attention="flash_attn"))
    recipe = recipe_for("lora", training_arguments={"optim": "paged_adamw_8bit", "fp16": True})
    arguments.check_machine(recipe)
    lines = capsys.readouterr().out.splitlines()
    used = compute.name_of(compute.choose())
    assert lines == [
        "optimizer paged_adamw_8bit needs CUDA: adamw is used",
        f"precision fp16 needs CUDA: {used} is used",
    ]
    built = arguments.build(recipe, tmp_path, arguments.Schedule(64))
    assert (built.optim, built.bf16, built.fp16) == ("adamw_torch_fused", used == "bf16", False)


def test_attention_that_an_architecture_lacks_is_refused_in_one_line(base_of):
    base = base_of("deberta-v2")
    recipe, _ = recipes.resolve("lora", base_model=base.id, dataset="sample", attention="sdpa")
    with pytest.raises(RecipeError, match="tiny-deberta-v2 does not support attention sdpa: use eager"):
        trainable.build(recipe, 2)


def test_results_json_is_a_recipe_that_repeats_its_run(tmp_path):
    original, _ = recipes.resolve("dora", seed=7, dataset="sample")
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"schema_version": 1, "recipe": vars(original)}))
    assert recipes.resolve(recipe=str(path))[0] == original


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("rank", 0, "rank should be greater than or equal to 1, not 0: correct it on the command line"),
        ("rank", True, "rank should be a valid integer, not True"),
        ("epochs", "two", "epochs should be a valid integer, not 'two'"),
        ("learning_rate", float("nan"), "learning_rate should be less than or equal to 1, not nan"),
        ("learning_rate", 0.0, "greater than 0, not 0.0"),
        ("learning_rate", 10, "less than or equal to 1, not 10"),
        ("dropout", 1.0, "less than 1, not 1.0"),
        ("max_length", 4, "max_length should be greater than or equal to 8, not 4"),
        ("name", "../evil", "plain folder name"),
        ("target_modules", ",", "target_modules is empty"),
        ("attention", "flash", "attention should be 'eager', 'sdpa' or 'flash_attn', not 'flash'"),
        ("training_arguments", "fp16", "training_arguments should be a valid dictionary, not 'fp16'"),
        ("precision", "fp8", "precision should be 'auto', 'bf16' or 'fp32', not 'fp8'"),
        ("lr_ratio", 0.5, "lr_ratio should be greater than or equal to 1, not 0.5"),
    ],
)
def test_impossible_values_are_refused(field, value, says):
    with pytest.raises(RecipeError, match=says):
        recipes.resolve("lora", **{field: value})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("batch_size: 4.5", r"batch_size should be a valid integer, not 4\.5: correct it in .*bad\.yaml"),
        ("learning_rat: 1", "did you mean 'learning_rate'"),
        ("- a", "`field: value`"),
        ("a: [", "is not YAML"),
    ],
)
def test_bad_recipe_files_are_refused(tmp_path, content, says):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=says):
        recipes.resolve(recipe=str(path))


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'minilm-imdb-lora'"):
        recipes.resolve(recipe="minilm-imdb-lor")


@pytest.mark.parametrize("folder", store.folders(ROOT / "adapters"), ids=lambda folder: folder.name)
def test_every_shipped_adapter_is_a_recipe_that_repeats_it(folder):
    recorded = with_current_names(results.read(folder).recipe)
    recipe, _ = recipes.resolve(recipe=str(folder / "results.json"))
    assert {key: getattr(recipe, key) for key in recorded} == recorded
