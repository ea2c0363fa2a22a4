"""The workload of benchmarks/serving.py: eight adapters, the beginnings of real reviews, and 32 clients."""

import shutil
from pathlib import Path

import torch
from peers import BASE

from adapter_arena.models import loading
from adapter_arena.train import recipes, trainable

ROOT = Path(__file__).parent.parent
METHODS = ("lora", "qlora", "dora", "ia3", "adalora", "vera", "oft", "ln")
"""Methods of the eight adapters, of six PEFT types."""
CLIENTS = 32
"""Number of concurrent clients of the running app."""


def make_adapters(folder: Path) -> list[Path]:
    """Make the adapter folders `bench-<method>`: copies of the shipped adapters of IMDb, others with random weights."""
    folders = []
    for method in METHODS:
        target = folder / f"bench-{method}"
        shipped = ROOT / "adapters" / f"minilm-imdb-{method}"
        if shipped.is_dir():
            shutil.copytree(shipped, target)
        else:
            save_random_adapter(method, target)
        folders.append(target)
    return folders


def save_random_adapter(method: str, folder: Path) -> None:
    """Save an untrained adapter of a method, with random numbers added to its weights."""
    recipe, _ = recipes.resolve(method, dataset="sample")
    model, _ = trainable.build(recipe, 2)
    for name, weight in model.named_parameters():
        if weight.requires_grad and "modules_to_save" not in name:
            weight.data.add_(0.02 * torch.randn_like(weight))
    model.peft_config["default"].base_model_name_or_path = BASE.id
    model.save_pretrained(folder, save_embedding_layers=False)


def beginnings(texts: list[str], tokens: int) -> list[str]:
    """Return the beginnings of the texts that have `tokens` tokens or more: so many tokens, with the special ones."""
    tokenizer = loading.load_tokenizer(BASE)
    cut_texts = []
    for text in texts:
        offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        if len(offsets) >= tokens:
            _, end = offsets[tokens - 3]
            cut_texts.append(text[:end])
    return cut_texts
