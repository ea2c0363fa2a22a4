"""Facts about the machine and the process: number of processes, threads, memory, device, energy and software."""

import ctypes
import gc
import os
import platform
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import pandas
import psutil
import torch

T = TypeVar("T")
EMISSIONS = "emissions.csv"
"""Name of CodeCarbon's file."""
_CPUINFO = Path("/proc/cpuinfo")
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Files with a container's limit in bytes, or `max`."""
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets")


def world_size() -> int:
    """Return the number of processes of this run on all machines, which `accelerate launch` and `torchrun` set."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main_process() -> bool:
    """Return whether this process is the one that prints, writes and pushes."""
    return int(os.environ.get("RANK", 0)) == 0


def emissions(path: Path, seconds: float) -> dict[str, float]:
    """Return `co2_grams` and `energy_kwh` from CodeCarbon's emissions.csv, which has a row for each start of the run.

    Empty if there is no file, or if its rows do not cover the `seconds` of training: an interrupted start leaves no
    row, and nothing is estimated for it.
    """
    if not path.is_file():
        return {}
    rows = pandas.read_csv(path)
    if rows["duration"].sum() < seconds:
        return {}
    return {"co2_grams": 1000 * float(rows["emissions"].sum()), "energy_kwh": float(rows["energy_consumed"].sum())}


def release_memory(collect: bool = True) -> None:
    """Return freed memory to the kernel, so that it does not count towards the peak of a later run.

    `collect` collects reference cycles first, which takes some tenths of a second.
    """
    if collect:
        gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def run_in_fresh_thread(function: Callable[..., T], *args) -> T:
    """Return the result of `function`, computed in a thread that ends with it.

    A thread that has computed keeps a pool of OpenMP threads until it ends. While there are more of these than
    cores, all of them sleep between two pieces of work, and a pass over 64 tokens takes 14 ms instead of 10.5.
    """
    with ThreadPoolExecutor(1, "fresh") as pool:
        return pool.submit(function, *args).result()


def use_one_core() -> None:
    """Limit the calling thread to one core; other threads keep their number of cores."""
    threads = torch.get_num_threads()  # this also makes the calling thread adopt the common number, once
    torch.set_num_threads(1)
    run_in_fresh_thread(torch.set_num_threads, threads)  # new threads adopt the number that was set last


def memory_mb() -> float:
    """Return the memory this process uses in MB (10^6 bytes): that of CUDA's allocator, or the resident set."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / 1e6
    return psutil.Process().memory_info().rss / 1e6


def total_memory_mb() -> float:
    """Return the memory of the GPU or, without one, of the machine or its container, in MB (10^6 bytes)."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / 1e6
    total = psutil.virtual_memory().total
    for path in _MEMORY_LIMITS:
        limit = path.read_text().strip() if path.is_file() else "max"
        if limit.isdigit():
            total = min(total, int(limit))
    return total / 1e6


class Peak:
    """Peak memory in MB (10^6 bytes)."""

    mb = 0.0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Yield a Peak that has, after the block, the peak memory in it (of CUDA's allocator, or the resident set)."""
    peak = Peak()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.mb = max(peak.mb, torch.cuda.max_memory_allocated() / 1e6)
        return
    process = psutil.Process()
    is_done = threading.Event()

    def watch() -> None:
        while not is_done.wait(0.05):
            peak.mb = max(peak.mb, process.memory_info().rss / 1e6)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        is_done.set()
        watcher.join()


def device_name() -> str:
    """Return `cuda: NVIDIA …`, `mps` or `cpu: N cores of … (amx_bf16)`.

    The bf16 instructions are named because they decide the speed of a CPU.
    """
    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    if torch.backends.mps.is_available():
        return "mps"
    threads = torch.get_num_threads()
    cores = f"cpu: {threads} {'core' if threads == 1 else 'cores'}"
    get_capabilities = getattr(torch.cpu, "get_capabilities", dict)  # missing in the oldest supported torch
    capabilities = get_capabilities()
    if not capabilities.get("cpu_name"):
        return cores
    bf16 = "no bf16"
    if capabilities.get("amx_bf16"):
        bf16 = "amx_bf16"
    elif capabilities.get("avx512_bf16"):
        bf16 = "avx512_bf16"
    return f"{cores} of {_model_name(capabilities['cpu_name'])} ({bf16})"


def _model_name(brand: str) -> str:
    """Return the CPU's model name from Linux, or `brand` with family and model if that name has no number."""
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return brand
    first_core = {}
    for line in text.split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        first_core[key.strip()] = value.strip()
    name = first_core.get("model name", "").replace("(R)", "").replace("(TM)", "")
    if re.search(r"\d", name):
        return name
    if "cpu family" not in first_core or "model" not in first_core:
        return brand
    return f"{brand}, family {first_core['cpu family']}, model {first_core['model']}"


def environment() -> dict:
    """Return the software, hardware and code revision of this run, as results record them."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    memory_gb = psutil.virtual_memory().total / 1e9
    return {
        "packages": {name: version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "hardware": f"{device_name()}, {memory_gb:.0f} GB",
        "code_revision": commit.stdout.strip() or "unknown",
    }
