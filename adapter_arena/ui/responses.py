"""HTTP responses: security headers, errors as JSON, and requests that Gradio cannot read."""

import asyncio
import logging
import traceback
from contextlib import suppress

from gradio.route_utils import FnIndexInferError  # what Gradio's routes raise for an unknown endpoint
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOG = logging.getLogger(__name__)
DRAIN_SECONDS = 5.0
"""How long the rest of a refused request is read and discarded."""
NO_ENDPOINT = "The app has no endpoint of that name."
_OPENAPI = "All endpoints and their parameters are listed in /gradio_api/openapi.json."
_STREAMED_PATHS = ("/call/", "/run/", "/api/", "/queue/")
# Gradio's page starts with inline scripts, compiles functions from text, and runs in a frame on a Space's page.
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


class SecurityHeaders:
    """ASGI middleware that adds HEADERS to every response."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class EndFailedStreams:
    """ASGI middleware that ends an event stream in which Gradio raised HTTPException.

    Gradio has already sent the reason as an event. Without this, each request for an unknown event would leave a
    traceback in the log.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except RuntimeError as error:  # Starlette's, if an exception comes after the start of the response
            if not isinstance(error.__cause__, HTTPException):
                raise
            await send({"type": "http.response.body"})


def is_endpoint_path(path: str) -> bool:
    """Return whether endpoints are called or their responses streamed at this path; a page's /heartbeat is not one."""
    return any(part in path for part in _STREAMED_PATHS)


def error_response(reason: str, status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return `reason` in the two keys that clients of Gradio and of FastAPI read."""
    reason = reason.encode(errors="replace").decode()  # JSON in UTF-8 cannot contain a lone surrogate
    return JSONResponse({"error": reason, "detail": reason}, status, headers)


async def refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response before the request is read.

    The request is drained first, or the client could find the connection closed and never see the response. A client
    with an Expect header has not sent its body yet.
    """
    request = Request(scope)
    if request.method == "POST" and "expect" not in request.headers:
        await drain(receive)
    await response(scope, receive, send)


async def drain(receive: Receive) -> None:
    """Read and discard the rest of a request, for at most DRAIN_SECONDS."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            message = await receive()
            while message.get("more_body", False):
                message = await receive()


def log_error_location(error: Exception) -> None:
    """Log the type and place of an error, but not its message, which may quote a user's text."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    _LOG.warning(
        "request failed with %s in %s, %s, line %s", type(error).__name__, last.filename, last.name, last.lineno
    )


async def _unreadable_request(request: Request, error: Exception) -> JSONResponse:
    """Respond to an error in Gradio's routes, which read a request's body without validating it."""
    if request.method != "POST":
        raise error
    log_error_location(error)
    if isinstance(error, KeyError | FnIndexInferError):
        return error_response(f"{NO_ENDPOINT} {_OPENAPI}", 404)
    reason = str(error).partition("\n")[0].partition(". Please click")[0]  # the rest is advice on Gradio's page
    if isinstance(error, AttributeError):
        reason = "a part of it is not a file"
    return error_response(f"The request cannot be read: {reason[:200]}. {_OPENAPI}", 422)


_ERRORS = (KeyError, FnIndexInferError, TypeError, ValueError, AttributeError)
EXCEPTION_HANDLERS = dict.fromkeys(_ERRORS, _unreadable_request)
