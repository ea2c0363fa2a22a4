"""The weights in a base model's folder: `model.safetensors`, or the shards that its index names."""

import hashlib
import json
from pathlib import Path

from adapter_arena.errors import BaseModelError
from adapter_arena.files import sha256_of

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def files(folder: Path) -> list[Path]:
    """Return the files of the weights in order of their names. Raises BaseModelError if one is missing."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        raise BaseModelError(f"{folder} has no {SINGLE}; only safetensors are loaded.")
    paths = [folder / name for name in shard_names((folder / INDEX).read_text())]
    for path in paths:
        if not path.is_file():
            raise BaseModelError(f"{folder} has no {path.name}, which its {INDEX} names: download it again.")
    return paths


def shard_names(index: str) -> list[str]:
    """Return the names of the shards in the content of an index. Raises BaseModelError if it is not valid."""
    try:
        names = sorted(set(json.loads(index)["weight_map"].values()))
        are_plain = all(Path(name).name == name and name.endswith(".safetensors") for name in names)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BaseModelError(f"{INDEX} has no valid weight_map: download the model again.") from error
    if not names or not are_plain:
        raise BaseModelError(f"{INDEX} does not name safetensors files next to it: use another base model.")
    return names


def sha256(folder: Path) -> str:
    """Return the hash of the weights: that of `model.safetensors` or, for shards, of their hashes in order."""
    hashes = [sha256_of(path) for path in files(folder)]
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
