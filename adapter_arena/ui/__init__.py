"""The page and the named API, on Gradio; everything shown comes from the catalogue of adapters."""

import html
import os
from pathlib import Path

import gradio as gr

from adapter_arena import settings
from adapter_arena.files import cache_folder
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.votes import Votes
from adapter_arena.ui import adapters_tab, api, arena_tab, batch_tab, fragments, leaderboard_tab, try_tab, uploads
from adapter_arena.ui.service import Service, note, visitor
from adapter_arena.ui.sessions import Sessions
from adapter_arena.ui.shared import PRIVATE, refused
from adapter_arena.ui.theme import THEME

_CSS = Path(__file__).with_name("page.css")
_PICTURE = Path(__file__).with_name("how.svg")
KEPT = (600, 3600)
"""Every so many seconds, uploads and results older than so many are deleted."""


def launch(catalogue: Catalogue) -> None:
    """Serve the page, the API and the agent's tools until a signal ends the process."""
    service = Service(catalogue)
    service.serve_until_told(start(catalogue, service))


def start(catalogue: Catalogue, service: Service) -> gr.Blocks:
    """Serve the page, the API and the agent's tools in the background, and start to look at the Hub."""
    # Places in the queue are told once a second, not to everyone whenever anyone's turn comes.
    # Gradio's own limit is but a stop behind ours, whose message says what to do.
    demo = build(catalogue, service).queue(
        default_concurrency_limit=32, status_update_rate=1, max_size=int(settings.number("ARENA_MAX_QUEUE")) or 1
    )
    demo.launch(
        theme=THEME,
        css_paths=_CSS,
        show_error=True,
        footer_links=["api"],
        ssr_mode=False,
        mcp_server=True,
        run_history=False,  # no visitor's text is kept, not even in the browser
        prevent_thread_lock=True,
        # A little more than Batch takes, whose own message says what to do.
        max_file_size=int(1.2e6 * settings.number("ARENA_MAX_FILE_MB")),
        app_kwargs=service.app_settings,
    )
    Sessions.take_over(demo)
    # Only now: while a Hub that accepts and is silent is asked, its client's locks would hold the launch up.
    catalogue.start()
    catalogue.time_adapters()
    return demo


class _Blocks(gr.Blocks):
    service: Service

    async def process_api(self, block_fn, inputs: list, state=None, request=None, iterator=None, **rest):
        """Count every request, and hold a visitor to their share; the later parts of a stream are no new request."""
        fn = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        endpoint = fn.api_name if fn.api_visibility == "public" else "page"
        asking = who_asks(request) if iterator is None else None
        try:
            with self.service.request(endpoint, asking):
                return await super().process_api(block_fn, inputs, state, request, iterator, **rest)
        except gr.Error as error:
            error.print_exception = False  # Gradio's own may quote what a visitor typed
            raise
        except Exception as error:
            note(error)
            raise refused(f"The app failed on this request ({type(error).__name__}): try another.") from error
        finally:
            if endpoint != "page" and isinstance(self.state_holder, Sessions):
                self.state_holder.drop(getattr(request, "session_hash", None))

    async def preprocess_data(self, block_fn, inputs: list, *args, **rest):
        """Refuse files that do not belong there before Gradio fetches them."""
        uploads.check(block_fn.inputs, inputs)
        return await super().preprocess_data(block_fn, inputs, *args, **rest)

    def validate_inputs(self, block_fn, inputs: list) -> None:
        """Fill in the default of what a caller by HTTP leaves out, instead of an error that quotes the text."""
        inputs.extend(block.value for block in block_fn.inputs[len(inputs) :])


def who_asks(request) -> str | None:
    """The visitor of a request; None where it is the app's own."""
    client = getattr(request, "client", None)
    return client and visitor(client.host, request.headers.get("x-forwarded-for"))


def build(catalogue: Catalogue, service: Service | None = None) -> gr.Blocks:
    """The Blocks app around a catalogue of adapters."""
    with _Blocks(title="Adapter Arena", delete_cache=KEPT) as demo:
        demo.service = service or Service(catalogue)
        demo.service.demo = demo
        api.build(catalogue)  # first: private events of the page would take names such as `compare` otherwise
        gr.HTML(_header(catalogue), elem_id="header")
        if catalogue.entries or catalogue.has_sources:
            _tabs(demo, catalogue)
        else:
            gr.HTML(
                '<div id="empty"><h2>No adapter yet</h2><p>Train one in under two minutes, then start the app again:</p>'
                "<pre>python train_space.py --dataset sample</pre></div>"
            )
    return demo


def _tabs(demo: gr.Blocks, catalogue: Catalogue) -> None:
    votes = Votes(cache_folder())
    if dataset := os.environ.get("ARENA_VOTES"):
        votes.share(dataset)
    with gr.Tabs(elem_id="tabs") as tabs:
        with gr.Tab("Try", id="try"):
            try_tab.build(demo, catalogue)
        with gr.Tab("Arena", id="arena"):
            arena_tab.build(demo, catalogue, votes)
        with gr.Tab("Batch", id="batch"):
            batch_tab.build(demo, catalogue)
        with gr.Tab("Leaderboard", id="leaderboard"):
            picked: list[gr.HTML] = []
            leaderboard_tab.build(demo, catalogue, picked.append)
        with gr.Tab("Adapters", id="adapters"):
            shown = adapters_tab.build(demo, catalogue)

    def open_adapter(event: gr.EventData):
        return gr.Tabs(selected="adapters"), event.name

    for mark in picked:
        mark.select(open_adapter, None, [tabs, shown], **PRIVATE)


def _header(catalogue: Catalogue) -> str:
    held = {"nf4": "4 bits", "bf16": "16 bits", "fp32": "32 bits"}[catalogue.engine.precision]
    return (
        "<h1>Adapter Arena</h1><p>Full fine-tuning, LoRA, QLoRA or IA³? One "
        f"<b>{html.escape(catalogue.engine.base.label)}</b> in {held}, an adapter for each method.</p>"
        f'<details id="how"><summary>How it works</summary>{_PICTURE.read_text(encoding="utf-8")}</details>'
    )


__all__ = ["build", "fragments", "launch", "start"]
