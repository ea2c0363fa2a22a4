"""What the app is to those who run it: /health, /metrics, headers, visitors' shares, and an orderly end."""

import logging
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections import OrderedDict, deque
from contextlib import contextmanager

import gradio as gr
from gradio.route_utils import FnIndexInferError
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from .. import settings
from ..catalogue import Catalogue
from .shared import refused

_LOG = logging.getLogger(__name__)
END_SECONDS = 8.0
"""What requests under way have to finish in when the app is told to end; platforms kill it after 10 or more."""
_MAX_VISITORS = 10_000
_NO_ENDPOINT = "The app has no endpoint of that name."
_DESCRIBED = "Every endpoint and what it takes is in /gradio_api/openapi.json."
_ENDING = "The app is about to start again: ask once more in half a minute."
# Gradio's page starts with inline scripts, makes functions of text, and may stand in the Hub's frame around a Space.
_POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval' https://cdnjs.cloudflare.com",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "worker-src": "'self' blob:",
    "connect-src": "'self' data: blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'self' https://huggingface.co https://*.hf.space",
}
HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Service:
    """Counts and limits what is asked of one running app."""

    def __init__(self, catalogue: Catalogue):
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._visits: OrderedDict[str, deque[float]] = OrderedDict()
        self.under_way = 0
        """Requests that are being answered."""
        self.is_ending = False
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "arena_requests", "Requests that ended, by endpoint and outcome", ["endpoint", "outcome"], registry=self._registry
        )  # fmt: skip
        self._seconds = Histogram("arena_request_seconds", "Time to an answer", ["endpoint"], registry=self._registry)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    # ------------------------------------------------------------ requests

    @contextmanager
    def request(self, endpoint: str, visitor: str | None):
        """Around each request; raises gr.Error where the visitor has had their share of this minute."""
        if visitor is not None:
            self._check_share(visitor)
        with self._lock:
            self.under_way += 1
        start, outcome = time.perf_counter(), "failed"
        try:
            yield
            outcome = "answered"
        except gr.Error:
            outcome = "refused"
            raise
        finally:
            self._seconds.labels(endpoint).observe(time.perf_counter() - start)
            self._requests.labels(endpoint, outcome).inc()
            with self._lock:
                self.under_way -= 1

    def _check_share(self, visitor: str) -> None:
        most = settings.number("ARENA_MAX_PER_MINUTE")
        if not most:
            return
        now = time.monotonic()
        with self._lock:
            visits = self._visits.setdefault(visitor, deque())
            self._visits.move_to_end(visitor)
            while len(self._visits) > _MAX_VISITORS:
                self._visits.popitem(last=False)
            while visits and visits[0] < now - 60:
                visits.popleft()
            if len(visits) >= most:
                wait = math.ceil(visits[0] + 60 - now)
                raise refused(
                    f"You have asked {len(visits):,} times in a minute, the most for one visitor "
                    f"(ARENA_MAX_PER_MINUTE): ask again in {wait} s."
                )
            visits.append(now)

    # ------------------------------------------------------------ for those who run it

    @property
    def app_settings(self) -> dict:
        """What FastAPI is to be made with."""
        routes = [Route("/health", self._health), Route("/metrics", self._metrics)]
        return {"routes": routes, "middleware": [Middleware(_Guard, service=self)]}

    async def _health(self, _: Request) -> JSONResponse:
        """200 while it takes requests, 503 when it is ending."""
        return JSONResponse({"ready": not self.is_ending, **self._facts()}, 503 if self.is_ending else 200)

    async def _metrics(self, _: Request) -> PlainTextResponse:
        return PlainTextResponse(generate_latest(self._registry), media_type="text/plain; version=0.0.4")

    def _facts(self) -> dict[str, float]:
        engine = self._catalogue.engine
        return {
            "adapters": len(self._catalogue.entries),
            "adapters_in_memory": engine.in_memory,
            "texts_waiting": engine.waiting,
            "requests_under_way": self.under_way,
            "merged_mb": round(engine.merged_mb, 1),
        }

    def collect(self):
        """What Prometheus is told besides the counters."""
        for name, value in self._facts().items():
            yield GaugeMetricFamily(f"arena_{name}", name.replace("_", " "), value)

    # ------------------------------------------------------------ the end

    def serve_until_told(self, demo: gr.Blocks) -> None:
        """End the process after SIGTERM or Ctrl-C, when what was asked before is answered or END_SECONDS have passed."""
        told = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: told.set())
        told.wait()
        self.is_ending = True
        end, quiet = time.monotonic() + END_SECONDS, 0
        while time.monotonic() < end and quiet < 5:  # an answer is on its way to the caller for a moment after
            quiet = 0 if self.under_way or len(demo._queue) else quiet + 1
            time.sleep(0.05)
        if self.under_way:
            print(f"ended with {self.under_way} requests unanswered", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # threads that compute, or hold the server, would be waited for or die with an abort


class _Guard:
    """ASGI: security headers on every reply, one line for what cannot be read, no new requests while the app ends."""

    def __init__(self, app, service: Service):
        self._app, self._service = app, service

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        is_begun = False

        async def send_with_headers(message) -> None:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                is_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app = self._app
        if scope["method"] == "POST" and self._service.is_ending:
            app = _error(_ENDING, 503, {"retry-after": "30"})
        try:
            await app(scope, receive, send_with_headers)
        except (KeyError, FnIndexInferError) as error:  # Gradio's routes read what is posted without a check
            if is_begun or scope["method"] != "POST":
                raise
            _note(error)
            await _error(f"{_NO_ENDPOINT} {_DESCRIBED}", 404)(scope, receive, send_with_headers)
        except (TypeError, ValueError, AttributeError) as error:
            if is_begun or scope["method"] != "POST":
                raise
            _note(error)
            reason = "a part of it is no file" if isinstance(error, AttributeError) else str(error)
            reason = reason.partition("\n")[0].partition(". Please click")[0][:200]
            reply = _error(f"The request cannot be read: {reason}. {_DESCRIBED}", 422)
            await reply(scope, receive, send_with_headers)
        except RuntimeError as error:
            if not (is_begun and isinstance(error.__cause__, HTTPException)):
                raise
            await send({"type": "http.response.body"})  # Gradio has told the reason, as an event


def _note(error: Exception) -> None:
    """For the log: what went wrong and where, without a visitor's words."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    _LOG.warning("a request could not be read: %s in %s, line %s", type(error).__name__, last.name, last.lineno)


def _error(reason: str, status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    reason = reason.encode(errors="replace").decode()  # half a pair of surrogates is in no reply
    return JSONResponse({"error": reason, "detail": reason}, status, headers)
