"""Every fine-tuning method: its PEFT config and its own default hyper-parameters.

A new method is one more entry in METHODS.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MethodType
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
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.dora import DoraLinearLayer
from peft.utils.integrations import dequantize_module_weight
from transformers import PretrainedConfig, TrainerCallback

from adapter_arena.errors import RecipeError, unknown
from adapter_arena.models import procedures

if TYPE_CHECKING:
    from adapter_arena.models.bases import Architecture
    from adapter_arena.recipe import Recipe


@dataclass(frozen=True)
class Method:
    """How a model is fine-tuned.

    `config` makes the PEFT config (None: every weight is trained); `base_precision` is how
    the base is held while training (`bf16`: in the type it computes in, which may be fp32); `defaults` are recipe fields, each method
    at the learning rate it needs: for full, LoRA, QLoRA, IA³, DoRA and rsLoRA chosen on the IMDb
    validation split, for the others after the literature named beside them and not yet tuned here.

    What a method does besides: `wrapped` right after PEFT has wrapped the base, `look` with batches of
    training rows, `callback` (made of the model and the checkpoint to resume) while training.
    """

    title: str
    summary: str
    config: Callable[["Recipe", "Architecture"], PeftConfig] | None
    base_precision: str = "bf16"
    defaults: dict = field(default_factory=dict)
    wrapped: Callable[[PeftModel], None] | None = None
    look: Callable[[PeftModel, list[dict[str, torch.Tensor]]], None] | None = None
    callback: Callable[[PeftModel, str | None], TrainerCallback] | None = None


def _places(recipe: "Recipe", architecture: "Architecture") -> dict:
    """What every PEFT config is told alike: the modules it adapts, those it must not, those trained in full."""
    return {
        "task_type": "SEQ_CLS",
        "target_modules": architecture.targets(recipe.target_modules),
        "exclude_modules": architecture.outside_encoder,
        "modules_to_save": list(architecture.head),
    }


def _lora(**extra) -> Callable[["Recipe", "Architecture"], PeftConfig]:
    def config(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
        return LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            **_places(recipe, architecture),
            **extra,
        )

    return config


def _ia3(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
    places = _places(recipe, architecture)
    feedforward = [name for name in places["target_modules"] if name in architecture.ia3_feedforward]
    return IA3Config(feedforward_modules=feedforward, **places)


def _adalora(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
    return AdaLoraConfig(
        target_r=recipe.rank,
        init_r=math.ceil(1.5 * recipe.rank),  # as in the paper
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        orth_reg_weight=0.1,  # the paper's for most of GLUE
        total_step=1,  # procedures.Allocate sets the true one
        **_places(recipe, architecture),
    )


def _vera(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
    places = _places(recipe, architecture)
    # VeRA has no exclude_modules, so the names and what is not to be wrapped go into one expression.
    names, outside = "|".join(map(re.escape, places["target_modules"])), places.pop("exclude_modules")
    places["target_modules"] = rf"(?!{outside}$)(.*\.)?({names})"
    return VeraConfig(r=recipe.rank, vera_dropout=recipe.dropout, **places)


def _oft(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
    return OFTConfig(oft_block_size=recipe.rank, module_dropout=recipe.dropout, **_places(recipe, architecture))


def _prompt(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
    return PromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=recipe.rank, modules_to_save=list(architecture.head)
    )


def _ln(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
    places = _places(recipe, architecture)
    places["exclude_modules"] += r"|(.*\.)?layers\.0\.attn_norm"  # ModernBERT's first layer has none, only an Identity
    return LNTuningConfig(**places)


_LORA = {"learning_rate": 1e-3, "rank": 16, "alpha": 32, "dropout": 0.0, "target_modules": "attention"}

METHODS: dict[str, Method] = {
    "lora": Method("LoRA", "low-rank updates beside frozen weights", _lora(), defaults=_LORA),
    "qlora": Method(
        "QLoRA",
        "low-rank updates beside frozen 4-bit weights",
        _lora(),
        base_precision="nf4",
        defaults=_LORA | {"rank": 8, "alpha": 16},
    ),
    "ia3": Method(
        "IA³",
        "one learned scale for each key, value and feed-forward channel",
        _ia3,
        defaults={"learning_rate": 2e-2, "target_modules": "ia3"},
    ),
    "dora": Method("DoRA", "LoRA with magnitude and direction learned apart", _lora(use_dora=True), defaults=_LORA),
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
        # arXiv:2402.12354: B at 2^4 times the rate of A, and A's rate below LoRA's.
        defaults=_LORA | {"learning_rate": 2e-4, "lr_ratio": 16.0},
    ),
    "pissa": Method(
        "PiSSA",
        "LoRA started from the weights' main directions",
        _lora(init_lora_weights="pissa"),
        # arXiv:2404.02948: alpha equal to the rank. Directions of full size need a smaller rate than B = 0.
        defaults=_LORA | {"learning_rate": 2e-4, "alpha": 16},
        wrapped=procedures.remember_pissa,
    ),
    "eva": Method(
        "EVA",
        "LoRA started from the main directions of the layers' inputs",
        # rho 1: each layer keeps its rank, so parameters can be counted before the data are read.
        _lora(init_lora_weights="eva", eva_config=EvaConfig(rho=1.0)),
        defaults=_LORA,
        look=procedures.initialise_eva,
    ),
    "adalora": Method(
        "AdaLoRA",
        "LoRA whose ranks go to the weights that need them",
        _adalora,
        # arXiv:2303.10512: 8e-4 on SST-2, every linear layer.
        defaults={"learning_rate": 8e-4, "rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"},
        callback=procedures.Allocate,
    ),
    "vera": Method(
        "VeRA",
        "learned scales between random matrices that all layers share",
        _vera,
        # arXiv:2310.11454: 4e-3 on SST-2 with RoBERTa-base, query and value; PEFT's default rank.
        defaults={"learning_rate": 4e-3, "rank": 256, "dropout": 0.0, "target_modules": "attention"},
    ),
    "oft": Method(
        "OFT",
        "weights turned by learned rotations, in blocks",
        _oft,
        # PEFT's default block size.
        defaults={"learning_rate": 1e-3, "rank": 32, "dropout": 0.0, "target_modules": "attention"},
    ),
    "prompt": Method(
        "Prompt tuning",
        "learned virtual tokens before the text",
        _prompt,
        # arXiv:2110.07602 tunes prompts of 20 and more tokens at 5e-3 to 1e-2 on encoders.
        defaults={"learning_rate": 1e-2, "rank": 20},
    ),
    "ln": Method(
        "LN tuning",
        "the layer norms alone are trained",
        _ln,
        defaults={"learning_rate": 1e-3, "target_modules": "norms"},
    ),
    "full": Method(
        "Full fine-tuning", "every weight is trained", None, base_precision="fp32", defaults={"learning_rate": 5e-5}
    ),
}


WITH_B = ("lora", "qlora", "dora", "rslora", "loraplus", "pissa", "eva")
"""Methods with LoRA's two matrices, whose learning rates may differ."""

SERVED = ("LORA", "ADALORA", "IA3", "VERA", "OFT", "LN_TUNING", "PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "HIRA")
SERVED += ("PVERA", "RANDLORA", "ROAD", "BEFT", "BOFT", "FOURIERFT", "MISS", "SHIRA", "UNILORA")
"""PEFT types that work on 4-bit weights, and whose configs reserve no more than the base's own sizes ask for."""

NO_4BIT = ("adamss", "c3a", "deft", "delora", "frod", "glora", "gralora", "hra", "loha", "lokr", "osf", "peanut")
NO_4BIT += ("psoft", "supertuning", "tinylora")
_UNBOUNDED = ("lily", "vblora", "waveft")
_WRITERS = ("adaption_prompt", "cartridge", "cpt", "shadow")
_REASONS = {
    NO_4BIT: "PEFT has no layer of it for 4-bit weights, on which every adapter is served: use lora instead",
    _WRITERS: "PEFT has it for models that write text, not for classifiers: use prompt instead",
    ("multitask_prompt_tuning", "poly"): "it is told a task's number with every text: use prompt or lora instead",
    ("xlora",): "it mixes adapters that are trained already: use one of them instead",
    _UNBOUNDED: "the config of such an adapter can reserve any memory, so none is served: use vera instead",
    ("trainable_tokens",): "it trains the embeddings of chosen tokens alone: use lora instead",
    ("prompt_tuning",): "it is called prompt here: use that instead",
    ("ln_tuning",): "it is called ln here: use that instead",
}
REFUSED = {name: why for names, why in _REASONS.items() for name in names}
"""Methods of PEFT that cannot be had here under that name, and why."""
_NO_DEFAULTS = (
    "it has no defaults here: train it with PEFT itself, its adapters for classifiers are served; or use lora instead"
)
REFUSED |= {kind.lower(): _NO_DEFAULTS for kind in SERVED if kind.lower() not in [*METHODS, *REFUSED]}


def virtual_tokens(model: torch.nn.Module) -> int:
    """Positions that the model's adapter puts before every text."""
    config = model.active_peft_config if isinstance(model, PeftModel) else None
    return getattr(config, "num_virtual_tokens", None) or 0


def fit_prompt(config: PeftConfig, shape: PretrainedConfig) -> PeftConfig:
    """Tell prompt tuning the base's sizes, which PEFT finds under some architectures' names only; returns it."""
    if isinstance(config, PromptTuningConfig):
        config.token_dim, config.num_layers = shape.hidden_size, shape.num_hidden_layers
        config.num_attention_heads = shape.num_attention_heads
    return config


def skip_casts(model: PeftModel) -> PeftModel:
    """Stop LoRA layers from widening their input to fp32, for models run under bf16 autocast; returns it.

    Autocast narrows it again before the first matrix product, so the results are the same bits;
    a training step is 12 % shorter. DoRA takes its weights' norm in its input's type and keeps the cast.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer) and not any(module.use_dora.values()):
            module.cast_input_dtype_enabled = False
    return model


def keep_norms(model: PeftModel) -> PeftModel:
    """Have DoRA's layers take their weights' norm once instead of in each pass, for serving only; returns it.

    PEFT's own caching of it keeps B times A too, which is many times an adapter's bytes.
    """
    for module in model.modules():
        if type(module) is DoraLinearLayer:  # those of embeddings are of its subclasses, and are called otherwise
            module.forward = MethodType(_dora, module)
    return model


def forget_norms(model: torch.nn.Module) -> torch.nn.Module:
    """Have the norms be taken anew, of base layers that are others now; returns the model."""
    for module in model.modules():
        if isinstance(module, DoraLinearLayer):
            vars(module).pop("scale", None)
    return model


def _dora(layer: DoraLinearLayer, x, *, lora_A, lora_B, scaling, base_layer, base_result, adapter_name) -> torch.Tensor:
    """What PEFT's layer adds to its base layer's result in inference."""
    scale = vars(layer).get("scale")
    if scale is None:
        with torch.inference_mode(False), torch.no_grad():  # an explanation needs gradients through what is kept here
            weight = dequantize_module_weight(base_layer).to(x.dtype)
            norm = layer.get_weight_norm(weight, layer.get_lora_weight(lora_A, lora_B).to(x.dtype), scaling)
            scale = vars(layer)["scale"] = (layer.weight / norm).view(1, -1)
    unbiased = base_result if base_layer.bias is None else base_result - base_layer.bias
    return (scale - 1) * unbiased + scale * lora_B(lora_A(x)) * scaling


def find(name: str) -> Method:
    """The method of that name; RecipeError with the nearest name, or why it cannot be had, when there is none."""
    if name in REFUSED:
        raise RecipeError(f"Method {name} cannot be used: {REFUSED[name]}.")
    if name not in METHODS:
        raise RecipeError(unknown("method", name, METHODS))
    return METHODS[name]
