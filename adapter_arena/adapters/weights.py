"""The tensors of an adapter folder: safetensors files, possibly in shards, whose headers are read without the weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from adapter_arena.adapters import documents
from adapter_arena.errors import AdapterError, shortened_list

ADAPTER = "adapter_model.safetensors"
FULL = "model.safetensors"
INDEX_SUFFIX = ".index.json"
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl"}
_MAX_SHARDS = 1000
_MAX_TENSORS = 10_000
_FLOATS = ("F64", "F32", "F16", "BF16")


class Tensor(NamedTuple):
    """A tensor's entry in a file's header."""

    shape: tuple[int, ...]
    dtype: str
    """As safetensors writes it: F32, BF16, U8, …"""
    file: Path

    @property
    def is_float(self) -> bool:
        """Whether it has one of the types in which weights are trained."""
        return self.dtype in _FLOATS


@dataclass(frozen=True)
class Weights:
    """The headers of all weight files of a folder."""

    tensors: dict[str, Tensor]
    files: list[Path]

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor by name."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def load(self, names: dict[str, str]) -> dict[str, torch.Tensor]:
        """Return the tensors that are keys of `names`, each under the name that is the key's value."""
        loaded = {}
        for file in self.files:
            with safe_open(file, "pt") as tensors:
                for name, new_name in names.items():
                    if self.tensors[name].file == file:
                        loaded[new_name] = tensors.get_tensor(name)
        return loaded


def read(folder: Path, file_name: str) -> Weights:
    """Return the headers of the file, or of the shards that its index names. Raises AdapterError.

    Each file must be as long as its header says; nothing is unpickled.
    """
    tensors: dict[str, Tensor] = {}
    files = _files(folder, file_name)
    for file in files:
        for name, tensor in _header(file).items():
            if name in tensors:
                raise AdapterError(f"Adapter {folder.name}: two shards have the tensor {name:.100}; download it again.")
            tensors[name] = tensor
    if len(tensors) > _MAX_TENSORS:
        raise AdapterError(
            f"Adapter {folder.name} has {len(tensors):,} tensors, over the limit of {_MAX_TENSORS:,}: use another adapter."
        )
    return Weights(tensors, files)


def _files(folder: Path, file_name: str) -> list[Path]:
    index = folder / (file_name + INDEX_SUFFIX)
    if (folder / file_name).is_file():
        return [folder / file_name]
    if not index.is_file():
        raise AdapterError(f"Adapter {folder.name} has no {file_name}: {_reason(folder)}.")
    places = documents.read_json(index).get("weight_map")
    shards = set(places.values()) if isinstance(places, dict) else set()
    problem = None
    if not 0 < len(shards) <= _MAX_SHARDS:
        problem = "names no shards"
    elif not all(isinstance(shard, str) and Path(shard).name == shard for shard in shards):
        problem = "names files outside of its folder"
    elif missing := sorted(shard for shard in shards if not (folder / shard).is_file()):
        problem = f"names {len(missing)} of {len(shards)} shards that are missing ({shortened_list(missing)})"
    if problem:
        raise AdapterError(f"Adapter {folder.name}: {index.name} {problem}; download it again.")
    return [folder / shard for shard in sorted(shards)]


def _reason(folder: Path) -> str:
    """Return why a folder has no weights, and the next step."""
    for file in sorted(folder.iterdir()):
        if file.suffix in _PICKLE_SUFFIXES:
            return f"only {file.name}, which is pickled and never loaded; convert it to safetensors"
    return "train it again"


def _header(file: Path) -> dict[str, Tensor]:
    name = file.parent.name
    if problem := documents.unfinished_download(file):
        raise AdapterError(f"Adapter {name}: {file.name} is damaged, since it {problem}.")
    try:
        with safe_open(file, "pt") as tensors:
            header = {}
            for key in tensors.keys():  # noqa: SIM118 - not a mapping
                entry = tensors.get_slice(key)
                header[key] = Tensor(tuple(entry.get_shape()), entry.get_dtype(), file)
            return header
    except SafetensorError as error:
        raise AdapterError(f"Adapter {name}: {file.name} is damaged ({error}); download or train it again.") from error


def first_invalid(loaded: dict[str, torch.Tensor]) -> str | None:
    """Return the name of the first tensor with a value that is NaN or infinite; None if all are finite."""
    for name, tensor in loaded.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            return name
    return None
