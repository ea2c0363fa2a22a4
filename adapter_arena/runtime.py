"""Process-wide settings: environment variables, memory allocation, log levels and warnings.

A program calls `configure` before it imports anything else that is slow. Importing `adapter_arena` as a library changes
nothing in the process.
"""

import ctypes
import logging
import os
import platform
import warnings

ENVIRONMENT = {
    # A thread of OpenMP that waits for its next piece of work spins, by default for milliseconds, and takes a core from
    # other work; if there are more thread pools than cores it sleeps immediately, and a text of 64 tokens takes 12 ms
    # instead of 7. This is long enough for the time between two pieces.
    "GOMP_SPINCOUNT": "5000",
    # Number of compiled sizes: 384 lengths of texts and 150 sizes of batches have up to five layers each.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "4096",
    # No load reports and progress bars on the user's terminal.
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Starting the app and clicking in it reach no network.
    "GRADIO_ANALYTICS_ENABLED": "False",
    # After every request Gradio summarises the last 10,000 with pandas for a page that /metrics replaces.
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
}
"""Variables that are set unless the user has set them."""

_IGNORED_WARNINGS = (
    "Unsupported layer type",  # PEFT, about LN tuning's own layers
    "The following rank_pattern keys did not match",  # AdaLoRA applies its pattern itself
    "lora with eva initialization used with low_cpu_mem_usage=False",
)

# Constants of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def configure(parallel_tokenizers: bool = True) -> None:
    """Configure this process; call it once, before torch, transformers or gradio are imported.

    The libraries read the variables when they are imported, and child processes inherit them. With
    `parallel_tokenizers=False`, for a process that forks after it has tokenised, tokenizers use one thread and do not
    warn about the fork.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not parallel_tokenizers:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _reuse_memory()
    # It warns at import that an optional kernel is missing, which the CPU path does not use.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    for message in _IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def _reuse_memory() -> None:
    """Make glibc reuse freed memory instead of returning every large tensor to the kernel.

    Measured on 16x512 tokens and two cores: a training step took 2.4 s, most of it page faults, and takes 1.1 s with
    this; serving spent 40 % of its time in page faults. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
    libc.mallopt(_M_MMAP_MAX, 0)
    # An arena of a thread's own reserves 64 MB and is unmapped as soon as it is empty.
    libc.mallopt(_M_ARENA_MAX, 1)
