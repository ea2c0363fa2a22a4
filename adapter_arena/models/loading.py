"""Loading a base model: its tokenizer, and its weights in 4, 16 or 32 bits with a new classification head."""

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from adapter_arena.errors import BaseModelError, unknown
from adapter_arena.models import compute, quantise
from adapter_arena.models.bases import Architecture, Base, locate
from adapter_arena.models.fast import attention

PRECISIONS = ("nf4", "bf16", "fp32")
_ATTENTION = {"eager": attention.NAME, "sdpa": "sdpa", "flash_attn": "flash_attention_2"}
"""Names in transformers of the kernels in a recipe."""


def load_tokenizer(base: Base) -> PreTrainedTokenizerBase:
    """Return the base model's fast tokenizer."""
    return AutoTokenizer.from_pretrained(locate(base), local_files_only=True)


def load_model(
    base: Base,
    precision: str = "nf4",
    num_labels: int = 2,
    kernel: str = "eager",
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """Return the base model with a new classification head of `num_labels`, in eval mode and without dropout.

    The last layer is random: seed torch first for a repeatable one. `dtype` is the type the model computes in, see
    `compute.type_for`; run it inside `compute.autocast(model)`. With `nf4` the encoder's linear layers are in 4 bits.
    The head and the normalisation layers are in fp32: with the rest in bf16, this is the one mixture in which every
    PEFT type trains and serves. Raises BaseModelError.
    """
    if precision not in PRECISIONS:
        raise BaseModelError(unknown("precision", precision, PRECISIONS))
    dtype = compute.type_for(base, precision, dtype)
    config = _config_overrides(base, kernel)
    if precision == "nf4":
        model = quantise.load_nf4(base, **config)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(
            locate(base), dtype=dtype, local_files_only=True, use_safetensors=True, **config
        )
    reset_head(model, base.architecture, num_labels)
    return compute.prepare(attention.first_token_only(model), dtype)


def _config_overrides(base: Base, kernel: str) -> dict:
    """Return the config values that choose the attention kernel and disable the base model's dropout.

    Measured: drawing dropout masks was 40-50 % of a CPU training step, and attention dropout forces the slow attention
    path. The adapter has a dropout of its own.
    """
    config = AutoConfig.from_pretrained(locate(base), local_files_only=True)
    overrides: dict = {"attn_implementation": attention_implementation(base, kernel)}
    for name in config.to_dict():
        if name.endswith(("dropout", "dropout_prob", "drop_out")):
            overrides[name] = 0.0
    return overrides


def attention_implementation(base: Base, kernel: str = "eager") -> str:
    """Return the name in transformers of a kernel in a recipe.

    `eager`, the default, is our own attention, except in DeBERTa, which has its own: training runs at 35 reviews/s
    instead of 26 with SDPA, whose backward pass with a mask is slow on CPU.
    """
    if base.model_type == "deberta-v2" and kernel == "eager":
        return "eager"
    return _ATTENTION[kernel]


def reset_head(model: PreTrainedModel, architecture: Architecture, num_labels: int) -> None:
    """Give the model a new random last layer with `num_labels` outputs."""
    parent_name, _, name = architecture.logits.rpartition(".")
    parent = model.get_submodule(parent_name)
    old = getattr(parent, name)
    new = nn.Linear(old.in_features, num_labels, dtype=torch.float32, device=old.weight.device)
    nn.init.normal_(new.weight, std=getattr(model.config, "initializer_range", 0.02))
    nn.init.zeros_(new.bias)
    setattr(parent, name, new)
    model.config.num_labels = num_labels
    model.num_labels = num_labels


def position_limit(model: PreTrainedModel) -> int:
    """Return the number of positions of the model, for special tokens and an adapter's virtual tokens too."""
    config = model.config
    if config.model_type == "roberta":
        # It counts positions from the padding's id + 1, so the first two of its 514 are never used.
        return config.max_position_embeddings - config.pad_token_id - 1
    return config.max_position_embeddings


def meta_model(base: Base, num_labels: int = 2) -> PreTrainedModel:
    """Return the base model's module tree at full size without weights, to count parameters; needs no network."""
    if base.folder:
        config = AutoConfig.from_pretrained(base.folder, num_labels=num_labels)
    else:
        config = AutoConfig.for_model(base.model_type, num_labels=num_labels, **base.config)
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)
