"""Adapters: what an adapter is, what was measured, how to use it, its files, and loading others from the Hub."""

import html

import gradio as gr

from adapter_arena.adapters import cards
from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import (
    adapter_files,
    adapter_measured,
    adapter_overview,
    adapter_plots,
    adapter_status,
    adapter_usage,
    fragments,
)
from adapter_arena.ui.adapter_loading import Updates, Verdict
from adapter_arena.ui.shared import PRIVATE, adapter_choices, adapter_dropdown, user_errors

MAX_CARD_CHARACTERS = 100_000
_CARD_HEIGHT = 560
"""In pixels: longer cards scroll."""
_PLOTS = {
    "reliability": ("Calibration", adapter_plots.reliability),
    "abstention": ("Answering only if confident", adapter_plots.abstention),
    "loss": ("Loss", adapter_plots.loss),
    "validation": ("Validation score", adapter_plots.score),
}
"""Title and function of each chart of the sub-tab Measured; a function returns None if that was not recorded."""
_PARAMETER = "shown"
"""Parameter of the page's address with the name of an adapter. Parameters of other tabs are kept."""
# The address of the page shows the chosen adapter; the copied link opens this tab with it.
_SET_ADDRESS = f"""(name) => {{
  const url = new URL(window.location.href);
  if (name && url.searchParams.get('{_PARAMETER}') !== name) {{
    url.searchParams.set('{_PARAMETER}', name);
    history.replaceState(history.state, '', url);
  }}
}}"""
_COPY_LINK = f"""(name) => {{
  const url = new URL(window.location.pathname, window.location.origin);
  url.searchParams.set('{_PARAMETER}', name);
  navigator.clipboard?.writeText(url.href);
}}"""


class AdaptersTab:
    """The tab's components and events; `adapter` is the choice of the adapter to show."""

    def __init__(self, demo: gr.Blocks, catalogue: Catalogue, tabs: gr.Tabs):
        """Build the tab, which is in `tabs` with the id `adapters`."""
        self._catalogue = catalogue
        self._tabs = tabs
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=5, min_width=320), gr.Row(elem_classes="hub"):
                self.adapter = adapter_dropdown(catalogue, "shown")
                self._link = gr.Button("Copy link", elem_id="adapter-link", scale=0, min_width=110)
            with gr.Column(scale=5, min_width=320), gr.Row(elem_classes="hub"):
                self._repo = gr.Textbox(
                    label="Load from the Hub", placeholder="user/adapter", max_lines=1, elem_id="repo", scale=4
                )
                self._check_button = gr.Button("Check", elem_id="check", scale=0, min_width=90)
        self._verdict = Verdict(catalogue)
        with gr.Row(elem_id="status-row"):
            self._status = gr.HTML(adapter_status.render(catalogue), elem_id="status")
            self._refresh_button = gr.Button(
                "Refresh", elem_id="refresh", scale=0, min_width=90, size="sm", visible=catalogue.has_sources
            )
        with gr.Column(elem_id="card"):
            self._build_card()
        self._wire_events(demo)

    def _build_card(self) -> None:
        self._heading = gr.HTML(elem_id="card-heading")
        with gr.Tabs(elem_id="card-tabs", overflow_behavior="wrap"):
            with gr.Tab("Overview", id="overview"):
                self._overview = gr.HTML(elem_id="overview", js_on_load=fragments.SORT)
                self._only_card = gr.Markdown(
                    elem_classes="model-card", sanitize_html=True, max_height=_CARD_HEIGHT, visible=False
                )
            with gr.Tab("Measured", id="measured"):
                self._tables = gr.HTML(elem_id="measured", js_on_load=fragments.SORT)
                self._build_plots()
                self._mistakes = gr.HTML(elem_id="mistakes", js_on_load=fragments.SORT)
            with gr.Tab("Use it", id="use"):
                self._snippet = gr.Radio(list(adapter_usage.TITLES), label="Code", elem_id="snippet")
                self._code = gr.Code(
                    language="python", interactive=False, wrap_lines=True, elem_id="code", show_label=False
                )
            with gr.Tab("Files", id="files", render_children=True):
                self._files = gr.HTML(elem_id="files", js_on_load=fragments.SORT)
                with gr.Accordion("Model card", open=False, elem_id="card-accordion") as self._accordion:
                    self._full_card = gr.Markdown(
                        elem_id="model-card", elem_classes="model-card", sanitize_html=True, max_height=_CARD_HEIGHT
                    )

    def _build_plots(self) -> None:
        self._plots = {}
        with gr.Row(elem_classes="grid", elem_id="plots"):
            for name, (title, _) in _PLOTS.items():
                with gr.Column(elem_classes="boxed", visible=False, min_width=320) as panel:
                    gr.HTML(f"<h3>{title}</h3>")
                    plot = gr.Plot(show_label=False, container=False, elem_id=f"plot-{name}", elem_classes="chart")
                self._plots[name] = (panel, plot)

    def _wire_events(self, demo: gr.Blocks) -> None:
        plots = [component for pair in self._plots.values() for component in pair]
        verdict = self._verdict
        shown = [
            self._heading,
            self._overview,
            self._only_card,
            self._tables,
            *plots,
            self._mistakes,
            self._snippet,
            self._code,
            self._files,
            self._accordion,
            self._full_card,
        ]
        listed = [self.adapter, self._status]
        chosen = self.adapter.change(self._show, self.adapter, shown, **PRIVATE)
        chosen.then(self._show_price, self.adapter, verdict.outputs, **PRIVATE)
        self.adapter.change(None, self.adapter, js=_SET_ADDRESS, api_visibility="private")
        self._link.click(None, self.adapter, js=_COPY_LINK, api_visibility="private")
        self._snippet.input(self._show_code, [self.adapter, self._snippet], self._code, **PRIVATE)
        self._accordion.expand(self._show_card, self.adapter, self._full_card, **PRIVATE)
        checked = [self._check_button.click, self._repo.submit]
        gr.on(checked, self._check, self._repo, [self.adapter, *verdict.outputs], **PRIVATE)
        loaded = verdict.load_button.click(self._load, verdict.checked, [*listed, *verdict.outputs], **PRIVATE)
        loaded.success(self._show, self.adapter, shown, **PRIVATE)  # also if it was selected before
        verdict.cancel_button.click(verdict.hide, None, verdict.outputs, **PRIVATE)
        self._refresh_button.click(self._refresh, self.adapter, listed, **PRIVATE)
        opened = demo.load(self._open_link, None, [self._tabs, self.adapter, self._repo], **PRIVATE)
        opened.then(self._show, self.adapter, shown, **PRIVATE)
        opened.then(self._check_link, self._repo, verdict.outputs, **PRIVATE)

    # ------------------------------------------------------------ one adapter

    def _show(self, name: str | None) -> Updates:
        """Show an adapter; one of the Hub is downloaded first, unless that loads another base model."""
        try:
            entry = self._catalogue.find(name)
            if entry.adapter is None and not entry.loads_base:
                self._catalogue.engine_for(entry)
                entry = self._catalogue.find(name)
        except ArenaError as error:
            return self._without_adapter(fragments.notice(str(error), "error"))
        return self._with_adapter(entry)

    def _with_adapter(self, entry: Entry) -> Updates:
        titles = adapter_usage.titles(entry)
        code, language = adapter_usage.code(entry, titles[0])
        has_results = entry.results is not None
        only_card = "" if has_results or entry.adapter is None else _render_card(entry)
        return {
            self._heading: adapter_overview.heading(entry),
            self._overview: adapter_overview.render(entry),
            self._only_card: gr.Markdown(only_card, visible=bool(only_card)),
            self._tables: adapter_measured.tables(entry),
            **self._plot_updates(entry),
            self._mistakes: adapter_measured.mistakes(entry),
            self._snippet: gr.Radio(titles, value=titles[0]),
            self._code: gr.Code(code, language=language),
            self._files: adapter_files.render(entry),
            self._accordion: gr.Accordion(open=False, visible=has_results),
            self._full_card: "",
        }

    def _without_adapter(self, reason: str) -> Updates:
        hidden = {panel: gr.Column(visible=False) for panel, _ in self._plots.values()}
        return hidden | {
            self._heading: "",
            self._overview: reason,
            self._only_card: gr.Markdown(visible=False),
            self._tables: reason,
            self._mistakes: "",
            self._snippet: gr.Radio([], value=None),
            self._code: "",
            self._files: reason,
            self._accordion: gr.Accordion(visible=False),
        }

    def _plot_updates(self, entry: Entry) -> Updates:
        updates: Updates = {}
        for name, (panel, plot) in self._plots.items():
            _, draw = _PLOTS[name]
            chart = draw(entry.results) if entry.results else None
            updates[panel] = gr.Column(visible=chart is not None)
            if chart is not None:
                updates[plot] = chart
        return updates

    def _show_code(self, name: str | None, title: str) -> gr.Code:
        with user_errors():
            code, language = adapter_usage.code(self._catalogue.find(name), title)
        return gr.Code(code, language=language)

    def _show_card(self, name: str | None) -> str:
        with user_errors():
            return _render_card(self._catalogue.find(name))

    # ------------------------------------------------------------ loading another one

    def _check(self, repo: str) -> Updates:
        """Select a Hub adapter if it is loaded; say what it is and what loading it takes if not."""
        repo = repo.strip()
        for entry in self._catalogue.entries:
            if entry.name == repo and entry.adapter and not entry.loads_base:
                return self._verdict.hide() | {self.adapter: gr.Dropdown(value=repo)}
        return self._verdict.check(repo)

    def _show_price(self, name: str | None) -> Updates:
        """Say what loading the chosen adapter takes if its base model is not in memory."""
        try:
            entry = self._catalogue.find(name)
        except ArenaError as error:
            return self._verdict.refuse(error)
        return self._verdict.check(entry.name) if entry.loads_base else self._verdict.hide()

    def _load(self, checked: str) -> Updates:
        """Load the adapter that was checked, and select it."""
        try:
            entry = self._verdict.load(checked)
        except ArenaError as error:
            return self._verdict.refuse(error)
        return self._verdict.hide() | self._listed(entry.name)

    def _listed(self, name: str | None) -> Updates:
        """Return the list of adapters with one selected, and their number."""
        return {
            self.adapter: gr.Dropdown(adapter_choices(self._catalogue), value=name),
            self._status: adapter_status.render(self._catalogue),
        }

    def _refresh(self, name: str | None) -> Updates:
        self._catalogue.refresh()
        return self._listed(name)

    # ------------------------------------------------------------ links

    def _open_link(self, request: gr.Request) -> tuple:
        """List the current adapters; select that of the page's address, and this tab if it names nothing else.

        An adapter that is not in the list goes into the box of the Hub, to be checked.
        """
        choices = adapter_choices(self._catalogue)
        parameters = dict(request.query_params)
        wanted = parameters.get(_PARAMETER)
        if not wanted:
            return gr.skip(), gr.Dropdown(choices), gr.skip()
        others = {name for name in parameters if name != _PARAMETER and not name.startswith("__")}
        tabs = gr.skip() if others else gr.Tabs(selected="adapters")
        if wanted in [name for _, name in choices]:
            return tabs, gr.Dropdown(choices, value=wanted), gr.skip()
        return tabs, gr.Dropdown(choices), wanted

    def _check_link(self, repo: str) -> Updates:
        """Check the adapter that the page's address put into the box of the Hub."""
        return self._verdict.check(repo) if repo else self._verdict.hide()


def _render_card(entry: Entry) -> str:
    """Return the adapter's card as Markdown; Gradio removes scripts and event handlers from it."""
    card = cards.body(entry.adapter.folder, MAX_CARD_CHARACTERS) if entry.adapter else None
    return card or f"{html.escape(entry.name)} has no card."
