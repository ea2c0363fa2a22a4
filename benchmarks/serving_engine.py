"""Measure the engine without HTTP; every function here runs in a process of its own."""

import os
import random
import shutil
import statistics
import time
from pathlib import Path

import pandas
import torch
from peers import BASE, Arena, UnmergedArena
from processes import print_progress, run_in_new_process

from adapter_arena import runtime
from adapter_arena.adapters import store
from adapter_arena.models import compute
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.served import Served

ADAPTER_COUNTS = (1, 2, 8, 10, 100)


# ---------------------------------------------------------------- many adapters


def measure_many(folders: list[Path], texts: list[str], folder: Path) -> dict[str, dict]:
    """Return memory and throughput of 1 to 100 adapters of all types on one base, unmerged and merged as in the app."""
    copies = []
    for i in range(max(ADAPTER_COUNTS)):
        source = folders[i % len(folders)]
        target = folder / "many" / f"{source.name}-{i}"
        copies.append(shutil.copytree(source, target, copy_function=os.link))
    found: dict[str, dict] = {}
    for kind, arena_class in {"unmerged": UnmergedArena, "merged": Arena}.items():
        found[kind] = {}
        for count in ADAPTER_COUNTS:
            row = run_in_new_process(_many, copies[:count], texts, arena_class, initializer=runtime.configure)
            row["of_base_and_adapters"] = row["loaded_mb"] / (row["base_mb"] + row["adapters_mb"])
            found[kind][count] = row
            print_progress(f"{count} adapters, {kind}: {row}")
    return found


def _many(folders: list[Path], texts: list[str], arena_class: type[Arena]) -> dict:
    arena = arena_class(folders)
    adapters = random.Random(0).choices([folder.name for folder in folders], k=len(texts))
    arena.mixed(texts[:32], adapters[:32])
    start = time.perf_counter()
    arena.mixed(texts, adapters)
    seconds = time.perf_counter() - start
    sizes = [store.read(folder, BASE).size for folder in folders]
    return {
        "texts_per_second": len(texts) / seconds,
        "base_mb": arena.base_mb,
        "loaded_mb": arena.loaded_mb,
        "adapters_mb": sum(sizes) / 1e6,
    }


# ---------------------------------------------------------------- an adapter that is not loaded


def added_latency(folders: list[Path], text: str) -> dict:
    """Return the milliseconds that the first request for an adapter takes longer than the second."""
    engine = Engine(BASE)
    engine.add(store.read(folders[0], BASE))
    engine.predict([text] * 4)
    added_ms = {}
    for folder in folders[1:]:
        engine.register(store.read(folder, BASE))
        first_ms = _predict_ms(engine, text, folder.name)
        second_ms = _predict_ms(engine, text, folder.name)
        added_ms[folder.name] = first_ms - second_ms
    return {"median_ms_more": statistics.median(added_ms.values()), "by_adapter_ms_more": added_ms}


def _predict_ms(engine: Engine, text: str, adapter: str) -> float:
    start = time.perf_counter()
    engine.predict([text], adapter)
    return 1000 * (time.perf_counter() - start)


# ---------------------------------------------------------------- differences in the probabilities


def compare_paths(folder: Path, texts: list[str]) -> dict[str, dict]:
    """Return the differences of each fast path from the exact model.

    The exact model computes in fp32 with the 4-bit weights, the adapter unmerged, and each text alone.
    """
    engine = Engine(BASE, merged_mb=0, dtype=torch.float32)
    engine.add(store.read(folder, BASE))
    engine._packs_inputs = False  # the attention of transformers does not support packed texts
    served = engine.get(None)
    served.model.set_attn_implementation("eager")
    exact = served.scores(torch.cat([engine.logits([text]) for text in texts]))
    found = {}
    for kind, merged_mb in (("4 bits", 0), ("merged", None)):
        for way, probabilities in _probabilities(folder, texts, merged_mb).items():
            found[f"{kind}, {way}"] = difference(probabilities, exact[: len(probabilities)])
    return found


def compare_types(folder: Path, rows: pandas.DataFrame) -> dict:
    """Return the accuracies of a merged adapter in bf16 and in fp32, and how much its probabilities differ."""
    texts = rows["text"].tolist()
    labels = torch.tensor(rows["label"].tolist())
    probabilities = {}
    accuracy = {}
    for name, dtype in compute.TYPES.items():
        engine, served = _merged_or_not(folder, None, dtype)
        probabilities[name] = served.scores(engine.logits(texts))
        is_correct = probabilities[name].argmax(1) == labels
        accuracy[name] = float(is_correct.float().mean())
        engine.close()
    return {"accuracy": accuracy} | difference(probabilities["bf16"], probabilities["fp32"])


def _merged_or_not(folder: Path, merged_mb: float | None, dtype: torch.dtype | None = None) -> tuple[Engine, Served]:
    """Return an engine with one adapter, merged unless `merged_mb` is 0."""
    engine = Engine(BASE, merged_mb=merged_mb, dtype=dtype)
    engine.add(store.read(folder, BASE))
    if engine.merge(folder.name) != (merged_mb != 0):
        raise RuntimeError(f"{folder.name} could not be merged")
    return engine, engine.get(None)


def _probabilities(folder: Path, texts: list[str], merged_mb: float | None) -> dict[str, torch.Tensor]:
    """Return the probabilities of the texts in batches, and of each of the first 500 alone."""
    engine, served = _merged_or_not(folder, merged_mb)
    batched = served.scores(engine.logits(texts))
    alone = served.scores(torch.cat([engine.logits([text]) for text in texts[:500]]))
    engine.close()
    return {"batched": batched, "alone": alone}


def difference(found: torch.Tensor, expected: torch.Tensor) -> dict:
    """Return how much probabilities, shape (texts, labels), differ from those expected, and how many answers change."""
    is_flipped = found.argmax(1) != expected.argmax(1)
    is_sure = expected.max(1).values > 0.51
    change = (found - expected).abs()
    return {
        "texts": len(found),
        "largest_change": float(change.max()),
        "mean_change": float(change.mean()),
        "flips": int(is_flipped.sum()),
        "flips_outside_049_051": int((is_flipped & is_sure).sum()),
    }


# ---------------------------------------------------------------- texts that exceed the window


def compare_long_texts(folder: Path, rows: pandas.DataFrame) -> dict:
    """Return the accuracy on texts that exceed the window, truncated in the middle and read completely."""
    engine = Engine(BASE)
    adapter = engine.add_folder(folder)
    engine.merge(folder.name)
    is_long = [encoded.truncated for encoded in engine.encode(rows["text"].tolist())]
    long_rows = rows[is_long][:600]
    found: dict = {"texts": len(long_rows)}
    for key, whole_text in (("cut", False), ("whole", True)):
        answers = engine.predict(long_rows["text"].tolist(), whole_text=whole_text)
        is_correct = [adapter.labels[label] == answer.label for label, answer in zip(long_rows["label"], answers)]
        found[f"right_{key}"] = sum(is_correct)
    return found
