"""Whether the Hub can be reached, asked with a short time-out and remembered for a minute."""

import os
import socket
import threading
import time
from urllib.parse import urlsplit

PROBE_SECONDS = 2.0
REMEMBERED_SECONDS = 60.0

_lock = threading.Lock()
_last: tuple[float, bool] | None = None


def hub_reachable() -> bool:
    """True when the Hub's port accepts a connection within PROBE_SECONDS; asked again after a minute.

    Without this probe every library call retries for about 24 s on a machine with no network.
    """
    global _last
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        return False
    with _lock:  # whoever comes while a probe is under way waits for its answer
        if _last is None or time.monotonic() - _last[0] > REMEMBERED_SECONDS:
            _last = (time.monotonic(), _probe())
        return _last[1]


def ask_again() -> None:
    """Forget the last answer: the next question probes the network again."""
    global _last
    _last = None


def probe_in_background() -> None:
    """Ask while the caller goes on, so that a network which swallows packets delays nothing later."""
    threading.Thread(target=hub_reachable, name="probe", daemon=True).start()


def _probe() -> bool:
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname, port), timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False
