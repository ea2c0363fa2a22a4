"""The fine-tuning methods: for each its PEFT config and its default hyper-parameters.

A new method is one more entry in METHODS.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from peft import (
    AdaLoraConfig,
    EvaConfig,
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    PromptTuningConfig,
    VeraConfig,
)
from transformers import TrainerCallback

from adapter_arena.errors import RecipeError, unknown
from adapter_arena.models import procedures

if TYPE_CHECKING:
    from adapter_arena.models.architecture import Architecture
    from adapter_arena.recipe import Recipe

ConfigFactory = Callable[["Recipe", "Architecture"], PeftConfig]


@dataclass(frozen=True)
class Method:
    """How a model is fine-tuned, and the recipe fields that differ from their defaults.

    Each method has its own learning rate. Those of full, LoRA, QLoRA, IA³, DoRA and rsLoRA were chosen on the IMDb
    validation split; the others follow the paper named next to them and are not yet tuned here.
    """

    title: str
    summary: str
    config: ConfigFactory | None
    """Makes the PEFT config; None if every weight is trained."""
    base_precision: str = "bf16"
    """Precision of the base during training; `bf16` means the type it computes in, which may be fp32."""
    defaults: dict = field(default_factory=dict)
    after_wrapping: Callable[[PeftModel], None] | None = None
    """Called with the model as soon as PEFT has wrapped the base."""
    initialise: Callable[[PeftModel, list[dict[str, torch.Tensor]]], None] | None = None
    """Called with the model and batches of training rows before the first step."""
    callback: Callable[[PeftModel, str | None], TrainerCallback] | None = None
    """Makes a callback of the Trainer from the model and the path of the checkpoint to resume."""
    merges: bool = True
    """Whether PEFT can merge an adapter into the base's weights."""
    converts_to_lora: bool = True
    """Whether an adapter is a LoRA, or PEFT can convert it to one, which other serving engines load."""


def _module_lists(recipe: "Recipe", architecture: "Architecture") -> dict:
    """Return the fields that most PEFT configs share: which modules are adapted, excluded and trained in full."""
    targets = architecture.targets(recipe.target_modules)
    if not targets:
        raise RecipeError(
            f"{recipe.base_model} has no weights among {recipe.target_modules!r} to adapt: use --method lora."
        )
    return {
        "task_type": "SEQ_CLS",
        "target_modules": targets,
        "exclude_modules": architecture.outside_encoder,
        "modules_to_save": list(architecture.head),
    }


def _lora(**options) -> ConfigFactory:
    """Return a factory of LoRA configs with these options."""

    def config(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
        return LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            **_module_lists(recipe, architecture),
            **options,
        )

    return config


def _ia3(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
    modules = _module_lists(recipe, architecture)
    feedforward = [name for name in modules["target_modules"] if name in architecture.ia3_feedforward]
    return IA3Config(feedforward_modules=feedforward, **modules)


def _adalora(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
    return AdaLoraConfig(
        target_r=recipe.rank,
        init_r=math.ceil(1.5 * recipe.rank),  # as in the paper
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        orth_reg_weight=0.1,  # the paper's value for most of GLUE
        total_step=1,  # required by PEFT; procedures.AdaLoraCallback sets the real number
        **_module_lists(recipe, architecture),
    )


def _vera(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
    modules = _module_lists(recipe, architecture)
    # VeRA has no exclude_modules, so one expression names the modules to adapt and those to exclude.
    excluded = modules.pop("exclude_modules")
    names = "|".join(map(re.escape, modules["target_modules"]))
    modules["target_modules"] = rf"(?!{excluded}$)(.*\.)?({names})"
    return VeraConfig(r=recipe.rank, vera_dropout=recipe.dropout, **modules)


def _oft(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
    return OFTConfig(oft_block_size=recipe.rank, module_dropout=recipe.dropout, **_module_lists(recipe, architecture))


def _prompt(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
    if architecture.embedding_size is None:
        raise RecipeError(
            f"{recipe.base_model} reads tokens only, so it cannot have virtual tokens: use --method lora."
        )
    return PromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=recipe.rank, modules_to_save=list(architecture.head)
    )


def _ln(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
    modules = _module_lists(recipe, architecture)
    # In ModernBERT's first layer attn_norm is an Identity.
    modules["exclude_modules"] += r"|(.*\.)?layers\.0\.attn_norm"
    return LNTuningConfig(**modules)


_LORA = {"learning_rate": 1e-3, "rank": 16, "alpha": 32, "dropout": 0.0, "target_modules": "attention"}

METHODS: dict[str, Method] = {
    "lora": Method("LoRA", "low-rank updates in addition to frozen weights", _lora(), defaults=_LORA),
    "qlora": Method(
        "QLoRA",
        "low-rank updates in addition to frozen 4-bit weights",
        _lora(),
        base_precision="nf4",
        defaults=_LORA | {"rank": 8, "alpha": 16},
    ),
    "ia3": Method(
        "IA³",
        "one learned scale for each key, value and feed-forward channel",
        _ia3,
        defaults={"learning_rate": 2e-2, "target_modules": "ia3"},
        converts_to_lora=False,
    ),
    "dora": Method(
        "DoRA", "LoRA with magnitude and direction learned separately", _lora(use_dora=True), defaults=_LORA
    ),
    "rslora": Method(
        "rsLoRA",
        "LoRA scaled by alpha over the root of the rank",
        _lora(use_rslora=True),
        defaults=_LORA | {"alpha": 8},
    ),
    "loraplus": Method(
        "LoRA+",
        "LoRA whose B matrices learn faster than its A matrices",
        _lora(),
        # arXiv:2402.12354: 2^4 times A's learning rate for B, and for A a lower one than LoRA's.
        defaults=_LORA | {"learning_rate": 2e-4, "lr_ratio": 16.0},
    ),
    "pissa": Method(
        "PiSSA",
        "LoRA initialised with the principal directions of the weights",
        _lora(init_lora_weights="pissa"),
        # arXiv:2404.02948: alpha equals the rank. B starts at full size, not at 0, and needs a lower learning rate.
        defaults=_LORA | {"learning_rate": 2e-4, "alpha": 16},
        after_wrapping=procedures.save_pissa_start,
    ),
    "eva": Method(
        "EVA",
        "LoRA initialised with the principal directions of the layers' inputs",
        # With rho 1 each layer keeps its rank, so parameters can be counted before the data are read.
        _lora(init_lora_weights="eva", eva_config=EvaConfig(rho=1.0)),
        defaults=_LORA,
        initialise=procedures.initialise_eva,
    ),
    "adalora": Method(
        "AdaLoRA",
        "LoRA whose rank budget goes to the most important weights",
        _adalora,
        # arXiv:2303.10512: 8e-4 on SST-2, every linear layer.
        defaults={"learning_rate": 8e-4, "rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"},
        callback=procedures.AdaLoraCallback,
        converts_to_lora=False,
    ),
    "vera": Method(
        "VeRA",
        "learned scales between random matrices that all layers share",
        _vera,
        # arXiv:2310.11454: 4e-3 on SST-2 with RoBERTa-base, query and value. PEFT's default rank.
        defaults={"learning_rate": 4e-3, "rank": 256, "dropout": 0.0, "target_modules": "attention"},
    ),
    "oft": Method(
        "OFT",
        "weights multiplied by learned block-wise rotations",
        _oft,
        # PEFT's default block size.
        defaults={"learning_rate": 1e-3, "rank": 32, "dropout": 0.0, "target_modules": "attention"},
        converts_to_lora=False,
    ),
    "prompt": Method(
        "Prompt tuning",
        "learned virtual tokens before the text",
        _prompt,
        # arXiv:2110.07602: prompts of 20 and more tokens at 5e-3 to 1e-2 on encoders.
        defaults={"learning_rate": 1e-2, "rank": 20},
        merges=False,
        converts_to_lora=False,
    ),
    "ln": Method(
        "LN tuning",
        "only the layer norms are trained",
        _ln,
        defaults={"learning_rate": 1e-3, "target_modules": "norms"},
        converts_to_lora=False,
    ),
    "full": Method(
        "Full fine-tuning",
        "every weight is trained",
        None,
        base_precision="fp32",
        defaults={"learning_rate": 5e-5},
        converts_to_lora=False,
    ),
}


WITH_B = ("lora", "qlora", "dora", "rslora", "loraplus", "pissa", "eva")
"""Methods with LoRA's matrices A and B, which may have different learning rates."""


def find(name: str) -> Method:
    """Return the method of that name. Raises RecipeError, with the nearest name, for an unknown one."""
    if name not in METHODS:
        raise RecipeError(unknown("method", name, METHODS))
    return METHODS[name]
