"""What a base model is, from its config and the names of its files alone: how to adapt it, or why it is not supported."""

import functools
import json
import re
from collections.abc import Iterable

import torch
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from adapter_arena.errors import BaseModelError, one_line, shortened_list
from adapter_arena.models import architecture
from adapter_arena.models.architecture import Architecture

KINDS = tuple(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
"""The model types for which transformers has a text classifier."""
NO_AUTOCAST = {
    "deberta-v2": "its mask has the type of the queries, which differs from that of the scores under autocast",
    "deberta": "it fills its scores with fp32's lowest number, which bf16 does not have",
    "doge": "it fills its mask with fp32's lowest number, which bf16 does not have",
}
"""Model types that compute in fp32 on every machine, and why."""
REFUSED = {
    "layoutlm": "it reads documents with the place of each word",
    "layoutlmv2": "it reads images of documents",
    "layoutlmv3": "it reads images of documents",
    "lilt": "it reads documents with the place of each word",
    "markuplm": "it reads web pages",
    "t5gemma": "its decoder reads the padding of a batch, so an answer would depend on the batch",
    "zamba": "layers that share weights, as its do, have not been tested in 4 bits",
    "zamba2": "layers that share weights, as its do, have not been tested in 4 bits",
    "tapas": "it reads tables",
    "mra": "its attention is a CUDA kernel of its own, and zero without it",
    "reformer": "it can be trained on texts of one length only",
    "funnel": "it averages neighbouring tokens, also with padding, so an answer would depend on the batch",
    "xmod": "it needs the language of each text",
    "xlnet": "its head reads the last position, which is padding in all but the longest text of a batch",
}
"""Model types with a classifier that is not for plain texts of any length, and why."""
_LABELS = 37
"""Number of labels of the inspected model; no other layer has as many outputs."""
_MOST_LAYERS = 512
_MOST_ITEMS = 100_000
_LARGEST = 2**40
"""The largest integer in a config. Weights of such a size are never made: the module tree is built without them."""


def load_config(base_id: str, text: str) -> dict:
    """Return the content of a `config.json`. Raises BaseModelError if the model is not supported, with the reason."""
    try:
        config = json.loads(text)
    except ValueError as error:
        raise BaseModelError(
            f"Base model {base_id}: config.json is not JSON ({one_line(error)}); save it again."
        ) from error
    if not isinstance(config, dict):
        raise BaseModelError(f"Base model {base_id}: config.json is not a JSON object; save the model again.")
    problem = _config_problem(config)
    if problem:
        raise BaseModelError(f"Base model {base_id} {problem}.")
    inspect(base_id, config)
    return config


def inspect(base_id: str, config: dict) -> Architecture:
    """Return the architecture of the model with this config. Raises BaseModelError if it cannot be established."""
    try:
        return _inspect(json.dumps(config, sort_keys=True))
    except BaseModelError as error:
        raise BaseModelError(f"Base model {base_id} {error}: use another base model.") from error


@functools.lru_cache(maxsize=64)
def _inspect(config: str) -> Architecture:
    model = meta_model(json.loads(config), _LABELS)
    return architecture.derive(model, autocast=model.config.model_type not in NO_AUTOCAST)


def meta_model(config: dict, num_labels: int = 2) -> PreTrainedModel:
    """Return the model's module tree at full size without weights; needs no network. Raises BaseModelError."""
    try:
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(make_config(config, num_labels=num_labels))
    except Exception as error:  # whatever a config from a stranger makes transformers raise
        raise BaseModelError(f"cannot be built from its config.json ({one_line(error)})") from error


def make_config(config: dict, **overrides) -> PretrainedConfig:
    """Return transformers' config for the content of a `config.json`, or of a part of it for the rest's defaults."""
    config = {name: value for name, value in config.items() if name not in ("id2label", "label2id")}
    return CONFIG_MAPPING[config["model_type"]].from_dict(config, **overrides)


def files_problem(names: Iterable[str]) -> str | None:
    """Return why a folder or repo with these files is not a base model, or None if it may be one.

    The text completes the sentence "Base model x …" and names the next step.
    """
    names = set(names)
    has_safetensors = "model.safetensors" in names or "model.safetensors.index.json" in names
    if "adapter_config.json" in names and not has_safetensors:
        return "is an adapter and not a base model: name the base model it was trained on"
    if not has_safetensors and any(name.lower().endswith(".gguf") for name in names):
        return "is a GGUF file for llama.cpp: name the original model it was converted from"
    if "config.json" not in names:
        return "has no config.json: name a model in transformers' format"
    if has_safetensors:
        return None
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
        return (
            "has only pickled weights (.bin), which can run code as they are loaded: convert it to safetensors with "
            "https://huggingface.co/spaces/safetensors/convert"
        )
    return "has no model.safetensors: name a model with weights in safetensors"


def unused_files(names: Iterable[str]) -> str | None:
    """Return what a sentence-transformers model has that a classifier does not use, or None."""
    if any(re.match(r"\d+_Dense/", name) for name in names):
        return "its Dense layer after the pooling is not used"
    return None


def _config_problem(config: dict) -> str | None:
    """Return why a model with this config is not supported, before anything is built from it."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        return "has no model_type in its config.json: save the model again with transformers"
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    if any(f"{sense}_config" in part for part in parts for sense in ("vision", "image", "audio")):
        return f"reads images or sound as well ({model_type}): use a text-only model of its family"
    if model_type in REFUSED:
        return f"is a {model_type}, which is not supported, since {REFUSED[model_type]}: use another base model"
    if model_type not in KINDS:
        if "auto_map" in config:
            return f"needs code from its repo (model_type {model_type:.40}), which is never run: use another base model"
        return (
            f"has no text classifier in transformers (model_type {model_type:.40}); "
            f"kinds that have one: {shortened_list(list(KINDS))}"
        )
    if "quantization_config" in config:
        method = str((config["quantization_config"] or {}).get("quant_method", "unknown"))
        return f"is already quantised ({method:.40}): name the original model"
    return _size_problem(config)


def _size_problem(config: dict) -> str | None:
    """Return the first size in the config that no model has, or None."""
    remaining = list(config.items())
    while remaining:
        name, value = remaining.pop()
        if isinstance(value, dict | list) and len(value) > _MOST_ITEMS:
            return f"has {len(value):,} entries in {name:.40} of its config.json, more than any model: use another one"
        if isinstance(value, dict):
            remaining.extend((str(key), item) for key, item in value.items())
        elif isinstance(value, list):
            remaining.extend((name, item) for item in value)
        elif isinstance(value, int):
            limit = _MOST_LAYERS if re.search("layers?$", name) else _LARGEST
            if abs(value) > limit:
                return f"has {name:.40} {value:,} in its config.json, more than any model: use another one"
    return None
