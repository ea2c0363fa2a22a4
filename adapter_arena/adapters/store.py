"""The only reader and writer of adapter folders: list, validate, save."""

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

from adapter_arena import results
from adapter_arena.errors import AdapterError
from adapter_arena.models import bases, servable
from adapter_arena.recipe import DEFAULT_BASE

FOLDER = Path("adapters")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
FULL_CONFIG = "config.json"
FULL_WEIGHTS = "model.safetensors"
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl"}
_EMBEDDINGS = ("word_embeddings.weight", "tok_embeddings.weight")
_MAX_CARD = 1_000_000
"""Characters of a model card that are read."""
_MAX_LABEL = 100
"""Characters of a label that are read from a card."""
_MAX_LABELS = 10_000


@dataclass(frozen=True)
class Adapter:
    """A valid adapter folder for `base_model`; `results` is None if it was made outside of this project."""

    name: str
    folder: Path
    method: str
    base_model: str
    labels: list[str]
    results: results.Results | None
    revision: str | None = None
    """The Hub commit it was downloaded at; None for a local folder."""
    size: int = 0
    """Bytes of its weights when it was read: the folder may be deleted while it is served."""

    @property
    def is_full(self) -> bool:
        """Whether the folder contains a complete model instead of a PEFT adapter."""
        return not (self.folder / ADAPTER_CONFIG).is_file()

    @property
    def weights(self) -> Path:
        """The file with the weights."""
        return self.folder / (FULL_WEIGHTS if self.is_full else ADAPTER_WEIGHTS)

    @property
    def temperature(self) -> float:
        """Divisor of the logits before the softmax, fitted on the validation split; 1 if unknown."""
        return self.results.evaluation.temperature if self.results else 1.0

    @property
    def max_length(self) -> int | None:
        """Number of tokens the adapter was trained on; None if unknown."""
        return self.results.recipe.get("max_length") if self.results else None


def folders(root: Path = FOLDER) -> list[Path]:
    """Return the adapter folders under `root`, sorted by name; the names of unfinished ones start with a dot."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def read(folder: Path, base: bases.Base) -> Adapter:
    """Validate an adapter folder without loading its weights. Raises AdapterError with the reason.

    The files must be present, complete and safetensors (nothing is unpickled), the config must be of a classifier for
    `base` with sizes that the base allows, and the head must have one output for each label.
    """
    if not folder.is_dir():
        raise AdapterError(f"There is no adapter folder {folder}: check the path.")
    is_full = (folder / FULL_CONFIG).is_file() and not (folder / ADAPTER_CONFIG).is_file()
    config = _read_config(folder / (FULL_CONFIG if is_full else ADAPTER_CONFIG))
    weights = folder / (FULL_WEIGHTS if is_full else ADAPTER_WEIGHTS)
    shapes = _read_shapes(weights)
    outputs = _number_of_outputs(shapes, base)
    found = results.read(folder)
    if is_full:
        method = "full"
        base_model = found.base_model.id if found else str(config.get("_name_or_path") or base.label)
        problem = servable.full_model_problem(config, base_model, _shape_of_embeddings(shapes), base)
    else:
        method = found.method if found else str(config.get("peft_type")).lower()
        problem = servable.adapter_problem(config, base)
    problem = problem or _head_problem(outputs, found)
    if problem:
        raise AdapterError(f"Adapter {folder.name} {problem}.")
    labels = found.labels if found else _labels_of_card(folder, outputs or 2)
    return Adapter(folder.name, folder, method, base.label, labels, found, size=weights.stat().st_size)


def read_with_base(folder: Path, base_model: str | None) -> tuple[Adapter, bases.Base]:
    """Return the adapter of a folder and its base, the default one if `base_model` is None. Raises ArenaError."""
    base = bases.find(base_model or DEFAULT_BASE)
    return read(folder, base), base


def _read_config(path: Path) -> dict:
    name = path.parent.name
    if not path.is_file():
        raise AdapterError(f"Adapter {name} has no {ADAPTER_CONFIG} (or {FULL_CONFIG}): it is not an adapter folder.")
    content = None
    problem = "not a JSON object"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        problem = f"not JSON ({error})"
    if not isinstance(content, dict):
        raise AdapterError(f"Adapter {name}: {path.name} is {problem}; download it again.")
    return content


def _read_shapes(path: Path) -> dict[str, list[int]]:
    """Return the shape of each tensor from the header of a weight file; the file must be as long as the header says."""
    name = path.parent.name
    if not path.is_file():
        reason = "train it again"
        for file in path.parent.iterdir():
            if file.suffix in _PICKLE_SUFFIXES:
                reason = f"only {file.name}, which is pickled and never loaded; convert it to safetensors"
        raise AdapterError(f"Adapter {name} has no {path.name}: {reason}.")
    try:
        with safe_open(path, "pt") as tensors:
            return {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise AdapterError(f"Adapter {name}: {path.name} is damaged ({error}); download or train it again.") from error


def _number_of_outputs(shapes: dict[str, list[int]], base: bases.Base) -> int | None:
    """Return the number of outputs of the head; None if the weights have no head."""
    for key, shape in shapes.items():
        if shape and f".{key}".endswith(f".{base.architecture.logits}.weight"):
            return shape[0]
    return None


def _shape_of_embeddings(shapes: dict[str, list[int]]) -> list[int] | None:
    """Return the shape of the word embeddings, (vocabulary, hidden size); None if the weights have none."""
    for key, shape in shapes.items():
        if key.endswith(_EMBEDDINGS):
            return shape
    return None


def _head_problem(outputs: int | None, found: results.Results | None) -> str | None:
    """Return why the head does not fit the labels, or None if it does; see `servable.adapter_problem`."""
    if outputs is None:
        return None
    if outputs > _MAX_LABELS:
        return f"has a head of {outputs:,} outputs, over the limit of {_MAX_LABELS:,}: use another adapter"
    if found and outputs != len(found.labels):
        return f"has a head of {outputs} outputs for {len(found.labels)} labels: train it again"
    return None


def _labels_of_card(folder: Path, n: int) -> list[str]:
    """Return the names in `labels` or `id2label` of the card's metadata if there are `n`, else LABEL_0, LABEL_1, …"""
    metadata = _metadata_of_card(folder / "README.md")
    labels = metadata.get("labels") or metadata.get("id2label")
    if isinstance(labels, dict):
        labels = list(labels.values())
    if isinstance(labels, list):
        names = [str(label)[:_MAX_LABEL] for label in labels]
        if len(names) == len(set(names)) == n:
            return names
    return [f"LABEL_{i}" for i in range(n)]


def _metadata_of_card(path: Path) -> dict:
    """Return the YAML metadata of a model card; empty if there is no card, or none that can be read."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")[:_MAX_CARD]
    front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if front is None:
        return {}
    try:
        metadata = yaml.safe_load(front[1])
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError):  # PyYAML raises these for bad tags
        return {}
    return metadata if isinstance(metadata, dict) else {}


@contextmanager
def saving(name: str, root: Path = FOLDER) -> Iterator[Path]:
    """Yield a folder to fill, which replaces `root/name` if the block ends without an error.

    An existing folder of that name stays until the new one is complete, and remains if it never is.
    """
    root.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp and safetensors make their files readable by this user only
        for file in staging.iterdir():
            if file.is_file():
                file.chmod(0o644)
        target = root / name
        old = staging.with_name(staging.name + ".old")
        if target.exists():
            target.rename(old)
        staging.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
