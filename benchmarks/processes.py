"""Run a measurement in a new process, and report progress."""

import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def run_in_new_process(function: Callable[..., T], *arguments, initializer: Callable[[], None] | None = None) -> T:
    """Return the result of `function` from a new process, whose memory nothing else has used.

    `initializer` is called in that process first.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer) as pool:
        return pool.submit(function, *arguments).result()


def print_progress(line: str) -> None:
    """Print a line with the time to stderr."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
