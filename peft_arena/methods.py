"""Every fine-tuning method: its PEFT config and its own default hyper-parameters.

A new method is one more entry in METHODS.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peft import IA3Config, LoraConfig, PeftConfig

from .errors import RecipeError, unknown

if TYPE_CHECKING:
    from .bases import Architecture
    from .recipes import Recipe


@dataclass(frozen=True)
class Method:
    """How a model is fine-tuned.

    `config` makes the PEFT config (None: every weight is trained); `base_precision` is the
    precision the base is held in while training; `defaults` are recipe fields, each method
    at the learning rate it needs (chosen on the IMDb validation split).
    """

    title: str
    summary: str
    config: Callable[["Recipe", "Architecture"], PeftConfig] | None
    base_precision: str = "bf16"
    defaults: dict = field(default_factory=dict)


def _lora(**extra) -> Callable[["Recipe", "Architecture"], PeftConfig]:
    def config(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
        return LoraConfig(
            task_type="SEQ_CLS",
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            target_modules=architecture.targets(recipe.target_modules),
            exclude_modules=architecture.outside_encoder,
            modules_to_save=list(architecture.head),
            **extra,
        )

    return config


def _ia3(recipe: "Recipe", architecture: "Architecture") -> PeftConfig:
    targets = architecture.targets(recipe.target_modules)
    return IA3Config(
        task_type="SEQ_CLS",
        target_modules=targets,
        feedforward_modules=[name for name in targets if name in architecture.ia3_feedforward],
        exclude_modules=architecture.outside_encoder,
        modules_to_save=list(architecture.head),
    )


_LORA = {"learning_rate": 1e-3, "rank": 16, "alpha": 32, "dropout": 0.0, "target_modules": "attention"}

METHODS: dict[str, Method] = {
    "lora": Method("LoRA", "low-rank updates beside frozen bf16 weights", _lora(), defaults=_LORA),
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
    "full": Method(
        "Full fine-tuning", "every weight is trained", None, base_precision="fp32", defaults={"learning_rate": 5e-5}
    ),
}


def find(name: str) -> Method:
    """The method of that name; RecipeError with the nearest name when there is none."""
    if name not in METHODS:
        raise RecipeError(unknown("method", name, METHODS))
    return METHODS[name]
