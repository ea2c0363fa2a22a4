"""The only reader and writer of adapter folders: list, validate, save."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from adapter_arena import results, tasks
from adapter_arena.adapters import documents, fit, labels, weights
from adapter_arena.adapters.fit import Fit
from adapter_arena.errors import AdapterError, shortened_list
from adapter_arena.models import base_names, bases, servable
from adapter_arena.recipe import DEFAULT_BASE

FOLDER = Path("adapters")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = weights.ADAPTER
FULL_CONFIG = "config.json"
FULL_WEIGHTS = weights.FULL
_CHECKPOINT = re.compile(r"default|checkpoint-\d+")
"""Names of sub-folders that do not tell one adapter from another."""


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
    fit: Fit = field(default_factory=Fit)
    """How its files become the model."""
    notes: tuple[str, ...] = ()
    """What its author should know, such as class names that were not used."""
    task: str = tasks.SINGLE_LABEL
    """Name of an entry in `tasks.TASKS`."""
    scale: results.Scale | None = None
    """What makes numbers of the data from the logits of a regression; None if they are such numbers."""

    @property
    def is_full(self) -> bool:
        """Whether the folder contains a complete model instead of a PEFT adapter."""
        return not (self.folder / ADAPTER_CONFIG).is_file()

    @property
    def takes_pairs(self) -> bool | None:
        """Whether it classifies pairs of texts; None if unknown, which is without results."""
        return self.results.dataset.has_pairs if self.results else None

    @property
    def temperature(self) -> float:
        """Divisor of the logits before softmax or sigmoid, fitted on the validation split; 1 if unknown."""
        return (self.results and self.results.evaluation.temperature) or 1.0

    @property
    def thresholds(self) -> list[float]:
        """Probability from which each label is given, of a multi-label adapter; 0.5 if unknown."""
        chosen = (self.results and self.results.evaluation.thresholds) or {}
        return [chosen.get(label, tasks.DEFAULT_THRESHOLD) for label in self.labels]

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
    """Validate an adapter folder without building its model. Raises AdapterError with the reason.

    The files must be present, complete and safetensors (nothing is unpickled), the config must be of a classifier for
    `base` with sizes that the base allows, the head must have one output for each label, and every tensor must have a
    place in the model.
    """
    if not folder.is_dir():
        raise AdapterError(f"There is no adapter folder {folder}: check the path.")
    name = _name(folder)
    is_full = (folder / FULL_CONFIG).is_file() and not (folder / ADAPTER_CONFIG).is_file()
    config = _read_config(folder, FULL_CONFIG if is_full else ADAPTER_CONFIG)
    files = weights.read(folder, FULL_WEIGHTS if is_full else ADAPTER_WEIGHTS)
    found, notes = _read_results(folder)
    if is_full:
        method = "full"
        named_base = found.base_model.id if found else config.get("_name_or_path") or base.label
        problem = servable.full_model_problem(config, fit.shape_of_embeddings(files), base)
    else:
        method = found.method if found else str(config.get("peft_type")).lower()
        named_base = config.get("base_model_name_or_path")
        problem = servable.adapter_problem(config, base)
    named_base = _base_of(found, base, named_base)
    place = "_name_or_path in config.json" if is_full else f"base_model_name_or_path in {ADAPTER_CONFIG}"
    problem = problem or base_names.problem(named_base, base, place, is_full)
    if problem:
        raise AdapterError(f"Adapter {name} {problem}.")
    if note := base_names.note(named_base, base):
        notes.append(note)
    outputs = fit.outputs_of(name, config, files, base)
    class_names, more_notes = _labels(name, folder, config, found, outputs)
    notes.extend(more_notes)
    fitted, more_notes = (fit.full if is_full else fit.adapter)(name, config, files, base, outputs)
    notes.extend(more_notes)
    return Adapter(
        name,
        folder,
        method,
        base.label,
        class_names,
        found,
        size=files.size,
        fit=fitted,
        notes=tuple(notes),
        task=found.task if found else tasks.of_config(_config_of_model(folder, config), outputs),
        scale=found.scale if found else None,
    )


def _config_of_model(folder: Path, config: dict) -> dict:
    """Return the config.json of the model: people save it next to an adapter. Raises AdapterError if it is malformed."""
    if (folder / ADAPTER_CONFIG).is_file() and (folder / FULL_CONFIG).is_file() and "problem_type" not in config:
        return documents.read_json(folder / FULL_CONFIG)
    return config


def _name(folder: Path) -> str:
    """Return the name of the adapter in a folder: with its parent's name if its own is `default` or `checkpoint-12`."""
    if _CHECKPOINT.fullmatch(folder.name) and folder.resolve().parent.name:
        return f"{folder.resolve().parent.name}/{folder.name}"
    return folder.name


def _base_of(found: results.Results | None, base: bases.Base, named_base: object) -> str | None:
    """Return the name of the base model that something was trained on; the base's own if the weights are the same."""
    name = str(named_base) if named_base else None
    if name in (base.id, base.label):
        return name  # without the hash, for which the weights may have to be downloaded
    is_consistent = found is not None and name in (None, found.base_model.id)
    if is_consistent and found.base_model.sha256 == base_names.sha256_of_base(base):
        return base.id
    return name


def _read_results(folder: Path) -> tuple[results.Results | None, list[str]]:
    """Return the folder's results and notes; another tool's results.json is left alone."""
    path = folder / results.FILE
    if path.is_file():
        try:
            content = documents.read_json(path)
        except AdapterError:
            content = {"recipe": None}  # the reader of results says what is wrong
        if not {"recipe", "evaluation", "training", "schema_version"} & content.keys():
            return None, [f"{results.FILE} is another tool's and is not read"]
    return results.read(folder), []


def _labels(
    name: str, folder: Path, config: dict, found: results.Results | None, outputs: int
) -> tuple[list[str], list[str]]:
    """Return the names of the classes, and notes about names that were not used."""
    if found is None:
        return labels.find(folder, config, outputs)
    if outputs != len(found.labels):
        raise AdapterError(
            f"Adapter {name} has a head of {outputs} outputs for {len(found.labels)} labels: train it again."
        )
    return found.labels, []


def read_with_base(folder: Path, base_model: str | None) -> tuple[Adapter, bases.Base]:
    """Return the adapter of a folder and its base, the default one if `base_model` is None. Raises ArenaError."""
    base = bases.find(base_model or DEFAULT_BASE)
    return read(folder, base), base


def named_base(folder: Path) -> str | None:
    """Return the base model that the folder's results or its adapter's config names, if one does."""
    for file, path in ((results.FILE, ("base_model", "id")), (ADAPTER_CONFIG, ("base_model_name_or_path",))):
        if not (folder / file).is_file():
            continue
        value: object = documents.read_json(folder / file)
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value:
            return str(value)
    return None


def _read_config(folder: Path, name: str) -> dict:
    if (folder / name).is_file():
        return documents.read_json(folder / name)
    inside = []
    for path in sorted(folder.iterdir()):
        if any((path / config).is_file() for config in (ADAPTER_CONFIG, FULL_CONFIG)):
            inside.append(f"{path.name}/")
    problem = f"Adapter {folder.name} has no {ADAPTER_CONFIG} (or {FULL_CONFIG})"
    if not inside:
        raise AdapterError(f"{problem}: it is not an adapter folder.")
    raise AdapterError(f"{problem}, but its sub-folders have: name one of them ({shortened_list(inside)}).")


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
