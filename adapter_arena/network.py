"""Whether the Hub can be reached: one connection with a short timeout, remembered for a minute."""

import os
import socket
import threading
import time
from typing import NamedTuple
from urllib.parse import urlsplit

PROBE_SECONDS = 2.0
"""Timeout of a connection to the Hub."""
REMEMBERED_SECONDS = 60.0
"""How long the result of a probe is used."""


class _Probe(NamedTuple):
    """Result of one connection attempt; `time` is in seconds of time.monotonic()."""

    time: float
    is_reachable: bool


_lock = threading.Lock()
_last: _Probe | None = None


def hub_reachable() -> bool:
    """Return whether the Hub's port accepted a connection within PROBE_SECONDS, in the last minute or now.

    Without this probe every library call retries for about 24 s on a machine with no network.
    """
    global _last
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        return False
    with _lock:  # callers that come during a probe wait for its result
        if _last is None or time.monotonic() - _last.time > REMEMBERED_SECONDS:
            _last = _Probe(time.monotonic(), _connects())
        return _last.is_reachable


def forget_probe() -> None:
    """Forget the last result: the next `hub_reachable` probes the network again."""
    global _last
    _last = None


def probe_in_background() -> None:
    """Probe the Hub in another thread, so that a network which drops packets delays nothing later."""
    threading.Thread(target=hub_reachable, name="probe", daemon=True).start()


def _connects() -> bool:
    url = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        with socket.create_connection((url.hostname, port), timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False
