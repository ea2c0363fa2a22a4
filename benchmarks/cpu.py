"""The kind of CPU that a benchmark runs on: this machine's, or an older one that is emulated.

The kinds differ in the instructions that decide how a CPU computes fastest: `bf16` (bf16 instructions, in AVX-512 or
AMX), `avx512` (AVX-512 without them) and `avx2`. With `--cpu` a benchmark restarts itself on an emulated older kind.
Results are stored by kind.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

import torch

from adapter_arena import machine
from adapter_arena.models import compute

TITLES = {"bf16": "CPU with bf16", "avx512": "AVX-512", "avx2": "AVX2"}
"""The kinds, newest first, and their names in tables."""
VARIABLES = {
    "avx512": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512_E1",
    },
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}
"""Environment variables that restrict PyTorch on a machine where CPUID cannot be emulated."""
NOT_RESTRICTED = ("ONNX Runtime", "ONNX Runtime, int8", "OpenVINO")
"""Peers that VARIABLES do not restrict.

ONNX Runtime ignores them: a pass takes 650 to 720 ms with and without them, and 960 to 1050 ms under CPUID emulation.
OpenVINO still reports bf16 and selects kernels that its own oneDNN rejects: it cannot compile the model under `avx2`,
and a pass takes 9 s under `avx512` (0.4 s under CPUID emulation).
"""


def kind_of_this_machine() -> str:
    """Return a key of TITLES, which is the emulated kind under emulation.

    For a CPU of no such kind return its architecture, such as `arm64`.
    """
    if "OLDER_CPU" in os.environ:
        return os.environ["OLDER_CPU"]
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
        return "bf16"
    if capabilities.get("avx512_f"):
        return "avx512"
    if capabilities.get("avx2"):
        return "avx2"
    return capabilities["architecture"]


def emulation() -> str | bool:
    """Return how this process emulates an older kind, `cpuid` or `environment`, or False if it does not."""
    if "OLDER_CPU" not in os.environ:
        return False
    if "older_cpu.so" in os.environ.get("LD_PRELOAD", ""):
        return "cpuid"
    return "environment"


def facts() -> dict:
    """Return the facts of the CPU for the results: how it is emulated, its name, and the type of the computation."""
    found = {"emulated": emulation(), "cpu": machine.device_name(), "compute": compute.name_of(compute.choose())}
    if emulation() == "environment":
        found["left_out"] = list(NOT_RESTRICTED)
    return found


def add_option(parser: ArgumentParser) -> None:
    """Add `--cpu`."""
    parser.add_argument(
        "--cpu",
        default="native",
        choices=("native", *TITLES),
        help="the kind of CPU to measure on; one older than this machine's is emulated",
    )


def become(kind: str) -> None:
    """Restart this script on an emulated CPU of `kind`; do nothing if the CPU is of this kind already.

    The processes that the script starts are on the emulated CPU as well. Exits with one line if `kind` is newer than
    this machine's.
    """
    if folder := os.environ.pop("OLDER_CPU_FOLDER", None):
        atexit.register(shutil.rmtree, folder)  # made by this script before it restarted itself
    own = kind_of_this_machine()
    if kind in ("native", own):
        return
    kinds = list(TITLES)
    if own not in kinds or kinds.index(kind) < kinds.index(own):
        sys.exit(f"error: --cpu {kind}: this CPU is of kind {own} and can only emulate an older kind")
    folder = tempfile.mkdtemp(prefix="older-cpu-")
    environment = os.environ | {"OLDER_CPU": kind, "OLDER_CPU_FOLDER": folder}
    if library := build(Path(folder)):
        environment["LD_PRELOAD"] = " ".join([str(library), *os.environ.get("LD_PRELOAD", "").split()])
    else:
        print("CPUID cannot be emulated: only PyTorch is restricted; other runtimes are not measured", file=sys.stderr)
        environment |= VARIABLES[kind]
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def build(folder: Path) -> Path | None:
    """Compile older_cpu.c in `folder` and return the library.

    Returns None if there is no C compiler, or if the CPU or the kernel cannot make CPUID fault.
    """
    library = folder / "older_cpu.so"
    source = Path(__file__).with_name("older_cpu.c")
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    environment = os.environ | {"OLDER_CPU": "avx2", "LD_PRELOAD": str(library)}
    trial = subprocess.run([sys.executable, "-S", "-c", ""], env=environment, capture_output=True)
    # The loader only warns about a library that it cannot load.
    if trial.returncode or trial.stderr:
        return None
    return library


def updated(results: dict, kind: str, part: str, machine_facts: dict, **entries: object) -> dict:
    """Return `results` with the `entries` of a part under `kind`, and the CPU it was measured on under `machines`.

    All other parts and kinds stay: parts may be measured on different machines of one kind.
    """
    previous = results.get(kind, {})
    machines = previous.get("machines", {}) | {part: machine_facts}
    of_kind = {"machines": machines}  # the first key
    of_kind |= previous | entries
    of_kind["machines"] = machines
    found = results | {kind: of_kind}
    return {key: found[key] for key in (*TITLES, *found) if key in found}


def title(kind: str, found: dict) -> str:
    """Return the title of a kind in a table of peers: its name, the type of the computation, whether it was emulated."""
    peers = found["machines"]["peers"]
    emulated = ", emulated" if peers["emulated"] else ""
    return f"{TITLES.get(kind, kind)} (in {peers['compute']}{emulated})"
