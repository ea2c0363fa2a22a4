"""The kind of CPU that a benchmark runs on: this machine's, or an older one that it emulates.

A kind is what decides the fastest way to compute: `bf16` (bf16 instructions, in AVX-512 or AMX), `avx512` (AVX-512
without them), `avx2`. With `--cpu` a benchmark starts itself again as on an older kind. Results are kept by kind.
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
"""The kinds, newest first, with the tables' names for them."""
VARIABLES = {
    "avx512": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512_E1",
    },
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}
"""What restricts PyTorch where CPUID cannot be answered for it: the product and the peers that run on PyTorch."""
NOT_RESTRICTED = ("ONNX Runtime", "ONNX Runtime, int8", "OpenVINO")
"""Peers that VARIABLES do not restrict.

ONNX Runtime ignores them: a pass takes 650 to 720 ms with and without them, 960 to 1050 ms under CPUID emulation.
OpenVINO still reports bf16 and picks kernels that its own oneDNN then refuses: it cannot compile the model under
`avx2`, and a pass takes 9 s under `avx512` (0.4 s under CPUID emulation).
"""


def kind_of_this_machine() -> str:
    """Return a kind of TITLES, the emulated one under emulation; another CPU's architecture, such as `arm64`."""
    if "OLDER_CPU" in os.environ:
        return os.environ["OLDER_CPU"]
    has = torch.cpu.get_capabilities()
    if has.get("avx512_bf16") or has.get("amx_bf16"):
        return "bf16"
    if has.get("avx512_f"):
        return "avx512"
    return "avx2" if has.get("avx2") else has["architecture"]


def emulation() -> str | bool:
    """Return how this process emulates an older kind, `cpuid` or `environment`, or False if it does not."""
    if "OLDER_CPU" not in os.environ:
        return False
    return "cpuid" if "older_cpu.so" in os.environ.get("LD_PRELOAD", "") else "environment"


def facts() -> dict:
    """Return what results say of the CPU: whether it is emulated, its name, the type the product computes in on it."""
    found = {"emulated": emulation(), "cpu": machine.device_name(), "compute": compute.name_of(compute.choose())}
    return found | ({"left_out": list(NOT_RESTRICTED)} if emulation() == "environment" else {})


def add_option(parser: ArgumentParser) -> None:
    """Add `--cpu`."""
    parser.add_argument(
        "--cpu",
        default="native",
        choices=("native", *TITLES),
        help="the kind of CPU to measure on; one older than this machine's is emulated",
    )


def become(kind: str) -> None:
    """Restart this script, and with it all processes it starts, on a CPU of `kind`; return if it is on one already.

    Exits with one line if `kind` is newer than this machine's.
    """
    if folder := os.environ.pop("OLDER_CPU_FOLDER", None):  # restarted: no other process deletes it
        atexit.register(shutil.rmtree, folder)
    own = kind_of_this_machine()
    if kind in ("native", own):
        return
    kinds = list(TITLES)
    if own not in kinds or kinds.index(kind) < kinds.index(own):
        sys.exit(f"error: --cpu {kind}: this CPU, of kind {own}, cannot run as one; an older kind can be emulated")
    folder = tempfile.mkdtemp(prefix="older-cpu-")
    environment = os.environ | {"OLDER_CPU": kind, "OLDER_CPU_FOLDER": folder}
    if library := build(Path(folder)):
        environment["LD_PRELOAD"] = " ".join([str(library), *os.environ.get("LD_PRELOAD", "").split()])
    else:
        print("CPUID cannot be made to fault: variables restrict PyTorch, other runtimes are left out", file=sys.stderr)
        environment |= VARIABLES[kind]
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def build(folder: Path) -> Path | None:
    """Compile older_cpu.c in `folder`; None if there is no C compiler, or CPU or kernel cannot make CPUID fault."""
    library = folder / "older_cpu.so"
    source = Path(__file__).with_name("older_cpu.c")
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    environment = os.environ | {"OLDER_CPU": "avx2", "LD_PRELOAD": str(library)}
    trial = subprocess.run([sys.executable, "-S", "-c", ""], env=environment, capture_output=True)
    # The loader only warns of a library that it cannot load.
    return None if trial.returncode or trial.stderr else library


def updated(results: dict, kind: str, part: str, machine_facts: dict, **entries: object) -> dict:
    """Return `results` with the `entries` of a part under `kind`, and the CPU it was measured on under `machines`.

    What else there is, of this kind and of others, stays: parts may be measured on different machines of one kind.
    """
    kept = results.get(kind, {})
    machines = kept.get("machines", {}) | {part: machine_facts}
    found = results | {kind: {"machines": machines} | kept | {"machines": machines} | entries}
    return {kind: found[kind] for kind in (*TITLES, *found) if kind in found}


def title(kind: str, found: dict) -> str:
    """Return the kind's name for a table of its peers, with the type computed in and whether it was emulated."""
    peers = found["machines"]["peers"]
    emulated = ", emulated" if peers["emulated"] else ""
    return f"{TITLES.get(kind, kind)} (in {peers['compute']}{emulated})"
