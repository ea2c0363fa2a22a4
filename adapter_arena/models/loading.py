"""Loading a base model: its tokenizer, and its weights in 4, 16 or 32 bits with a new classification head."""

import re
import sys

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from adapter_arena.errors import BaseModelError, one_line
from adapter_arena.models import compute, decoders, inspect, quantise
from adapter_arena.models.architecture import Architecture
from adapter_arena.models.bases import Base, locate
from adapter_arena.models.fast import attention, causal, fused

_ATTENTION = {"eager": attention.NAME, "sdpa": "sdpa", "flash_attn": "flash_attention_2"}
"""Names in transformers of the kernels in a recipe."""


_OWN_ATTENTION = (*fused.MODEL_TYPES, "distilbert", "modernbert")
"""Model types that run on the attention of this project; others use transformers' choice for them."""
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
"""Names in configs for the number of positions."""


def load_tokenizer(base: Base) -> PreTrainedTokenizerBase:
    """Return the base model's fast tokenizer, which pads on the right. Raises BaseModelError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(locate(base), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise BaseModelError(
            f"Base model {base.id} has no tokenizer that can be loaded ({one_line(error)})."
        ) from error
    if not tokenizer.is_fast:
        raise BaseModelError(f"Base model {base.id} has no fast tokenizer (tokenizer.json): use another base model.")
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        # What most people set. A classifier of transformers reads the last token that is not padding.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
    if tokenizer.pad_token is None:
        raise BaseModelError(f"Base model {base.id} has no token to pad with: use another base model.")
    if base.architecture.is_encoder_decoder:
        # Its head reads the end-of-text token, so a text that contains one must not be read as two.
        tokenizer.split_special_tokens = True
    return tokenizer


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
    dtype = compute.type_for(base, precision, dtype)
    config = {"overrides": _without_dropout(base), "attn_implementation": attention_implementation(base, kernel)}
    if precision == "nf4":
        model = quantise.load_nf4(base, **config)
    else:
        model = quantise.load_weights(locate(base), base.architecture, dtype=dtype, **config)
    reset_head(model, base.architecture, num_labels)
    if base.architecture.pools_last_token:
        decoders.prepare(model, base.architecture, load_tokenizer(base).pad_token_id)
    return compute.prepare(attention.first_token_only(model), dtype)


def _without_dropout(base: Base) -> dict[str, float]:
    """Return the config values that disable the base model's dropout.

    Measured: drawing dropout masks was 40-50 % of a CPU training step, and attention dropout forces the slow attention
    path. The adapter has a dropout of its own.
    """
    config = inspect.make_config(base.full_config)
    overrides = {}
    for name, value in config.to_dict().items():
        if name.endswith(("dropout", "dropout_prob", "drop_out", "pdrop")) and isinstance(value, float):
            overrides[name] = 0.0
    return overrides


def attention_implementation(base: Base, kernel: str = "eager") -> str | None:
    """Return the name in transformers of a kernel in a recipe; None for transformers' choice for the model.

    `eager`, the default, is our own attention for BERT and its like: training runs at 35 reviews/s instead of 26 with
    SDPA, whose backward pass with a mask is slow on CPU.
    """
    if kernel != "eager" or base.model_type in _OWN_ATTENTION:
        return _ATTENTION[kernel]
    if base.config.get("attn_logit_softcapping"):  # only eager attention has it
        return "eager"
    return causal.NAME if base.model_type in causal.MODEL_TYPES else None


def reset_head(model: PreTrainedModel, architecture: Architecture, num_labels: int) -> None:
    """Give the model a new random last layer with `num_labels` outputs."""
    parent_name, _, name = architecture.logits.rpartition(".")
    parent = model.get_submodule(parent_name)
    old = getattr(parent, name)
    has_bias = old.bias is not None
    new = nn.Linear(old.in_features, num_labels, bias=has_bias, dtype=torch.float32, device=old.weight.device)
    nn.init.normal_(new.weight, std=getattr(model.config, "initializer_range", 0.02))
    if has_bias:
        nn.init.zeros_(new.bias)
    setattr(parent, name, new)
    model.config.num_labels = num_labels
    model.num_labels = num_labels


def position_limit(model: PreTrainedModel) -> int:
    """Return the number of positions of the model, for special tokens and an adapter's virtual tokens too.

    It is `sys.maxsize` for a model without a limit.
    """
    config = model.config.get_text_config()
    limits = [getattr(config, name, None) for name in _POSITIONS]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and re.search("position|wpe", name.rpartition(".")[2]):
            # RoBERTa and its like count from the padding's id + 1, so the first two of 514 positions are never used.
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - unused)
    return min((limit for limit in limits if limit), default=sys.maxsize)


def meta_model(base: Base, num_labels: int = 2) -> PreTrainedModel:
    """Return the base model's module tree at full size without weights, to count parameters; needs no network."""
    return inspect.meta_model(base.full_config, num_labels)
