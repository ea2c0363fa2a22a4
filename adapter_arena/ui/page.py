"""The page: its header and tabs, and the named API."""

import html
from pathlib import Path

import gradio as gr

from adapter_arena import settings
from adapter_arena.files import cache_folder
from adapter_arena.jobs import manager
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.first_answers import FirstScreen
from adapter_arena.serve.votes import Votes
from adapter_arena.ui import api
from adapter_arena.ui.adapters_tab import AdaptersTab
from adapter_arena.ui.batch_tab import BatchTab
from adapter_arena.ui.blocks import ArenaBlocks
from adapter_arena.ui.compare_tab import CompareTab, first_screen
from adapter_arena.ui.leaderboard_tab import LeaderboardTab, opened
from adapter_arena.ui.limits import RateLimiter
from adapter_arena.ui.metrics import Metrics
from adapter_arena.ui.shared import PRIVATE
from adapter_arena.ui.train_tab import TrainTab

CLEANUP_SECONDS = 600
FILE_SECONDS = 3600
"""Uploads and results older than FILE_SECONDS are deleted every CLEANUP_SECONDS."""
_DIAGRAM = Path(__file__).with_name("how.svg")
_PRECISIONS = {"nf4": "4 bits", "bf16": "16 bits", "fp32": "32 bits"}
_NO_ADAPTERS = (
    '<div id="empty"><h2>No adapter yet</h2><p>Train one in under two minutes, then start the app again:</p>'
    "<pre>python train_space.py --dataset sample</pre></div>"
)


def build(
    catalogue: Catalogue, metrics: Metrics, rate_limiter: RateLimiter, first: FirstScreen | None = None
) -> ArenaBlocks:
    """Return the Blocks app for a catalogue of adapters, which shows `first` once its caller has started it."""
    first = first or first_screen(catalogue)
    with ArenaBlocks(
        metrics, rate_limiter, title="Adapter Arena", delete_cache=(CLEANUP_SECONDS, FILE_SECONDS)
    ) as demo:
        api.build(catalogue)  # first: private events of the page would otherwise take names such as `compare`
        gr.HTML(_header(catalogue), elem_id="header")
        if catalogue.entries or catalogue.has_sources or manager.is_enabled():
            _build_tabs(demo, catalogue, first)
        else:
            gr.HTML(_NO_ADAPTERS)
    return demo


def _header(catalogue: Catalogue) -> str:
    base = html.escape(catalogue.engine.base.label)
    precision = _PRECISIONS[catalogue.engine.precision]
    diagram = _DIAGRAM.read_text(encoding="utf-8")
    return (
        f"<h1>Adapter Arena</h1><p>One <b>{base}</b> in {precision}, an adapter for each method.</p>"
        f'<details id="how"><summary>How it works</summary>{diagram}</details>'
    )


def _build_tabs(demo: gr.Blocks, catalogue: Catalogue, first: FirstScreen) -> None:
    votes = Votes(cache_folder())
    if dataset := settings.get("ARENA_VOTES"):
        votes.share(dataset)
    with gr.Tabs(elem_id="tabs") as tabs:
        with gr.Tab("Compare", id="compare"):
            CompareTab(demo, catalogue, votes, first)
        if manager.is_enabled():
            with gr.Tab("Train", id="train"):
                train = TrainTab(demo, catalogue)
        with gr.Tab("Batch", id="batch"):
            BatchTab(demo, catalogue)
        with gr.Tab("Leaderboard", id="leaderboard"):
            leaderboard = LeaderboardTab(demo, catalogue)
        with gr.Tab("Adapters", id="adapters"):
            adapters = AdaptersTab(demo, catalogue, tabs)

    def open_adapter(event: gr.EventData):
        return gr.Tabs(selected="adapters"), event.name

    if manager.is_enabled():
        train.announce(demo, tabs, adapters.adapter)
        leaderboard.refresh_on(train.trained.change)
    leaderboard.table.select(open_adapter, None, [tabs, adapters.adapter], **PRIVATE)
    demo.load(opened, None, tabs, **PRIVATE)
