"""A recipe and the machine, translated into transformers' TrainingArguments."""

import dataclasses
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainingArguments

from adapter_arena import machine
from adapter_arena.errors import RecipeError, one_line, unknown
from adapter_arena.models import bases, compute
from adapter_arena.recipe import Recipe

_KNOWN = {field.name for field in dataclasses.fields(TrainingArguments)}
_RESERVED = {
    "auto_find_batch_size", "average_tokens_across_devices", "bf16", "data_seed", "ddp_backend",
    "ddp_find_unused_parameters", "ddp_timeout", "deepspeed", "disable_tqdm", "do_eval", "do_predict",
    "do_train", "eval_delay", "eval_on_start", "eval_steps", "eval_strategy", "fsdp", "fsdp_config",
    "gradient_accumulation_steps", "greater_is_better", "hub_always_push", "hub_model_id", "hub_private_repo",
    "hub_revision", "hub_strategy", "hub_token", "ignore_data_skip", "label_names", "learning_rate",
    "length_column_name", "load_best_model_at_end", "local_rank", "max_steps", "metric_for_best_model",
    "num_train_epochs", "output_dir", "parallelism_config", "per_device_eval_batch_size",
    "per_device_train_batch_size", "prediction_loss_only", "project", "push_to_hub", "remove_unused_columns",
    "report_to", "resume_from_checkpoint", "run_name", "save_on_each_node", "save_only_model", "save_steps",
    "save_strategy", "save_total_limit", "seed", "trackio_bucket_id", "trackio_space_id",
    "trackio_static_space_id", "train_sampling_strategy", "use_cpu", "warmup_steps", "weight_decay",
}  # fmt: skip
"""Training arguments that follow from the recipe, or that resuming, evaluation and publishing rely on."""
_MOST_EVALUATIONS = 25
"""Evaluations of a training whose epochs are many because its rows are few."""
_TENSORBOARD = os.environ.get("TENSORBOARD_LOGGING_DIR")


@dataclass(frozen=True)
class Schedule:
    """How often a training steps, evaluates and reports."""

    rows: int
    """Number of training rows."""
    report_to: str = "none"
    accumulation_steps: int = 1
    """Number of parts in which a batch is computed."""
    evaluations_per_epoch: int = 1


def check_machine(recipe: Recipe) -> None:
    """Print what this machine does differently from the recipe. Raises RecipeError if it cannot train it."""
    problem = _argument_problem(recipe.training_arguments) or _machine_problem(recipe)
    if problem:
        raise RecipeError(problem)
    if torch.cuda.is_available():
        return
    arguments = recipe.training_arguments
    if _needs_cuda(arguments):
        print(f"optimizer {arguments['optim']} needs CUDA: adamw is used", flush=True)
    if arguments.get("fp16"):
        print(f"precision fp16 needs CUDA: {compute.name_of(compute_type(recipe))} is used", flush=True)


def _argument_problem(arguments: dict) -> str | None:
    """Return why a recipe cannot set one of these training arguments; None if it can."""
    for name in arguments:
        if name not in _KNOWN:
            return unknown("training argument", name, sorted(_KNOWN - _RESERVED))
        if name in _RESERVED:
            return (
                f"Training argument {name} is set by the trainer or by another field of the recipe: leave it out of "
                "training_arguments."
            )
    return None


def _machine_problem(recipe: Recipe) -> str | None:
    """Return why this machine cannot train the recipe; None if it can."""
    processes = machine.world_size()
    if recipe.batch_size % processes:
        return (
            f"batch_size {recipe.batch_size} cannot be shared by {processes} processes: use a multiple of {processes}."
        )
    if recipe.attention == "flash_attn" and not torch.cuda.is_available():
        return "attention flash_attn needs CUDA: use eager or sdpa."
    if recipe.attention == "flash_attn" and importlib.util.find_spec("flash_attn") is None:
        return "attention flash_attn needs its package: pip install flash-attn, or use sdpa."
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        return (
            "FSDP is not supported: each base fits one GPU many times over, and adapters are saved unsharded; launch "
            "with --multi_gpu."
        )
    return None


def _needs_cuda(arguments: dict) -> bool:
    """Return whether the optimizer moves its state between the memory of the CPU and of a GPU."""
    return str(arguments.get("optim")).startswith("paged_")


def compute_type(recipe: Recipe) -> torch.dtype:
    """Return the type in which this machine computes a training by the recipe: bf16, fp32 or fp16.

    `precision: auto` is the faster of bf16 and fp32, and so is fp16 without CUDA.
    """
    if not bases.find(recipe.base_model).architecture.autocast:
        return torch.float32
    if recipe.training_arguments.get("fp16") and torch.cuda.is_available():
        return torch.float16
    return compute.choose(None if recipe.precision == "auto" else recipe.precision)


def build(recipe: Recipe, folder: Path, schedule: Schedule) -> TrainingArguments:
    """Return the arguments of the Trainer that writes its checkpoints to `folder`.

    Raises RecipeError for arguments that transformers refuses.
    """
    extra = dict(recipe.training_arguments)
    extra.pop("fp16", None)  # follows from the type that it computes in
    if _needs_cuda(extra) and not torch.cuda.is_available():
        del extra["optim"]
    if schedule.report_to == "tensorboard":  # by default its files are in the run's folder, which is deleted at the end
        os.environ["TENSORBOARD_LOGGING_DIR"] = _TENSORBOARD or str(folder.parent / "logs" / recipe.name)
    values = _from_recipe(recipe, schedule) | _defaults(recipe, folder, schedule) | extra
    try:
        arguments = TrainingArguments(**values)
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError(f"training_arguments {extra} cannot be used: {one_line(error)}") from error
    # With two GPUs in one process the Trainer would use both, each with a full batch.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _from_recipe(recipe: Recipe, schedule: Schedule) -> dict:
    dtype = compute_type(recipe)
    return {
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": recipe.batch_size // machine.world_size() // schedule.accumulation_steps,
        "learning_rate": recipe.learning_rate,
        "warmup_steps": recipe.warmup,
        "weight_decay": recipe.weight_decay,
        # Full fine-tuning has weights in fp32 and may still compute in bf16.
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "seed": recipe.seed,
    }


def _defaults(recipe: Recipe, folder: Path, schedule: Schedule) -> dict:
    steps_per_epoch = -(-schedule.rows // recipe.batch_size)
    epochs_per_evaluation = -(-recipe.epochs // _MOST_EVALUATIONS)
    on_cpu = not torch.cuda.is_available() and not torch.backends.mps.is_available()
    return {
        "output_dir": str(folder),
        "gradient_accumulation_steps": schedule.accumulation_steps,
        "per_device_eval_batch_size": max(1, 32 // schedule.accumulation_steps),
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch_fused",  # 17 ms a step for the 22.7 M weights of MiniLM on two cores, adamw_torch takes 98
        # Batches of rows of similar length: IMDb's padding falls from over half of the tokens to a few percent.
        "train_sampling_strategy": "group_by_length",
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        # By steps: an evaluation at the end of an epoch would come after that step's checkpoint.
        "eval_strategy": "steps",
        "eval_steps": epochs_per_evaluation * steps_per_epoch // schedule.evaluations_per_epoch or 1,
        "save_strategy": "steps",
        "save_steps": max(25, steps_per_epoch // 10),
        "save_total_limit": 2,  # the older one is deleted only after the newer one is complete
        "logging_steps": max(1, steps_per_epoch // 10),
        "report_to": schedule.report_to,
        "project": "adapter-arena",
        "run_name": recipe.name,
        "trackio_space_id": os.environ.get("TRACKIO_SPACE_ID"),  # None: only on this machine
        "trackio_static_space_id": False,
        "ddp_backend": "gloo" if on_cpu and machine.world_size() > 1 else None,
        # A classifier's loss is a mean over rows, which DDP averages itself.
        "average_tokens_across_devices": False,
        "ddp_find_unused_parameters": False,
        "ddp_timeout": 4 * 3600,  # seconds; the other processes wait while the first one evaluates
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "label_names": ["labels"],
    }
