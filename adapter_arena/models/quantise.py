"""4-bit (NF4) base models: quantising the weights and caching the result."""

import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path

import bitsandbytes
import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification, BitsAndBytesConfig, PreTrainedModel

from adapter_arena.errors import BaseModelError, StorageError, shortened_list
from adapter_arena.files import cache_folder, explain_disk_errors
from adapter_arena.models import compute, weights
from adapter_arena.models.architecture import Architecture
from adapter_arena.models.bases import Base, locate


def load_nf4(base: Base, **config) -> PreTrainedModel:
    """Return the base model in NF4, from the cache if it can be written.

    `config` is `overrides`, values that replace those of its config, and options of `from_pretrained`. The model has a head of its own and no compute type yet, see `compute.prepare`.
    """
    folder = _cached_folder(base)
    if folder is None:
        return quantise(locate(base), base.architecture, **config)
    return _load(folder, **config)[0]


def quantise(source: Path, architecture: Architecture, **config) -> PreTrainedModel:
    """Return the model whose weights are in the folder `source`, in NF4; `config` is as for `load_nf4`."""
    with torch.random.fork_rng():  # the caller's next random numbers are the same with and without the cache
        torch.manual_seed(0)  # a new random head must not make two quantisations differ
        return load_weights(
            source,
            architecture,
            quantization_config=_settings(architecture),
            dtype=_stored_type(architecture),
            **config,
        )


def load_weights(source: Path, architecture: Architecture, **config) -> PreTrainedModel:
    """Return the model in the folder `source`; `config` is as for `load_nf4`.

    Raises BaseModelError if its files lack weights, which transformers would fill with random numbers. A head is not
    needed, since the model gets a new one.
    """
    model, info = _load(source, **config)
    head = re.compile(architecture.outside_encoder)
    missing = sorted(name for name in info["missing_keys"] if not head.fullmatch(name.rpartition(".")[0]))
    if missing:
        raise BaseModelError(
            f"{source.name} has no weights for {len(missing)} parameters of a {model.config.model_type} "
            f"({shortened_list(missing[:3])}): download it again, or use another base model."
        )
    return model


def _load(folder: Path, overrides: dict | None = None, **options) -> tuple[PreTrainedModel, dict]:
    """Return the model in a folder and transformers' report on its weights."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    for name, value in (overrides or {}).items():
        setattr(config, name, value)
    return AutoModelForSequenceClassification.from_pretrained(
        folder,
        config=config,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **options,
    )


def quantise_folder(source: Path, target: Path, architecture: Architecture) -> None:
    """Write the model in `source` (fp32) to `target` in NF4, about a third of the size."""
    model = quantise(source, architecture)
    # In the original format of some models several layers are one, and 4-bit weights cannot be joined.
    compute.prepare(model, _stored_type(architecture)).save_pretrained(target, save_original_format=False)


def _stored_type(architecture: Architecture) -> torch.dtype:
    """Return the type of the weights that are not quantised."""
    return torch.bfloat16 if architecture.autocast else torch.float32


def _settings(architecture: Architecture) -> BitsAndBytesConfig:
    """Return NF4 with double quantisation; the head is not quantised, and `compute.prepare` sets the compute type."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=[architecture.outside_encoder],
    )


def _cached_folder(base: Base) -> Path | None:
    """Return the base model's NF4 folder in the cache: 0.2 s to load instead of 1.3 to 4.6 s to quantise.

    The first call writes it. If it cannot be written, that is reported on stderr and None is returned.
    """
    target = cache_folder() / "nf4" / _cache_key(base)
    if (target / "model.safetensors").is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as name, explain_disk_errors("start again"):
            staging = Path(name) / "base"
            quantise_folder(locate(base), staging, base.architecture)
            _move(staging, target)
    except (OSError, StorageError) as error:
        print(f"the 4-bit base is not cached and will be quantised at every start: {error}", file=sys.stderr)
        return None
    return target


def _cache_key(base: Base) -> str:
    """Return a name that changes with the weights, the config, the versions of the libraries and the quantisation."""
    parts = [
        base.sha256 or weights.sha256(locate(base)),
        transformers.__version__,
        bitsandbytes.__version__,
        _settings(base.architecture).to_json_string(),
        json.dumps(base.full_config, sort_keys=True),  # the cached folder has a config of its own
    ]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:32]


def _move(staging: Path, target: Path) -> None:
    try:
        staging.rename(target)
    except OSError:
        # Another process was faster; its folder is as good.
        if not target.is_dir():
            raise
