"""Adapter Arena: one 4-bit base model, every fine-tuning method as an adapter on it."""

__version__ = "0.1.0"

import logging
import os

# Before OpenMP is loaded. A thread that waits for its next piece of a pass spins, by default for milliseconds, and so
# takes a core from whatever else has work; where there are more pools of threads than cores it sleeps at once, and a
# text of 64 tokens takes 12 ms instead of 7. This is long enough for what lies between two pieces.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
# At its import bitsandbytes warns that an optional kernel is missing; the fast path in bases.py does without it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
