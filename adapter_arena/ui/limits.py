"""Request limits: requests per client and minute, calls that wait, bytes of a request, and files on disk."""

import ipaddress
import math
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress

import gradio as gr
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapter_arena import settings
from adapter_arena.ui import uploads
from adapter_arena.ui.responses import NO_ENDPOINT, drain, error_response, is_endpoint_path, refuse

WINDOW_SECONDS = 60
MAX_CLIENTS = 10_000
"""Number of clients whose requests are remembered."""


def client_address(request: Request | gr.Request | None) -> str | None:
    """Return the address of the client that sent a request, or None for a call from within the app.

    A Space receives all requests from its proxies: there it is the last public address in X-Forwarded-For. An IPv6
    client is identified by its network, since it can use every address in it.
    """
    peer = getattr(request, "client", None)
    if peer is None:
        return None
    if not os.environ.get("SPACE_ID"):
        return peer.host
    forwarded = request.headers.get("x-forwarded-for") or ""
    for part in reversed(forwarded.split(",")):
        with suppress(ValueError):
            address = ipaddress.ip_address(part.strip())
            if address.is_global and address.version == 6:
                return str(ipaddress.ip_network((address, 64), strict=False))
            if address.is_global:
                return str(address)
    return peer.host


class RateLimiter:
    """At most ARENA_MAX_PER_MINUTE requests per client in any minute.

    It is used in the server's event loop only, so it needs no lock.
    """

    def __init__(self):
        self._times_of: OrderedDict[str, deque[float]] = OrderedDict()

    def seconds_until_allowed(self, address: str | None) -> int:
        """Count a request and return 0 if it is allowed; otherwise return the seconds until the next one is."""
        limit = settings.get("ARENA_MAX_PER_MINUTE")
        if address is None or not limit:
            return 0
        now = time.monotonic()
        times = self._times_of.setdefault(address, deque())
        self._times_of.move_to_end(address)
        if len(self._times_of) > MAX_CLIENTS:
            self._times_of.popitem(last=False)
        while times and times[0] < now - WINDOW_SECONDS:
            times.popleft()
        if len(times) >= limit:
            return math.ceil(times[0] + WINDOW_SECONDS - now)
        times.append(now)
        return 0


def too_many_requests(seconds: int) -> str:
    """Return the message for a client that has to wait for `seconds`."""
    limit = settings.get("ARENA_MAX_PER_MINUTE")
    return (
        f"You have reached the limit of {limit:,.0f} requests a minute (ARENA_MAX_PER_MINUTE). "
        f"Please try again in {seconds} s."
    )


class RequestLimits:
    """ASGI middleware that refuses what is over a limit before Gradio reads it."""

    def __init__(self, app: ASGIApp, rate_limiter: RateLimiter, count_calls: Callable[[], int]):
        """`count_calls` returns the number of calls that are waiting or in progress."""
        self._app = app
        self._rate_limiter = rate_limiter
        self._count_calls = count_calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(Request(scope))
        if refusal:
            await refuse(refusal, scope, receive, send)
            return
        if "/mcp" in scope["path"]:
            scope = _forwarding_client_address(scope)
        await self._app(scope, _bounded(receive, scope["path"]), send)

    def _refusal(self, request: Request) -> JSONResponse | None:
        path = request.scope["path"]
        if "/file=http" in path.lower():
            return error_response("Files on other hosts are not passed on. Please request them from that host.", 403)
        if path.endswith("/deep_link"):  # would store what a user typed in a file that is never deleted
            return error_response(NO_ENDPOINT, 404)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > _max_bytes(path):
            return error_response(_too_large(path), 413)
        if request.method == "POST" and path.endswith("/upload"):
            return self._upload_refusal(request)
        if request.method == "POST" and is_endpoint_path(path):
            return self._call_refusal()
        return None

    def _upload_refusal(self, request: Request) -> JSONResponse | None:
        seconds = self._rate_limiter.seconds_until_allowed(client_address(request))
        if seconds:
            return error_response(too_many_requests(seconds), 429, {"retry-after": str(seconds)})
        stored = uploads.stored_mb()
        if stored >= settings.get("ARENA_MAX_UPLOADS_MB"):
            reason = (
                f"Uploads and results take {stored:,.0f} MB of disk space, which is the limit (ARENA_MAX_UPLOADS_MB). "
                "Each file is deleted after an hour. Please try again later."
            )
            return error_response(reason, 429, {"retry-after": "60"})
        return None

    def _call_refusal(self) -> JSONResponse | None:
        calls = self._count_calls()
        if calls >= settings.get("ARENA_MAX_QUEUE"):
            reason = f"{calls:,} calls are waiting, which is the limit (ARENA_MAX_QUEUE). Please try again in a minute."
            return error_response(reason, 503, {"retry-after": "60"})
        return None


def _forwarding_client_address(scope: Scope) -> Scope:
    """Return a scope whose X-Forwarded-For is the client's real address.

    Gradio's MCP server calls the app itself with the headers of the agent's request. The app trusts what is forwarded
    from its own machine, so an agent could name any address.
    """
    scope = scope | {"headers": list(scope["headers"])}
    address = client_address(Request(scope)) or "unknown"
    headers = MutableHeaders(scope=scope)
    headers["x-forwarded-for"] = address.partition("/")[0]
    return scope | {"headers": headers.raw}


def _limit_of(path: str) -> str:
    """Return the name of the setting that limits the size of a request to this path."""
    return "ARENA_MAX_FILE_MB" if path.endswith("/upload") else "ARENA_MAX_BODY_MB"


def _max_bytes(path: str) -> float:
    limit = _limit_of(path)
    megabyte = 1.2e6 if limit == "ARENA_MAX_FILE_MB" else 1e6  # Batch itself refuses files that are a little too large
    return megabyte * settings.get(limit)


def _too_large(path: str) -> str:
    limit = _limit_of(path)
    return f"The request is over the limit of {settings.get(limit):,.0f} MB ({limit}). Please send less at a time."


def _bounded(receive: Receive, path: str) -> Receive:
    """Return a `receive` that ends a request with more bytes than allowed, which did not declare its length."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > _max_bytes(path):
            await drain(receive)
            raise HTTPException(413, _too_large(path))
        return message

    return bounded
