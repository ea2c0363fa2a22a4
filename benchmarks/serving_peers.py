"""Measure all peers of peers.py in turns, each in a process of its own."""

import contextlib
import os
import random
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cpu
import peers
from peers import PEERS, Peer
from processes import print_progress, run_in_new_process
from workload import beginnings

from adapter_arena import machine, runtime

LIBRARY_DEFAULTS = {"GOMP_SPINCOUNT": "300000", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024"}
"""What the libraries use without the variables that adapter_arena.runtime sets."""
_peer: Peer | None = None
"""The peer of this process, in the processes of the peers."""


def measure_peers(folders: list[Path], texts: list[str], rounds: int, folder: Path) -> dict[str, dict]:
    """Return the measurements of every peer by name, with one value a round.

    They are the milliseconds of single texts, and the texts per second of many texts for one adapter and for all.
    """
    merged_folders = write_merged_folders(folders, folder / "merged")
    first_adapter = folders[0].name
    single_texts = {tokens: beginnings(texts, tokens)[:20] for tokens in (64, 256)}
    adapters = random.Random(0).choices([folder.name for folder in folders], k=len(texts))
    measured: dict[str, dict] = {}
    labels: dict[str, list[int]] = {}
    with contextlib.ExitStack() as stack:
        processes = {}
        for name in measured_peers():
            peer_folders = merged_folders if PEERS[name].needs_merged_folders else folders
            process = stack.enter_context(start_process(name, peer_folders, texts[:48]))
            facts = process.submit(_facts).result()
            measured[name] = {"single_64_ms": [], "single_256_ms": [], "one": [], "mixed": []} | facts
            processes[name] = process
        for number in range(rounds):
            for name, process in processes.items():
                row = measured[name]
                for tokens, some_texts in single_texts.items():
                    milliseconds = process.submit(_median_ms, some_texts, first_adapter).result()
                    row[f"single_{tokens}_ms"].append(milliseconds)
                some_texts = texts[: row["most"]]
                seconds, labels[name] = process.submit(_answer, some_texts, first_adapter).result()
                row["one"].append(len(some_texts) / seconds)
                if not PEERS[name].serves_one_adapter:
                    seconds = process.submit(_answer_mixed, some_texts, adapters).result()
                    row["mixed"].append(len(some_texts) / seconds)
                mixed_rates = row["mixed"] or [0]
                print_progress(f"round {number + 1}: {name} {row['one'][-1]:.1f}, mixed {mixed_rates[-1]:.1f} texts/s")
    for name, row in measured.items():
        row["same_label_as_ours"] = share_of_equal_labels(labels[name], labels["Adapter Arena"])
    return measured


def measured_peers() -> list[str]:
    """Return the names of the peers that can be measured on this kind of CPU."""
    if cpu.emulation() == "environment":
        return [name for name in PEERS if name not in cpu.NOT_RESTRICTED]
    return list(PEERS)


def share_of_equal_labels(labels: list[int], ours: list[int]) -> float:
    """Return the share of equal labels among those of the first texts, which a peer may have answered alone."""
    equal = sum(label == our_label for label, our_label in zip(labels, ours))
    return equal / len(labels)


def write_merged_folders(folders: list[Path], target: Path) -> list[Path]:
    """Write a complete model for every adapter, the first one also as ONNX; return their folders."""
    merged_folders = []
    for folder in folders:
        is_first = folder is folders[0]
        merged_folder = target / folder.name
        run_in_new_process(peers.write_merged, folder, merged_folder, is_first, initializer=runtime.configure)
        merged_folders.append(merged_folder)
    return merged_folders


def start_process(name: str, folders: list[Path], texts: list[str]) -> ProcessPoolExecutor:
    """Start the process of a peer, which loads the folders and is tuned on the texts."""
    our_settings = {variable: os.environ[variable] for variable in LIBRARY_DEFAULTS}
    if not PEERS[name].has_our_settings:
        os.environ.update(LIBRARY_DEFAULTS)
    process = ProcessPoolExecutor(1, get_context("spawn"), _start, (name, folders, texts))
    process.submit(_facts).result()  # the process starts with the first call
    os.environ.update(our_settings)
    return process


# ---------------------------------------------------------------- in the processes of the peers


def _start(name: str, folders: list[Path], texts: list[str]) -> None:
    global _peer
    peer_class = PEERS[name]
    if peer_class.has_our_settings:
        runtime.configure()
    _peer = peer_class(folders)
    _peer.tune(texts, folders[0].name)


def _facts() -> dict:
    return {"memory_mb": machine.memory_mb(), "size": _peer.size, "most": _peer.max_texts}


def _answer(texts: list[str], adapter: str) -> tuple[float, list[int]]:
    """Return the seconds and the label ids."""
    start = time.perf_counter()
    labels = _peer.answer(texts, adapter)
    return time.perf_counter() - start, labels


def _answer_mixed(texts: list[str], adapters: list[str]) -> float:
    """Return the seconds for texts that are each for another adapter."""
    start = time.perf_counter()
    _peer.mixed(texts, adapters)
    return time.perf_counter() - start


def _median_ms(texts: list[str], adapter: str) -> float:
    """Return the median milliseconds of the texts, each in a request of its own."""
    milliseconds = []
    for text in texts:
        seconds, _ = _answer([text], adapter)
        milliseconds.append(1000 * seconds)
    return statistics.median(milliseconds)
