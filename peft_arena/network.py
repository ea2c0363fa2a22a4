"""Whether the Hub can be reached, asked once with a short time-out."""

import functools
import os
import socket
from urllib.parse import urlsplit

PROBE_SECONDS = 2.0


@functools.cache
def hub_reachable() -> bool:
    """True when the Hub's port accepts a connection within PROBE_SECONDS.

    Without this probe every library call retries for about 24 s on a machine with no network.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        return False
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname, port), timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False
