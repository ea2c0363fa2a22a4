"""The only reader and writer of adapters/: list, validate, save whole or not at all."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PretrainedConfig

from adapter_arena import results
from adapter_arena.errors import AdapterError, some
from adapter_arena.models import methods
from adapter_arena.models.bases import ALIASES, Base, locate

FOLDER = Path("adapters")
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FULL_CONFIG, FULL_WEIGHTS = "config.json", "model.safetensors"
MAX_SIZE = 1024
"""The largest rank or other size, and the longest list, in a config: memory is taken by them before weights are read."""
_PROMPTS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")
# Numbers in configs that reserve nothing.
_NO_SIZES = {"lora_alpha", "alpha_pattern", "randlora_alpha"}  # factors
_NO_SIZES |= {"tinit", "tfinal", "deltaT", "total_step", "encoder_hidden_size"}  # used in training alone
_NO_SIZES |= {"projection_prng_key", "generator_seed", "random_loc_seed", "random_seed", "proj_seed"}
_NO_SIZES |= {"alora_invocation_tokens", "trainable_token_indices"}  # ids of tokens
_REFUSED = {
    "auto_map": "wants to run code of its own (auto_map), which is never done",
    "auto_mapping": "names classes of its own in auto_mapping, which are never loaded",
    "layer_replication": "repeats the base's layers (layer_replication), as often as it likes",
    "monteclora_config": "reserves samples for training (monteclora_config), as many as it likes",
}
"""What a config may not ask for, and how it is told."""
_MAX_CARD = 1_000_000


@dataclass(frozen=True)
class Adapter:
    """A valid adapter folder for `base_model`; `results` is None when it is not of this project's making."""

    name: str
    folder: Path
    method: str
    base_model: str
    labels: list[str]
    results: results.Results | None
    revision: str | None = None
    """The Hub commit it was fetched at; None for a local folder."""
    size: int = 0
    """Bytes of its weights when it was read: the folder may be gone while it is served."""

    @property
    def is_full(self) -> bool:
        """True when the folder holds a whole model instead of a PEFT adapter."""
        return not (self.folder / ADAPTER_CONFIG).is_file()

    @property
    def weights(self) -> Path:
        return self.folder / (FULL_WEIGHTS if self.is_full else ADAPTER_WEIGHTS)

    @property
    def temperature(self) -> float:
        """What logits are divided by before the softmax, fitted on validation; 1 when unknown."""
        return self.results.evaluation.temperature if self.results else 1.0

    @property
    def max_length(self) -> int | None:
        """Tokens the adapter was trained on; None when unknown."""
        return self.results.recipe.get("max_length") if self.results else None


def folders(root: Path = FOLDER) -> list[Path]:
    """The adapter folders under `root`, by name; half-written ones start with a dot and are not among them."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def read(folder: Path, base: Base) -> Adapter:
    """Validate an adapter folder without loading its weights. Raises AdapterError with the reason.

    Checked: the files are there, complete and safetensors (nothing is unpickled); the config is of
    a classifier for `base`; the head in the weights has as many outputs as there are labels.
    """
    if not folder.is_dir():
        raise AdapterError(f"There is no adapter folder {folder}: check the path.")
    is_full = not (folder / ADAPTER_CONFIG).is_file() and (folder / FULL_CONFIG).is_file()
    config = _read_config(folder / (FULL_CONFIG if is_full else ADAPTER_CONFIG))
    for key, why in _REFUSED.items():
        if config.get(key):
            raise AdapterError(f"Adapter {folder.name} {why}: use another.")
    weights = FULL_WEIGHTS if is_full else ADAPTER_WEIGHTS
    shapes = _read_shapes(folder, weights, base.architecture.logits)
    found = results.read(folder)
    if is_full:
        method, base_model = "full", found.base_model.id if found else str(config.get("_name_or_path") or base.label)
    else:
        method, base_model = _check_peft(folder.name, config), str(config.get("base_model_name_or_path"))
        method = found.method if found else method
    if ALIASES.get(base_model, base_model) not in (base.id, base.label):
        raise AdapterError(
            f"Adapter {folder.name} is for base model {some([base_model])}, not {base.label}: start the app with that base."
        )
    if is_full:
        _check_full(folder.name, config, shapes["embeddings"], base)
    else:
        _check_adapter(folder.name, config, base)
    outputs = shapes["head"]
    labels = found.labels if found else _labels_of_card(folder, outputs or 2)
    if outputs is not None and outputs != len(labels):
        raise AdapterError(
            f"Adapter {folder.name} has a head of {outputs} outputs for {len(labels)} labels: train it again."
        )
    return Adapter(folder.name, folder, method, base.label, labels, found, size=(folder / weights).stat().st_size)


def _read_config(path: Path) -> dict:
    if not path.is_file():
        raise AdapterError(
            f"Adapter {path.parent.name} has no {ADAPTER_CONFIG} (or {FULL_CONFIG}): it is not an adapter folder."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"Adapter {path.parent.name}: {path.name} is not JSON ({error}): fetch it again.") from error
    if not isinstance(content, dict):
        raise AdapterError(f"Adapter {path.parent.name}: {path.name} is not a JSON object: fetch it again.")
    return content


def _check_peft(name: str, config: dict) -> str:
    """The method's name from a PEFT config, checked to be one of a classifier that can be served."""
    kind = config.get("peft_type")
    if kind not in methods.SERVED:
        raise AdapterError(
            f"Adapter {name} has peft_type {kind!r:.40}, which is not served on 4-bit weights: use one of {some(methods.SERVED)}."
        )
    if config.get("task_type") != "SEQ_CLS":
        raise AdapterError(
            f"Adapter {name} is for task {config.get('task_type')!r:.40}, not SEQ_CLS: use a text classifier."
        )
    return kind.lower()


def _check_adapter(name: str, config: dict, base: Base) -> None:
    """Raise AdapterError where PEFT would reserve more by this config than an adapter of the base can need."""
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(("pissa", "olora", "corda")):  # which write into the base's weights as they are read
        raise AdapterError(
            f"Adapter {name} starts from the base's own weights ({start:.20}), which is not served: convert it to plain LoRA "
            "with path_initial_model_for_weight_conversion."
        )
    own = {}
    if config["peft_type"] in _PROMPTS:
        shape = _config_of(base)
        own = {"token_dim": shape.hidden_size, "num_layers": shape.num_hidden_layers}
        own |= {"num_attention_heads": shape.num_attention_heads, "num_transformer_submodules": 1}
    _check_sizes(name, config, own, base)


def _check_full(name: str, config: dict, embeddings: list[int], base: Base) -> None:
    """Raise AdapterError unless a whole model has the base's sizes: it is built by its config, whatever its weights."""
    shape = _config_of(base)
    if embeddings != [shape.vocab_size, shape.hidden_size]:
        raise AdapterError(f"Adapter {name} is no fine-tuned {base.label}: its embeddings have another shape.")
    if config.get("model_type") != shape.model_type:
        raise AdapterError(f"Adapter {name} is no fine-tuned {base.label}: its model_type is not {shape.model_type}.")
    own = {key: value for key, value in shape.to_dict().items() if type(value) is int}
    own |= {alias: own[key] for alias, key in shape.attribute_map.items() if key in own}
    _check_sizes(name, config, own, base)


def _check_sizes(name: str, config: dict, own: dict[str, int], base: Base) -> None:
    """Raise AdapterError where a config has another value than `own`, the base's, or a size over MAX_SIZE elsewhere."""
    for key, value in config.items():
        what = "rank" if key == "r" else some([key])
        most = max(_sizes(value, lengths_only=key in _NO_SIZES), default=0)
        if key in own and value not in (None, own[key]):
            raise AdapterError(
                f"Adapter {name} has {what} {value!r:.40} where {base.label} has {own[key]}: use one of this base."
            )
        if key not in own and most > MAX_SIZE:
            raise AdapterError(f"Adapter {name} has {what} {most!r:.40}, over the limit of {MAX_SIZE:,}: use another.")


def _sizes(value: object, lengths_only: bool) -> Iterator[int]:
    """The integers in a piece of JSON, the only numbers that are taken for sizes, and how long its lists and objects are."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict | list):
            yield len(item)
            left += item.values() if isinstance(item, dict) else item
        elif isinstance(item, int) and not lengths_only:
            yield abs(item)


def _config_of(base: Base) -> PretrainedConfig:
    return AutoConfig.from_pretrained(locate(base), local_files_only=True)


def _labels_of_card(folder: Path, n: int) -> list[str]:
    """Label names that a card's metadata gives in `labels` or `id2label`, else LABEL_0, LABEL_1, …"""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8", errors="replace")[:_MAX_CARD] if path.is_file() else ""
    front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        metadata = yaml.safe_load(front[1]) if front else None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError):  # as PyYAML has them for bad tags
        metadata = None
    metadata = metadata if isinstance(metadata, dict) else {}
    given = metadata.get("labels") or metadata.get("id2label")
    given = list(given.values()) if isinstance(given, dict) else given
    fits = isinstance(given, list) and len({str(label) for label in given}) == n
    return [str(label)[:100] for label in given] if fits else [f"LABEL_{i}" for i in range(n)]


def _read_shapes(folder: Path, file_name: str, logits: str) -> dict:
    """Outputs of the head and shape of the embeddings from the weight file's header, size checked."""
    path = folder / file_name
    if not path.is_file():
        pickled = [file.name for file in folder.iterdir() if file.suffix in {".bin", ".pt", ".pth", ".pkl"}]
        why = (
            f"only {pickled[0]}, which is pickled and never loaded: convert it to safetensors"
            if pickled
            else "train it again"
        )
        raise AdapterError(f"Adapter {folder.name} has no {file_name}: {why}.")
    head, embeddings = None, None
    try:
        with safe_open(path, "pt") as tensors:  # raises when the file is shorter than its header says
            for key in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                shape = tensors.get_slice(key).get_shape()
                if f".{key}".endswith(f".{logits}.weight"):
                    head = shape[0]
                if key.endswith(("word_embeddings.weight", "tok_embeddings.weight")):
                    embeddings = shape
    except SafetensorError as error:
        raise AdapterError(
            f"Adapter {folder.name}: {file_name} is damaged ({error}): fetch or train it again."
        ) from error
    return {"head": head, "embeddings": embeddings}


@contextmanager
def saving(name: str, root: Path = FOLDER) -> Iterator[Path]:
    """A folder to fill, which takes the place of `root/name` when the block ends without an error.

    What stood there before is kept until the new folder is whole, and kept for good when it never is.
    """
    root.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp and safetensors make theirs private to this user
        for file in staging.iterdir():
            if file.is_file():
                file.chmod(0o644)
        target, old = root / name, staging.with_name(staging.name + ".old")
        if target.exists():
            target.rename(old)
        staging.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
