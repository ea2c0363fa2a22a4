"""What the app is to those who run it: /health, /metrics, headers, visitors' shares, and an orderly end."""

import asyncio
import ipaddress
import logging
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections import OrderedDict, deque
from contextlib import contextmanager, suppress

import gradio as gr
import psutil
from gradio.route_utils import FnIndexInferError
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from adapter_arena import settings
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.ui import uploads
from adapter_arena.ui.sessions import Unfetched
from adapter_arena.ui.shared import refused

_LOG = logging.getLogger(__name__)
END_SECONDS = 8.0
"""What requests under way have to finish in when the app is told to end; platforms kill it after 10 or more."""
LINGER_SECONDS, LINGER_TIMES = 5.0, 4
"""How long a refused request is read on, and up to how many times what it may have."""
_MAX_VISITORS = 10_000
_ANSWERS = ("/call/", "/run/", "/api/", "/queue/")
"""In the paths by which something is asked and answers are sent; a page's /heartbeat, which lasts, is not among them."""
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


def visitor(client: str | None, forwarded: str | None) -> str | None:
    """Who asks. On a Space that is the last public address that its proxies name, since they connect from their own.

    An IPv6 visitor is known by their network, of which they have every address.
    """
    if os.environ.get("SPACE_ID"):
        for part in reversed((forwarded or "").split(",")):
            with suppress(ValueError):
                address = ipaddress.ip_address(part.strip())
                if address.is_global:
                    return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False))
    return client


class Service:
    """Counts and limits what is asked of one running app."""

    def __init__(self, catalogue: Catalogue):
        self._catalogue = catalogue
        self.demo: gr.Blocks | None = None
        """The page, once it is made."""
        self.unfetched = Unfetched()
        self.sending = 0
        """Answers that are being sent."""
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
            self.check_share(visitor)
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

    def check_share(self, visitor: str) -> None:
        """Count one request of a visitor's, or raise gr.Error where they have had their share of this minute."""
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

    def check_queue(self) -> None:
        """Raise gr.Error where as many calls wait or are answered as may."""
        queued, most = len(self.demo._queue) + self.under_way, settings.number("ARENA_MAX_QUEUE")
        if queued >= most:
            raise refused(f"{queued:,} calls wait, the most there may be (ARENA_MAX_QUEUE): ask again in a minute.")

    # ------------------------------------------------------------ for those who run it

    @property
    def app_settings(self) -> dict:
        """What FastAPI is to be made with."""
        routes = [Route("/health", self._health), Route("/metrics", self._metrics)]
        return {"routes": routes, "middleware": [Middleware(_Guard, service=self)]}

    async def _health(self, _: Request) -> JSONResponse:
        """200 while it takes requests, 503 when it is ending."""
        computes_in = self._catalogue.engine.compute
        content = {"ready": not self.is_ending, "compute": computes_in, **self._facts()}
        return JSONResponse(content, 503 if self.is_ending else 200)

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
            "memory_mb": round(psutil.Process().memory_info().rss / 1e6, 1),
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
        while not told.wait(0.5):  # a signal that the system hands to another thread wakes no thread that waits
            pass
        self.finish(demo, END_SECONDS)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # threads that compute, or hold the server, would be waited for or die with an abort

    def finish(self, demo: gr.Blocks, seconds: float) -> bool:
        """Refuse new requests and wait for the answers to earlier ones; False if `seconds` pass before all are sent."""
        self.is_ending = True
        end, quiet = time.monotonic() + seconds, 0
        while time.monotonic() < end and quiet < 5:  # an answer is on its way to the caller for a moment after
            is_owed = (
                self.under_way
                or self.sending
                or len(demo._queue)
                or any(demo._queue.pending_event_ids_session.values())
            )
            quiet = 0 if is_owed else quiet + 1
            time.sleep(0.05)
        if self.under_way:
            print(f"ended with {self.under_way} requests unanswered", file=sys.stderr)
        return quiet >= 5


class _Guard:
    """ASGI: security headers on every reply, one line for what cannot be read, no new requests while the app ends."""

    def __init__(self, app, service: Service):
        self._app, self._service = app, service

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path, is_post, is_begun = scope["path"], scope["method"] == "POST", False
        self._service.unfetched.sweep(self._service.demo)

        async def send_with_headers(message) -> None:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                is_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal and is_post and "expect" not in Headers(scope=scope):  # who asks before sending has sent nothing yet
            await _drain(receive, _most_bytes(path))
        app = refusal or self._app
        if "/mcp" in path:
            scope = _as_who_asks(scope)
        is_answer = any(part in path for part in _ANSWERS)
        self._service.sending += is_answer
        try:
            await app(scope, _bounded(receive, _most_bytes(path)), send_with_headers)
        except (KeyError, FnIndexInferError) as error:  # Gradio's routes read what is posted without a check
            if is_begun or not is_post:
                raise
            note(error)
            await _error(f"{_NO_ENDPOINT} {_DESCRIBED}", 404)(scope, receive, send_with_headers)
        except (TypeError, ValueError, AttributeError) as error:
            if is_begun or not is_post:
                raise
            note(error)
            reason = "a part of it is no file" if isinstance(error, AttributeError) else str(error)
            reason = reason.partition("\n")[0].partition(". Please click")[0][:200]
            reply = _error(f"The request cannot be read: {reason}. {_DESCRIBED}", 422)
            await reply(scope, receive, send_with_headers)
        except RuntimeError as error:
            if not (is_begun and isinstance(error.__cause__, HTTPException)):
                raise
            await send({"type": "http.response.body"})  # Gradio has told the reason, as an event
        finally:
            self._service.sending -= is_answer

    def _refusal(self, scope) -> JSONResponse | None:
        """What is answered in the app's place, if anything."""
        path, is_post = scope["path"], scope["method"] == "POST"
        headers = Headers(scope=scope)
        if is_post and self._service.is_ending:
            return _error(_ENDING, 503, {"retry-after": "30"})
        if "/file=http" in path.lower():
            return _error("Files of other hosts are not passed on: ask that host.", 403)
        if path.endswith("/deep_link"):  # would keep what a visitor typed in a file, for good
            return _error(_NO_ENDPOINT, 404)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > _most_bytes(path):
            return _error(_too_large(path), 413)
        try:
            if is_post and path.endswith("/upload"):
                self._service.check_share(visitor((scope.get("client") or [None])[0], headers.get("x-forwarded-for")))
                _check_disk()
            elif is_post and any(part in path for part in _ANSWERS):
                self._service.check_queue()
        except gr.Error as error:
            status = 503 if "ARENA_MAX_QUEUE" in error.message else 429
            return _error(error.message, status, {"retry-after": "60"})
        return None


def _as_who_asks(scope) -> dict:
    """An agent's request as the visitor's own: Gradio asks itself what it asks, headers and all, and would be believed.

    The app's server trusts what a caller on its own machine forwards.
    """
    headers = MutableHeaders(scope=scope | {"headers": list(scope["headers"])})
    who = visitor((scope.get("client") or ["unknown"])[0], headers.get("x-forwarded-for"))
    headers["x-forwarded-for"] = who.partition("/")[0]
    return scope | {"headers": headers.raw}


def _most_bytes(path: str) -> float:
    """A little more than Batch takes for an upload, whose own message says what to do."""
    if path.endswith("/upload"):
        return 1.2e6 * settings.number("ARENA_MAX_FILE_MB")
    return 1e6 * settings.number("ARENA_MAX_BODY_MB")


def _too_large(path: str) -> str:
    name = "ARENA_MAX_FILE_MB" if path.endswith("/upload") else "ARENA_MAX_BODY_MB"
    return f"The request is over the limit of {settings.number(name):,.0f} MB ({name}): send less at a time."


def _bounded(receive, most: float):
    """`receive`, which ends a request that says nothing of its length and has more than `most` bytes."""
    size = 0

    async def bounded():
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            await _drain(receive, most)
            raise HTTPException(413, "The request is too large: send less at a time.")
        return message

    return bounded


async def _drain(receive, most: float) -> None:
    """Read and let go of what a refused client still sends, for a while: closed at once, it would never see the reason."""
    size, is_more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while is_more and size < LINGER_TIMES * most:
                message = await receive()
                size, is_more = size + len(message.get("body", b"")), message.get("more_body", False)


def _check_disk() -> None:
    stored, most = uploads.stored_mb(), settings.number("ARENA_MAX_UPLOADS_MB")
    if stored >= most:
        raise refused(
            f"{stored:,.0f} MB of uploads and results are on disk, the most there may be (ARENA_MAX_UPLOADS_MB); each goes "
            "after an hour: try again later."
        )


def note(error: Exception) -> None:
    """For the log: what went wrong and where, without a visitor's words, which an error's text may hold."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    _LOG.warning(
        "a request could not be read: %s in %s, %s, line %s",
        type(error).__name__,
        last.filename,
        last.name,
        last.lineno,
    )


def _error(reason: str, status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    reason = reason.encode(errors="replace").decode()  # half a pair of surrogates is in no reply
    return JSONResponse({"error": reason, "detail": reason}, status, headers)
