"""The model that a recipe trains: built before training, counted, and saved after it."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from peft import PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from transformers import PreTrainedModel, set_seed

from adapter_arena import machine
from adapter_arena.errors import RecipeError, one_line
from adapter_arena.models import bases, compute, loading, memory, methods, peft_patches, procedures, quantise
from adapter_arena.models.fast import low_rank
from adapter_arena.recipe import Recipe
from adapter_arena.train.arguments import compute_type


def build(
    recipe: Recipe, num_labels: int, base_model: PreTrainedModel | None = None
) -> tuple[PreTrainedModel | PeftModel, int]:
    """Return the model to train and its total number of parameters.

    The total counts the base, its head and what the method adds, each weight once. `base_model` replaces the base
    that is loaded otherwise. Raises RecipeError if the base does not have the recipe's target modules.
    """
    base = bases.find(recipe.base_model)
    method = methods.find(recipe.method)
    set_seed(recipe.seed)
    dtype = compute_type(recipe)
    model = base_model or _load_base(base, recipe, num_labels, dtype)
    total = count_weights(model)
    if method.config is None:
        return model.train(), total
    try:
        config = peft_patches.set_prompt_sizes(method.config(recipe, base.architecture), model)
        model = get_peft_model(model, config)
    except (ValueError, TypeError) as error:
        raise RecipeError(
            f"target_modules {recipe.target_modules!r} cannot be adapted in {base.label}: {one_line(error)[:160]} "
            f"Choose among {', '.join(base.architecture.all_linear)}."
        ) from error
    if method.after_wrapping:
        method.after_wrapping(model)
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):  # the head
            module.modules_to_save.float()  # bf16 weights are too coarse for small updates
            total -= count_weights(module.original_module)  # replaced by the trained copy
    total += count_trainable(model)
    if dtype != torch.float32:
        peft_patches.skip_input_casts(model)
    low_rank.accelerate(model)
    return model.train(), total


def start_at_base_rates(model: PreTrainedModel | PeftModel, targets: numpy.ndarray) -> None:
    """Set the bias of the head's last layer to the log-odds of each label, of which `targets` has a column of 0 and 1.

    Otherwise the first steps of a multi-label training only learn that most labels are rare. A head without a bias, as
    decoders have, stays as it is.
    """
    share = targets.mean(axis=0).clip(1 / (2 * len(targets)), 1 - 1 / (2 * len(targets)))
    log_odds = numpy.log(share / (1 - share))
    for module in reversed(list(model.modules())):
        is_output = isinstance(module, torch.nn.Linear) and module.out_features == len(log_odds)
        if is_output and module.bias is not None and module.bias.requires_grad:
            with torch.no_grad():
                module.bias.copy_(torch.from_numpy(log_odds))
            return


def _load_base(base: bases.Base, recipe: Recipe, num_labels: int, dtype: torch.dtype) -> PreTrainedModel:
    """Load the base in the precision of the recipe's method.

    Raises RecipeError if the base does not support the recipe's attention.
    """
    precision = methods.find(recipe.method).base_precision
    if dtype == torch.float16:
        dtype = torch.bfloat16
        if precision == "bf16":
            precision = "fp32"  # fp16 training needs weights in fp32
    try:
        return loading.load_model(base, precision, num_labels, recipe.attention, dtype)
    except ValueError as error:
        if recipe.attention == "eager":
            raise
        raise RecipeError(f"{base.label} does not support attention {recipe.attention}: use eager.") from error


def count_weights(module: torch.nn.Module) -> int:
    """Return the number of weights; a byte of a 4-bit weight contains two."""
    total = 0
    for parameter in module.parameters():
        weights_per_element = 2 if parameter.dtype == torch.uint8 else 1
        total += weights_per_element * parameter.numel()
    return total


def count_trainable(model: torch.nn.Module) -> int:
    """Return the number of weights that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_parameters(recipe: Recipe, num_labels: int | None = None) -> tuple[int, int]:
    """Return the trainable and the total number of parameters of the recipe, without network, data or weights.

    `num_labels` is that of `label_names`, or two, if it is not known from the data.
    """
    num_labels = num_labels or recipe.num_labels
    base = bases.find(recipe.base_model)
    with torch.device("meta"):
        model, total = build(recipe, num_labels, loading.meta_model(base, num_labels))
    return count_trainable(model), total


class Memory(NamedTuple):
    """Memory that a training takes, estimated from the base model's config alone."""

    base: memory.Estimate
    """The base model in the precision of the method."""
    step_mb: float
    """MB (10^6 bytes) of the activations of a batch and, in full fine-tuning, of gradients and the optimizer's state."""


def estimate_memory(recipe: Recipe) -> Memory:
    """Return the memory that training the recipe takes."""
    base = bases.find(recipe.base_model)
    precision = methods.find(recipe.method).base_precision
    in_fp32 = compute.type_for(base, precision, compute_type(recipe)) == torch.float32
    size = memory.estimate(base.full_config, base.architecture, precision, in_fp32)
    tokens = recipe.train_max_length or recipe.max_length
    trained = size.parameters if recipe.method == "full" else 0  # an adapter's are few
    step_mb = memory.training_megabytes(base.full_config, recipe.batch_size, tokens, trained, in_fp32)
    return Memory(size, step_mb)


def check_memory(recipe: Recipe) -> None:
    """Print a note if training may take more memory than the machine has. Raises BaseModelError if the base does."""
    needed = estimate_memory(recipe)
    memory.check(bases.find(recipe.base_model).label, needed.base, methods.find(recipe.method).base_precision)
    total_mb = needed.base.megabytes + needed.step_mb
    available_mb = machine.total_memory_mb()
    if total_mb > available_mb:
        print(
            f"note: training may take {total_mb:,.0f} MB, and this machine has {available_mb:,.0f} MB: if it runs out, "
            "lower batch_size or max_length",
            flush=True,
        )


def save(model: PreTrainedModel | PeftModel, base: bases.Base, labels: list[str], folder: Path) -> None:
    """Write the trained weights in the form in which they are served.

    That is a PEFT adapter or, for full fine-tuning, the complete model in NF4.
    """
    if isinstance(model, PeftModel):
        procedures.convert_to_plain_lora(model)
        config = model.peft_config["default"]
        config.base_model_name_or_path = base.label
        config.revision = base.revision
        model.save_pretrained(folder, save_embedding_layers=False)
        return
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    with tempfile.TemporaryDirectory() as unquantised:
        model.save_pretrained(unquantised)
        quantise.quantise_folder(Path(unquantised), folder, base.architecture)
