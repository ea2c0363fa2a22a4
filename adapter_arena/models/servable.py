"""Which adapters can be served on a 4-bit base, decided by their configs.

Adapters come from strangers, and PEFT allocates memory for the sizes in a config before it reads any weights. So
every size in a config is limited, and fields that run code or change the base are refused.
"""

import peft
from packaging.version import InvalidVersion, Version
from peft import PeftModel
from torch import nn
from transformers import AutoConfig, PretrainedConfig

from adapter_arena.errors import shortened_list
from adapter_arena.models import wrapping
from adapter_arena.models.bases import Base, locate

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
    "layer_replication": "repeats the base's layers any number of times",
    "monteclora_config": "allocates any number of samples",
}
"""Config fields that an adapter may not set, and what they do."""
_CHANGES_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")
"""Values of init_lora_weights with which PEFT subtracts something from the base's weights."""
_PLAIN_TASKS = (None, "SEQ_CLS", "FEATURE_EXTRACTION")
"""Tasks under which classifiers are saved; whether the weights have a head is checked later."""
_DESCRIPTIVE = {
    "id2label",
    "label2id",
    "labels",
    "label_names",
    "class_names",
    "classes",
    "num_labels",
    "runtime_config",
}
"""Fields of people's own that PEFT does not know and that do not change the model."""


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
        or _other_task(config)
        or _base_changed_on_loading(config)
        or _wrong_size(config, _prompt_sizes(config, base), base)
        or _switch_of_newer_version(config)
    )


def full_model_problem(config: dict, embeddings: tuple[int, ...] | None, base: Base) -> str | None:
    """Return why a fully fine-tuned model with this `config.json` cannot be served with the base, or None if it can.

    `embeddings` is the shape of its word embeddings. The model is built from its config whatever its weights are, so
    all sizes must be the base's. The text is like `adapter_problem`'s.
    """
    base_config = _load_config(base)
    return (
        _forbidden_field(config)
        or _other_task(config)
        or _other_quantisation(config)
        or _other_architecture(config, embeddings, base_config, base)
        or _wrong_size(config, _sizes_of_base(base_config), base)
    )


def peft_config(config: dict) -> tuple[dict, str | None]:
    """Return the fields with which PEFT builds the adapter as a text classifier, and a note about ignored ones.

    The weights are read from the file, so those that PEFT would compute at first are left out.
    """
    known = wrapping.known_fields(config["peft_type"])
    unknown = sorted(name for name in config if name not in known)
    fields = {name: value for name, value in config.items() if name in known}
    fields |= {"task_type": "SEQ_CLS", "auto_mapping": None, "base_model_name_or_path": None}
    if "init_lora_weights" in known:
        fields["init_lora_weights"] = False
    set_fields = [name for name in unknown if config[name] and name not in _DESCRIPTIVE]
    note = None
    if set_fields:
        note = f"ignores {shortened_list(set_fields)}, which PEFT {peft.__version__} does not know"
    return fields, note


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
    if task not in _PLAIN_TASKS:
        return f"is for task {task!r:.40}, not SEQ_CLS: use a text classifier"
    return None


def _other_task(config: dict) -> str | None:
    """Return the problem of a model of another kind than a text classifier, by its class."""
    mapping = config.get("auto_mapping")
    if mapping and not isinstance(mapping, dict):
        return "has an auto_mapping that is not an object: use another adapter"
    classes = config.get("architectures") or []
    if mapping:
        classes = [mapping.get("base_model_class")]
    if not isinstance(classes, list):
        return "has architectures that are not a list: use another adapter"
    for name in classes:
        if name and not str(name).endswith(("ForSequenceClassification", "Model")):
            return f"was trained as a {str(name)[:60]!r}, not as a …ForSequenceClassification: use a text classifier"
    return None


def _switch_of_newer_version(config: dict) -> str | None:
    """Return the problem of an option that only a newer version of PEFT knows, since it may change the answers."""
    version = config.get("peft_version")
    try:
        is_newer = Version(str(version)) > Version(peft.__version__)
    except InvalidVersion:
        return None
    known = wrapping.known_fields(config["peft_type"])
    for name, value in config.items():
        if (
            is_newer
            and name not in known | _DESCRIPTIVE
            and (value is True or (value and isinstance(value, dict | list)))
        ):
            return (
                f"sets {shortened_list([name])}, which PEFT {peft.__version__} does not know, since it was made with "
                f"PEFT {version!s:.20}: update PEFT or use another adapter"
            )
    return None


def _other_quantisation(config: dict) -> str | None:
    settings = config.get("quantization_config")
    if not settings:
        return None
    if (
        not isinstance(settings, dict)
        or not settings.get("load_in_4bit")
        or settings.get("quant_method") != "bitsandbytes"
    ):
        return "is quantised by another method than bitsandbytes in 4 bits: use its unquantised weights"
    return None


def _base_changed_on_loading(config: dict) -> str | None:
    start = str(config.get("init_lora_weights")).lower()
    if not start.startswith(_CHANGES_BASE):
        return None
    return (
        f"changes the base's weights as it is loaded (init_lora_weights {start:.20}), which is not supported: "
        "convert it to plain LoRA with path_initial_model_for_weight_conversion"
    )


def _other_architecture(
    config: dict, embeddings: tuple[int, ...] | None, base_config: PretrainedConfig, base: Base
) -> str | None:
    if problem := _resized(embeddings, base_config, base):
        return problem
    size = _vocabulary_size(base_config)
    if size is not None and embeddings != (size, base_config.hidden_size):
        return f"is not a fine-tuned {base.label}, since its embeddings have another shape: start the app with its base"
    if config.get("model_type") != base_config.model_type:
        return (
            f"is not a fine-tuned {base.label}, since its model_type is not {base_config.model_type}: "
            "start the app with its base"
        )
    return None


def _vocabulary_size(base_config: PretrainedConfig) -> int | None:
    """Return the number of word embeddings; None for models that have none, such as CANINE, which hashes characters."""
    return getattr(base_config, "vocab_size", None)


def vocabulary_problem(embeddings: tuple[int, ...] | None, base: Base) -> str | None:
    """Return the problem of an adapter that brings word embeddings for another vocabulary, or None."""
    return _resized(embeddings, _load_config(base), base)


def _resized(embeddings: tuple[int, ...] | None, base_config: PretrainedConfig, base: Base) -> str | None:
    size = _vocabulary_size(base_config)
    if size is None or embeddings is None or embeddings[1:] != (base_config.hidden_size,) or embeddings[0] == size:
        return None
    return (
        f"has a vocabulary of {embeddings[0]:,} tokens, but {base.label} has {size:,} and its tokenizer knows no others: "
        "train without added tokens"
    )


def _prompt_sizes(config: dict, base: Base) -> dict[str, int]:
    """Return the sizes that a prompt's config must share with the base; none for other types."""
    if config["peft_type"] not in _PROMPT_TYPES:
        return {}
    base_config = _load_config(base).get_text_config()
    heads = getattr(base_config, "num_attention_heads", 1)
    width = base.architecture.embedding_size
    key_heads = getattr(base_config, "num_key_value_heads", None)
    if (
        config["peft_type"] == "PREFIX_TUNING" and key_heads
    ):  # a prefix is of keys and values, of which some bases have fewer
        head_size = getattr(base_config, "head_dim", None) or width // heads
        width = head_size * key_heads
        heads = key_heads
    return {
        "token_dim": width,
        "num_layers": base_config.num_hidden_layers,
        "num_attention_heads": heads,
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
