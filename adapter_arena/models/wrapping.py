"""Building PEFT models from the config of an adapter, and the tensors that such a model has.

PEFT's own `from_pretrained` reads a folder, ignores tensors that it does not know, and leaves those that are missing
at random values. Here the tensors are matched before anything is built, see `adapters.layout`.
"""

import copy
import functools
import inspect
import json
import warnings
from collections.abc import Mapping

import torch
from peft import PeftConfig, PeftModel, PeftModelForSequenceClassification, PeftType, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING
from peft.utils import set_peft_model_state_dict
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from adapter_arena.models import bases, loading
from adapter_arena.models.bases import Base, locate

Tensors = dict[str, torch.Tensor]
"""Tensors of the meta device, which have a shape and a type, by name."""


def prefixes(peft_type: str) -> tuple[str, ...]:
    """Return how the names of an adapter's own parameters begin."""
    return PEFT_TYPE_TO_PREFIX_MAPPING.get(PeftType(peft_type), ""), f"{peft_type.lower()}_"


def known_fields(peft_type: str) -> set[str]:
    """Return the fields that this version of PEFT knows for the type."""
    return set(inspect.signature(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(peft_type)].__init__).parameters)


def wrap(model: PreTrainedModel, config: dict) -> PeftModel:
    """Return the model with a new adapter of this config, whose fields PEFT must know. Raises what PEFT raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft_config = PeftConfig.from_peft_type(**config)
        peft_config.inference_mode = True
        return PeftModelForSequenceClassification(model, peft_config, adapter_name="default")


def assign(model: PeftModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Set all tensors of the model's adapter. Raises ValueError if one of them has no place in the model."""
    if getattr(model.active_peft_config, "bias", "none") != "none":
        _own_biases(model)
    # Prompts would keep the file's type and then be computed in it.
    wide = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    result = set_peft_model_state_dict(model, wide)
    unexpected = [name for name in result.unexpected_keys if name != "prompt_embeddings"]
    if unexpected:
        raise ValueError(f"{len(unexpected)} tensors have no place in the model, the first is {unexpected[0]}")


def _own_biases(model: nn.Module) -> None:
    """Give the model biases of its own, since those of the base are shared by all adapters."""
    for module in model.modules():
        if module._parameters.get("bias") is not None:
            module.bias = nn.Parameter(module.bias.detach().clone(), requires_grad=False)


def tensors_of_adapter(config: dict, base: Base, outputs: int) -> Tensors:
    """Return the tensors that PEFT saves for an adapter of this config. Raises what PEFT raises.

    It takes about 0.1 s; adapters of one recipe have the same tensors.
    """
    in_any_order = {}
    for name, value in config.items():
        is_set = name in ("target_modules", "modules_to_save", "feedforward_modules") and isinstance(value, list)
        in_any_order[name] = sorted(map(str, value)) if is_set else value
    return _tensors_of_adapter(json.dumps(in_any_order, sort_keys=True), base, outputs)


@functools.lru_cache(maxsize=64)
def _tensors_of_adapter(config: str, base: Base, outputs: int) -> Tensors:
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                model = wrap(empty_model(base, outputs), json.loads(config))
                return _without_values(get_peft_model_state_dict(model, save_embedding_layers=False))
        except (RuntimeError, NotImplementedError):
            # BOFT, SHiRA and UniLoRA read values as they are built. Memory that is not written takes no room.
            model = wrap(empty_model(base, outputs).to_empty(device="cpu"), json.loads(config))
            return _without_values(get_peft_model_state_dict(model, save_embedding_layers=False))


def encoder(base: Base) -> str:
    """Return the name of the encoder in a classifier on the base, such as `bert`."""
    return _empty_model(base).base_model_prefix


def empty_model(base: Base, outputs: int) -> PreTrainedModel:
    """Return the base model's module tree without weights, with a head of `outputs`."""
    model = bases.skeleton(_empty_model(base))
    model.config = copy.deepcopy(model.config)
    with torch.device("meta"):
        loading.reset_head(model, base.architecture, outputs)
    return model


@functools.lru_cache(maxsize=4)
def _empty_model(base: Base) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(locate(base), local_files_only=True)
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def tensors_of_model(base: Base, outputs: int) -> Tensors:
    """Return the tensors of the complete model with a head of `outputs`."""
    return _without_values(empty_model(base, outputs).state_dict())


def _without_values(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {name: tensor.to("meta") for name, tensor in tensors.items()}
