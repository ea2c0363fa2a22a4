"""Gradio's Blocks, with a check and a count of every request."""

from typing import Any

import gradio as gr

from adapter_arena.ui import sessions, uploads
from adapter_arena.ui.limits import RateLimiter, client_address, too_many_requests
from adapter_arena.ui.metrics import Metrics
from adapter_arena.ui.responses import log_error_location
from adapter_arena.ui.shared import user_error


class ArenaBlocks(gr.Blocks):
    """Blocks that limit, check and count requests before Gradio processes them."""

    def __init__(self, metrics: Metrics, rate_limiter: RateLimiter, **options: Any):
        super().__init__(**options)
        self._metrics = metrics
        self._rate_limiter = rate_limiter

    async def process_api(
        self, block_fn, inputs: list, state=None, request=None, iterator=None, **options: Any
    ) -> dict[str, Any]:
        """Process one call of an endpoint or event. Raises only gr.Error, and logs nothing that a user typed."""
        function = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        is_api = function.api_visibility == "public"
        try:
            if iterator is None:  # later parts of a stream are not new requests
                self._check_rate(request)
            with self._metrics.track(function.api_name if is_api else "page"):
                if iterator is None:
                    # An API client may leave out arguments. Gradio would raise an error that quotes the others.
                    inputs.extend(block.value for block in function.inputs[len(inputs) :])
                    uploads.check(function.inputs, inputs)
                return await super().process_api(block_fn, inputs, state, request, iterator, **options)
        except gr.Error as error:
            error.print_exception = False  # Gradio's own errors may quote what a user typed
            raise
        except Exception as error:
            log_error_location(error)
            raise user_error(f"The app failed on this request ({type(error).__name__}). Please try another.") from error
        finally:
            if is_api:
                sessions.forget(self, getattr(request, "session_hash", None))

    def _check_rate(self, request: gr.Request | None) -> None:
        seconds = self._rate_limiter.seconds_until_allowed(client_address(request))
        if seconds:
            raise user_error(too_many_requests(seconds))
