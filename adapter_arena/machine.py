"""The machine a run has: its processes, memory, devices, energy and software."""

import ctypes
import gc
import os
import platform
import subprocess
import threading
from collections.abc import Callable
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
_CPUINFO = Path("/proc/cpuinfo")
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets")


def processes() -> int:
    """Of this run, over all machines; `accelerate launch` and `torchrun` set it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first() -> bool:
    """Whether this process is the one that prints, writes and pushes."""
    return int(os.environ.get("RANK", 0)) == 0


def emissions(path: Path, seconds: float) -> dict[str, float]:
    """`co2_grams` and `energy_kwh` from CodeCarbon's emissions.csv, which gets a row for each start of the run.

    Empty without the file, and when its rows do not cover the `seconds` trained: a start that was
    interrupted leaves none, and nothing is estimated for it.
    """
    if not path.is_file():
        return {}
    rows = pandas.read_csv(path)
    if rows["duration"].sum() < seconds:
        return {}
    return {"co2_grams": 1000 * float(rows["emissions"].sum()), "energy_kwh": float(rows["energy_consumed"].sum())}


def reuse_memory() -> None:
    """Have glibc keep freed memory instead of giving every large tensor back to the kernel.

    Measured on 16x512 tokens, two cores: a training step took 2.4 s, most of the difference page
    faults, and 1.1 s with this. Elsewhere than on glibc it does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    # Of compiled sizes: 384 lengths of texts and 150 of batches have up to five layers each.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
    libc = ctypes.CDLL("libc.so.6")
    trim_threshold, mmap_threshold, mmap_max, arena_max = -1, -3, -4, -8  # M_* of malloc.h
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(mmap_threshold, 2**30)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(arena_max, 1)  # a thread's own arena holds 64 MB and is unmapped as soon as it is empty


def release_memory(collect: bool = True) -> None:
    """Give what is freed back to the kernel, so that a run's peak does not hold what an earlier one left.

    `collect` looks for reference cycles before, which takes some tenths of a second.
    """
    if collect:
        gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def run_in_fresh_thread(function: Callable[..., T], *args) -> T:
    """Return what `function` returns, computed in a thread that ends with it.

    A thread that has computed keeps a pool of OpenMP's threads until it ends. While there are more of these than
    cores, all wait asleep for the next piece of work, and a pass over 64 tokens takes 14 ms instead of 10.5.
    """
    with ThreadPoolExecutor(1, "fresh") as pool:
        return pool.submit(function, *args).result()


def compute_alone() -> None:
    """Have the calling thread use no other cores, whatever torch's number of threads is for the others."""
    most = torch.get_num_threads()  # which also has this thread take over the common number, once
    torch.set_num_threads(1)
    run_in_fresh_thread(torch.set_num_threads, most)  # threads that are new take over what was set last


def memory_mb() -> float:
    """What this process holds now: CUDA's allocator, or the resident set; in MB of 10^6 bytes."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / 1e6
    return psutil.Process().memory_info().rss / 1e6


class Peak:
    """The most memory seen so far, in MB of 10^6 bytes."""

    mb = 0.0


@contextmanager
def peak_memory():
    """Yields a Peak that is, after the block, the most memory held in it (RSS, or CUDA's allocator)."""
    peak, done, process = Peak(), threading.Event(), psutil.Process()

    def watch() -> None:
        while not done.wait(0.05):
            peak.mb = max(peak.mb, process.memory_info().rss / 1e6)

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.mb = max(peak.mb, torch.cuda.max_memory_allocated() / 1e6)
        return
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def device_name() -> str:
    """`cuda: NVIDIA …`, `mps` or `cpu: N cores of … (amx_bf16)`; which bf16 instructions a CPU has decides its seconds."""
    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    if torch.backends.mps.is_available():
        return "mps"
    cores = f"cpu: {torch.get_num_threads()} cores"
    has = getattr(torch.cpu, "get_capabilities", dict)()  # not in the oldest torch that is supported
    if not has.get("cpu_name"):
        return cores
    bf16 = next((name for name in ("amx_bf16", "avx512_bf16") if has.get(name)), "no bf16")
    return f"{cores} of {_model_name(has['cpu_name'])} ({bf16})"


def _model_name(brand: str) -> str:
    """The CPU's model name as Linux has it; a `brand` such as `Intel Xeon` with family and model if that has no number."""
    try:
        text = _CPUINFO.read_text().split("\n\n")[0]  # the first core's
    except OSError:
        return brand
    lines = (line.partition(":") for line in text.splitlines())
    has = {key.strip(): value.strip() for key, _, value in lines}
    name = has.get("model name", "").replace("(R)", "").replace("(TM)", "")
    if any(character.isdigit() for character in name):
        return name
    if "cpu family" not in has or "model" not in has:
        return brand
    return f"{brand}, family {has['cpu family']}, model {has['model']}"


def environment() -> dict:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    return {
        "packages": {name: version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.system() + " " + platform.machine(),
        "hardware": f"{device_name()}, {psutil.virtual_memory().total / 1e9:.0f} GB",
        "code_revision": commit.stdout.strip() or "unknown",
    }
