from types import SimpleNamespace

import pytest
import torch

from adapter_arena.errors import RecipeError
from adapter_arena.train import arguments


@pytest.fixture
def arguments_of(recipe_for, tmp_path):
    """Makes the TrainingArguments of a recipe with these `training_arguments`."""

    def make(**training_arguments):
        recipe = SimpleNamespace(**vars(recipe_for("lora")) | {"training_arguments": training_arguments})
        arguments.check_machine(recipe)
        return arguments.build(recipe, tmp_path, arguments.Schedule(rows=64))

    return make


def test_training_arguments_are_passed_through(arguments_of):
    found = arguments_of(lr_scheduler_type="cosine", max_grad_norm=0.5, optim="adafactor")
    assert (found.lr_scheduler_type, found.max_grad_norm, found.optim) == ("cosine", 0.5, "adafactor")


def test_unknown_training_argument_is_refused_with_the_nearest_name(arguments_of):
    with pytest.raises(RecipeError, match="Unknown training argument 'max_grad_nrom': did you mean 'max_grad_norm'"):
        arguments_of(max_grad_nrom=1.0)


@pytest.mark.parametrize("name", ["output_dir", "seed", "learning_rate", "save_steps", "push_to_hub"])
def test_training_argument_that_the_trainer_sets_is_refused(arguments_of, name):
    with pytest.raises(RecipeError, match=f"Training argument {name} is set by the trainer or by another field"):
        arguments_of(**{name: 1})


def test_value_that_transformers_refuses_is_one_line(arguments_of):
    with pytest.raises(RecipeError, match="cannot be used: ") as refused:
        arguments_of(optim="gradient_ascent")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="only without CUDA")
def test_arguments_that_need_cuda_are_replaced_without_it(arguments_of, capsys):
    found = arguments_of(optim="paged_adamw_8bit", fp16=True)
    assert (found.optim, found.fp16) == ("adamw_torch_fused", False)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "optimizer paged_adamw_8bit needs CUDA: adamw is used"
    assert second.startswith("precision fp16 needs CUDA: ")
