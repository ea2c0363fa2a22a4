"""The server: Gradio's launch with this app's middleware, and /health and /metrics."""

from dataclasses import dataclass
from pathlib import Path

from starlette.middleware import Middleware

from adapter_arena import settings
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.ui import page, palette, sessions
from adapter_arena.ui.blocks import ArenaBlocks
from adapter_arena.ui.compare_tab import first_screen
from adapter_arena.ui.event_queue import EventQueue
from adapter_arena.ui.limits import RateLimiter, RequestLimits
from adapter_arena.ui.metrics import Metrics
from adapter_arena.ui.responses import EXCEPTION_HANDLERS, EndFailedStreams, SecurityHeaders
from adapter_arena.ui.shutdown import RefuseDuringShutdown, Shutdown
from adapter_arena.ui.theme import THEME

_STYLES = Path(__file__).parent / "css"
_CSS = [_STYLES / "base.css", *sorted(path for path in _STYLES.glob("*.css") if path.name != "base.css")]


@dataclass
class Server:
    """A running app."""

    demo: ArenaBlocks
    metrics: Metrics
    shutdown: Shutdown


def launch(catalogue: Catalogue) -> None:
    """Serve the page, the API and the MCP tools until a signal ends the process."""
    start(catalogue).shutdown.serve_until_stopped()


def start(catalogue: Catalogue) -> Server:
    """Serve the page, the API and the MCP tools in the background, and start to list the Hub's adapters.

    The middleware goes through `Blocks.launch` instead of an own FastAPI app with `gr.mount_gradio_app`: ZeroGPU's
    `spaces` package registers the Space's GPU functions in `launch`, and share links exist only there.
    """
    metrics = Metrics(catalogue)
    rate_limiter = RateLimiter()
    first = first_screen(catalogue)
    demo = page.build(catalogue, metrics, rate_limiter, first)
    queue = EventQueue(demo)
    shutdown = Shutdown(metrics, queue)

    def count_calls() -> int:
        return queue.waiting + metrics.in_progress

    middleware = [
        Middleware(SecurityHeaders),
        Middleware(RefuseDuringShutdown, shutdown=shutdown),
        Middleware(RequestLimits, rate_limiter=rate_limiter, count_calls=count_calls),
        Middleware(EndFailedStreams),
    ]
    sessions.use_light_sessions()
    # Clients learn their place in the queue once a second, not whenever any call leaves it. RequestLimits refuses calls
    # over the limit with a better message before Gradio's own limit is reached.
    demo.queue(
        default_concurrency_limit=32,
        status_update_rate=1,
        max_size=int(settings.get("ARENA_MAX_QUEUE")) or 1,
    )
    demo.launch(
        theme=THEME,
        css=palette.css(),
        css_paths=_CSS,
        show_error=True,
        footer_links=["api"],
        ssr_mode=False,
        mcp_server=True,
        run_history=False,  # no user's text is stored, not even in the browser
        prevent_thread_lock=True,
        max_file_size=int(1.2e6 * settings.get("ARENA_MAX_FILE_MB")),  # Batch has a better message for larger files
        app_kwargs={
            "routes": metrics.routes,
            "middleware": middleware,
            "exception_handlers": EXCEPTION_HANDLERS,
            "lifespan": queue.lifespan,
        },
    )
    # Not before the launch: while the Hub's client waits for a Hub that does not respond, its locks block the launch.
    catalogue.start()
    # One after the other: neither should change the times that the other measures.
    first.future.add_done_callback(lambda _: catalogue.time_adapters())
    first.start()
    return Server(demo, metrics, shutdown)
