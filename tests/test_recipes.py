import json

import pytest

from peft_arena import recipes, training
from peft_arena.errors import RecipeError


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


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_file_resolves_and_counts(name):
    recipe, _ = recipes.resolve(recipe=name)
    assert recipe.name == name
    assert recipes.describe(name)
    assert training.count_parameters(recipe)[0] > 0


def test_results_json_is_a_recipe_that_repeats_its_run(tmp_path):
    original, _ = recipes.resolve("dora", seed=7, dataset="sample")
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"schema_version": 1, "recipe": vars(original)}))
    assert recipes.resolve(recipe=str(path))[0] == original


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("rank", 0, "rank must be a whole number of at least 1, not 0"),
        ("rank", True, "rank must be a whole number"),
        ("epochs", "two", "epochs must be a whole number"),
        ("learning_rate", float("nan"), "learning_rate must be a finite number"),
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", 10, "at most 1"),
        ("dropout", 1.0, "below 1"),
        ("max_length", 4, "max_length must be a whole number of tokens from 8"),
        ("name", "../evil", "plain folder name"),
        ("target_modules", ",", "target_modules is empty"),
    ],
)
def test_impossible_values_are_refused(field, value, says):
    with pytest.raises(RecipeError, match=says):
        recipes.resolve("lora", **{field: value})


@pytest.mark.parametrize(
    ("content", "says"),
    [("learning_rat: 1", "did you mean 'learning_rate'"), ("- a", "`field: value`"), ("a: [", "is not YAML")],
)
def test_bad_recipe_files_are_refused(tmp_path, content, says):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=says):
        recipes.resolve(recipe=str(path))


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'minilm-imdb-lora'"):
        recipes.resolve(recipe="minilm-imdb-lor")
