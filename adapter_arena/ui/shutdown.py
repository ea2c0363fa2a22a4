"""Graceful shutdown: after SIGTERM no request is accepted, and those accepted before still get their responses."""

import os
import signal
import sys
import threading
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from adapter_arena.ui.event_queue import EventQueue
from adapter_arena.ui.metrics import Metrics
from adapter_arena.ui.responses import error_response, is_endpoint_path, refuse

GRACE_SECONDS = 8.0
"""Shutdown grace period; platforms kill a process 10 seconds or more after SIGTERM."""
_IDLE_CHECKS = 5
_CHECK_SECONDS = 0.05


class Shutdown:
    """The shutdown of one running app."""

    def __init__(self, metrics: Metrics, queue: EventQueue):
        self._metrics = metrics
        self._queue = queue
        self.open_responses = 0
        """Number of responses that are being sent."""

    @property
    def has_started(self) -> bool:
        """Whether new requests are refused."""
        return not self._metrics.is_ready

    def serve_until_stopped(self) -> None:
        """Wait for SIGTERM or Ctrl-C, then for responses, for at most GRACE_SECONDS, and end the process."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        while not stop.wait(0.5):  # a signal that the system delivers to another thread does not wake this one
            pass
        self.finish(GRACE_SECONDS)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # a normal exit would wait for the threads that compute or serve, or abort in them

    def finish(self, seconds: float) -> bool:
        """Refuse new requests and wait until all responses are sent. Return False if that takes over `seconds`."""
        self._metrics.is_ready = False
        deadline = time.monotonic() + seconds
        idle_checks = 0
        while idle_checks < _IDLE_CHECKS and time.monotonic() < deadline:
            has_work = self._metrics.in_progress or self.open_responses or self._queue.has_pending_responses
            idle_checks = 0 if has_work else idle_checks + 1  # the last bytes take a moment to reach the client
            time.sleep(_CHECK_SECONDS)
        if self._metrics.in_progress:
            print(f"stopped with {self._metrics.in_progress} requests unanswered", file=sys.stderr)
        return idle_checks == _IDLE_CHECKS


class RefuseDuringShutdown:
    """ASGI middleware that counts open responses and refuses new requests during a shutdown."""

    def __init__(self, app: ASGIApp, shutdown: Shutdown):
        self._app = app
        self._shutdown = shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (scope["method"] == "POST" or is_endpoint_path(scope["path"])):
            await self._app(scope, receive, send)
            return
        if scope["method"] == "POST" and self._shutdown.has_started:
            response = error_response(
                "The app is restarting. Please try again in 30 seconds.", 503, {"retry-after": "30"}
            )
            await refuse(response, scope, receive, send)
            return
        self._shutdown.open_responses += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._shutdown.open_responses -= 1
