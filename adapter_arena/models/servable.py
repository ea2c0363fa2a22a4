"""Which adapters can be served on a 4-bit base, decided by their configs.

Adapters come from strangers, and PEFT allocates memory for the sizes in a config before it reads any weights. So
every size in a config is limited, and fields that run code or change the base are refused.
"""

from peft import PeftModel
from torch import nn
from transformers import AutoConfig, PretrainedConfig

from adapter_arena.errors import shortened_list
from adapter_arena.models.bases import ALIASES, Base, locate

PEFT_TYPES = (
    "LORA",
    "ADALORA",
    "IA3",
    "VERA",
    "OFT",
    "LN_TUNING",
    "PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "HIRA",
    "PVERA",
    "RANDLORA",
    "ROAD",
    "BEFT",
    "BOFT",
    "FOURIERFT",
    "MISS",
    "SHIRA",
    "UNILORA",
)
"""The PEFT types that can be served.

PEFT's other types have no layers for 4-bit weights (LoHa, LoKr, …), are for text generation (CPT, …), or have configs
that can allocate any amount of memory (Lily, VB-LoRA, WaveFT).
"""
MAX_SIZE = 1024
"""The largest rank or other size in a config, and the longest list."""
_PROMPT_TYPES = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")
_FACTORS = {"lora_alpha", "alpha_pattern", "randlora_alpha"}
_TRAINING_SETTINGS = {"tinit", "tfinal", "deltaT", "total_step", "encoder_hidden_size"}
_SEEDS = {"projection_prng_key", "generator_seed", "random_loc_seed", "random_seed", "proj_seed"}
_TOKEN_IDS = {"alora_invocation_tokens", "trainable_token_indices"}
_NOT_SIZES = _FACTORS | _TRAINING_SETTINGS | _SEEDS | _TOKEN_IDS
"""Fields whose numbers allocate nothing."""
_FORBIDDEN = {
    "auto_map": "runs its own code",
    "auto_mapping": "loads its own classes",
    "layer_replication": "repeats the base's layers any number of times",
    "monteclora_config": "allocates any number of samples",
}
"""Config fields that an adapter may not set, and what they do."""


def virtual_tokens(model: nn.Module) -> int:
    """Return the number of virtual tokens that the model's adapter puts before every text."""
    if not isinstance(model, PeftModel):
        return 0
    return getattr(model.active_peft_config, "num_virtual_tokens", None) or 0


def adapter_problem(config: dict, base: Base) -> str | None:
    """Return why an adapter with this `adapter_config.json` cannot be served on the base, or None if it can.

    The text completes the sentence "Adapter x …" and names the next step.
    """
    return (
        _forbidden_field(config)
        or _unsupported_type(config)
        or _wrong_base(str(config.get("base_model_name_or_path")), base)
        or _base_changed_on_loading(config)
        or _wrong_size(config, _prompt_sizes(config, base), base)
    )


def full_model_problem(config: dict, base_model: str, embeddings: list[int] | None, base: Base) -> str | None:
    """Return why a fully fine-tuned model with this `config.json` cannot be served with the base, or None if it can.

    `base_model` is the model it was trained from and `embeddings` the shape of its word embeddings. The model is built
    from its config whatever its weights are, so all sizes must be the base's. The text is like `adapter_problem`'s.
    """
    base_config = _load_config(base)
    return (
        _forbidden_field(config)
        or _wrong_base(base_model, base)
        or _other_architecture(config, embeddings, base_config, base)
        or _wrong_size(config, _sizes_of_base(base_config), base)
    )


def _load_config(base: Base) -> PretrainedConfig:
    return AutoConfig.from_pretrained(locate(base), local_files_only=True)


def _forbidden_field(config: dict) -> str | None:
    for name, effect in _FORBIDDEN.items():
        if config.get(name):
            return f"sets {name}, which {effect} and is not allowed: use another adapter"
    return None


def _unsupported_type(config: dict) -> str | None:
    peft_type = config.get("peft_type")
    if peft_type not in PEFT_TYPES:
        return f"has PEFT type {peft_type!r:.40}, which is not supported; supported: {shortened_list(PEFT_TYPES)}"
    task = config.get("task_type")
    if task != "SEQ_CLS":
        return f"is for task {task!r:.40}, not SEQ_CLS: use a text classifier"
    return None


def _wrong_base(base_model: str, base: Base) -> str | None:
    if ALIASES.get(base_model, base_model) in (base.id, base.label):
        return None
    return f"is for base model {shortened_list([base_model])}, not {base.label}: start the app with that base"


def _base_changed_on_loading(config: dict) -> str | None:
    start = str(config.get("init_lora_weights")).lower()
    if not start.startswith(("pissa", "olora", "corda")):  # PEFT subtracts these from the base's weights
        return None
    return (
        f"changes the base's weights as it is loaded (init_lora_weights {start:.20}), which is not supported: "
        "convert it to plain LoRA with path_initial_model_for_weight_conversion"
    )


def _other_architecture(
    config: dict, embeddings: list[int] | None, base_config: PretrainedConfig, base: Base
) -> str | None:
    if embeddings != [base_config.vocab_size, base_config.hidden_size]:
        return f"is not a fine-tuned {base.label}, since its embeddings have another shape: start the app with its base"
    if config.get("model_type") != base_config.model_type:
        return (
            f"is not a fine-tuned {base.label}, since its model_type is not {base_config.model_type}: "
            "start the app with its base"
        )
    return None


def _prompt_sizes(config: dict, base: Base) -> dict[str, int]:
    """Return the sizes that a prompt's config must share with the base; none for other types."""
    if config["peft_type"] not in _PROMPT_TYPES:
        return {}
    base_config = _load_config(base).get_text_config()
    return {
        "token_dim": base.architecture.embedding_size,
        "num_layers": base_config.num_hidden_layers,
        "num_attention_heads": getattr(base_config, "num_attention_heads", 1),
        "num_transformer_submodules": 1,
    }


def _sizes_of_base(base_config: PretrainedConfig) -> dict[str, int]:
    """Return every integer of the base's config, also under the names that transformers maps to it."""
    sizes = {key: value for key, value in base_config.to_dict().items() if type(value) is int}
    for alias, key in base_config.attribute_map.items():
        if key in sizes:
            sizes[alias] = sizes[key]
    return sizes


def _wrong_size(config: dict, base_sizes: dict[str, int], base: Base) -> str | None:
    """Return the problem of the first size that differs from the base's or, for other fields, is over MAX_SIZE."""
    for key, value in config.items():
        name = "rank" if key == "r" else shortened_list([key])
        if key in base_sizes:
            if value not in (None, base_sizes[key]):
                return f"has {name} {value!r:.40}, but {base.label} has {base_sizes[key]}: use an adapter of this base"
            continue
        size = _largest_size(value, only_lengths=key in _NOT_SIZES)
        if size > MAX_SIZE:
            return f"has {name} {size!r:.40}, over the limit of {MAX_SIZE:,}: use another adapter"
    return None


def _largest_size(value: object, only_lengths: bool) -> int:
    """Return the largest integer in a JSON value and the largest length of a list or object; other numbers are no sizes."""
    largest = 0
    remaining = [value]
    while remaining:
        item = remaining.pop()
        if isinstance(item, dict):
            largest = max(largest, len(item))
            remaining.extend(item.values())
        elif isinstance(item, list):
            largest = max(largest, len(item))
            remaining.extend(item)
        elif isinstance(item, int) and not only_lengths:
            largest = max(largest, abs(item))
    return largest
