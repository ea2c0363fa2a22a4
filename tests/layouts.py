"""Adapter folders as other tools and people leave them: one plain adapter, written in many layouts."""

import json
from pathlib import Path

import torch
from plain_adapters import plain_adapter
from safetensors.torch import load_file, save_file

from adapter_arena.adapters import store

NAMES = ["bad", "good"]


def exact(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor with values that fp32, bf16 and fp16 all have."""
    rounded = tensor.bfloat16().float()
    return torch.where(rounded.abs() < 1e-3, torch.zeros_like(rounded), rounded)


class Source:
    """A plain adapter in memory: its config and tensors, with values that every type has."""

    def __init__(self, base, config, place: Path, labels: int = 2):
        folder = plain_adapter(base, config, place, labels)
        self.base = base
        self.config = json.loads((folder / store.ADAPTER_CONFIG).read_text())
        self.tensors = {name: exact(value) for name, value in load_file(folder / store.ADAPTER_WEIGHTS).items()}


def write(
    folder: Path,
    config: dict,
    tensors: dict[str, torch.Tensor],
    card: str | None = None,
    beside: dict | None = None,
    encode=lambda text: text.encode(),
    shards: int = 1,
) -> Path:
    """Write an adapter folder; `card` is the front matter and `beside` the config.json next to the adapter."""
    folder.mkdir(parents=True)
    (folder / store.ADAPTER_CONFIG).write_bytes(encode(json.dumps(config, indent=2)))
    if card is not None:
        (folder / "README.md").write_bytes(encode(f"---\n{card}\n---\n\n# A card\n"))
    if beside is not None:
        (folder / store.FULL_CONFIG).write_bytes(encode(json.dumps(beside, indent=2)))
    write_weights(folder, store.ADAPTER_WEIGHTS, tensors, shards)
    return folder


def write_weights(folder: Path, name: str, tensors: dict[str, torch.Tensor], shards: int = 1) -> None:
    """Write the tensors to one file, or to shards with an index."""
    own = {key: value.contiguous().clone() for key, value in tensors.items()}
    if shards == 1:
        save_file(own, folder / name, metadata={"format": "pt"})
        return
    places = {}
    stem = name.removesuffix(".safetensors")
    for number in range(shards):
        keys = sorted(own)[number::shards]
        shard = f"{stem}-{number + 1:05}-of-{shards:05}.safetensors"
        save_file({key: own[key] for key in keys}, folder / shard, metadata={"format": "pt"})
        places |= dict.fromkeys(keys, shard)
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def renamed(tensors: dict[str, torch.Tensor], *pairs: tuple[str, str]) -> dict[str, torch.Tensor]:
    """Return the tensors with each first text of the pairs in their names replaced by the second."""
    result = {}
    for name, tensor in tensors.items():
        for old, new in pairs:
            name = name.replace(old, new)
        result[name] = tensor
    return result
