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

from . import results
from .bases import ALIASES, Base
from .errors import AdapterError

FOLDER = Path("adapters")
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FULL_CONFIG, FULL_WEIGHTS = "config.json", "model.safetensors"
MAX_RANK = 1024
# What in a PEFT config says how much memory is taken before the weights are even read.
_SIZES = ("r", "init_r", "target_r", "num_virtual_tokens", "num_layers", "rank_pattern")
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
    shapes = _read_shapes(folder, FULL_WEIGHTS if is_full else ADAPTER_WEIGHTS, base.architecture.logits)
    found = results.read(folder)
    if is_full:
        method, base_model = "full", found.base_model.id if found else config.get("_name_or_path") or base.label
        if config.get("auto_map"):
            raise AdapterError(f"Adapter {folder.name} wants to run code of its own, which is never done: use another.")
        if shapes["embeddings"] != _base_vocabulary(base):
            raise AdapterError(
                f"Adapter {folder.name} is no fine-tuned {base.label}: its embeddings have another shape."
            )
    else:
        method, base_model = _check_peft(folder.name, config), str(config.get("base_model_name_or_path"))
        method = found.method if found else method
    if ALIASES.get(base_model, base_model) not in (base.id, base.label):
        raise AdapterError(
            f"Adapter {folder.name} is for base model {base_model}, not {base.label}: start the app with that base."
        )
    outputs = shapes["head"]
    labels = found.labels if found else _labels_of_card(folder, outputs or 2)
    if outputs is not None and outputs != len(labels):
        raise AdapterError(
            f"Adapter {folder.name} has a head of {outputs} outputs for {len(labels)} labels: train it again."
        )
    return Adapter(folder.name, folder, method, base.label, labels, found)


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
    """The method's name from a PEFT config, checked to be one of a classifier of sane size."""
    from peft import PeftType

    kind = config.get("peft_type")
    if kind not in {member.value for member in PeftType}:
        raise AdapterError(
            f"Adapter {name} has peft_type {kind!r}, which this version of PEFT does not know: upgrade peft."
        )
    if config.get("task_type") != "SEQ_CLS":
        raise AdapterError(f"Adapter {name} is for task {config.get('task_type')}, not SEQ_CLS: use a text classifier.")
    if config.get("auto_mapping"):
        raise AdapterError(
            f"Adapter {name} names classes of its own in auto_mapping, which are never loaded: use another."
        )
    for key in _SIZES:
        value = config.get(key)
        for size in value.values() if isinstance(value, dict) else [value]:
            size = len(size) if isinstance(size, list) else size  # AdaLoRA names each rank it kept or not
            if size is not None and not (isinstance(size, int) and 0 <= size <= MAX_RANK):
                what = "rank" if key == "r" else key
                raise AdapterError(f"Adapter {name} has {what} {size!r:.40}, outside 0 to {MAX_RANK}: use another.")
    return kind.lower()


def _labels_of_card(folder: Path, n: int) -> list[str]:
    """Label names that a card's metadata gives in `labels` or `id2label`, else LABEL_0, LABEL_1, …"""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8", errors="replace")[:_MAX_CARD] if path.is_file() else ""
    front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        metadata = yaml.safe_load(front[1]) if front else None
    except (yaml.YAMLError, RecursionError):
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


def _base_vocabulary(base: Base) -> list[int]:
    from .bases import locate

    config = json.loads((locate(base) / FULL_CONFIG).read_text())
    return [config["vocab_size"], config.get("hidden_size") or config["dim"]]


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
