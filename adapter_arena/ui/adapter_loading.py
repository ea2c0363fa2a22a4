"""Loading an adapter that is not in memory: what it is and what it takes is shown first, and a person confirms."""

import html
from typing import Any

import gradio as gr

from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Entry
from adapter_arena.serve.previews import Preview
from adapter_arena.ui import fragments, palette

Updates = dict[gr.blocks.Block, Any]
"""New values of components; the others stay as they are."""


class Verdict:
    """A panel that says what an adapter is and what loading it takes, with a button that loads it."""

    def __init__(self, catalogue: Catalogue):
        self._catalogue = catalogue
        with gr.Column(visible=False, elem_id="verdict", elem_classes="boxed") as self._panel:
            self._text = gr.HTML()
            self.checked = gr.State("")
            with gr.Row(elem_classes="actions"):
                self.load_button = gr.Button("Load", variant="primary", elem_id="load")
                self.cancel_button = gr.Button("Cancel", elem_id="cancel")
        self.outputs = [self._panel, self._text, self.checked, self.load_button]

    def check(self, name: str) -> Updates:
        """Show what an adapter of the catalogue or the Hub is and what loading it takes, or why it cannot be served."""
        try:
            preview = self._catalogue.preview(name)
        except ArenaError as error:
            return self.refuse(error)
        return {
            self._panel: gr.Column(visible=True),
            self._text: render(preview),
            # At the commit that was checked, whatever is pushed meanwhile.
            self.checked: f"{preview.name}@{preview.revision}" if preview.revision else preview.name,
            self.load_button: gr.Button(visible=True),
        }

    def refuse(self, error: ArenaError) -> Updates:
        """Show why an adapter cannot be loaded."""
        return {
            self._panel: gr.Column(visible=True),
            self._text: fragments.notice(str(error), "error"),
            self.checked: "",
            self.load_button: gr.Button(visible=False),
        }

    def hide(self) -> Updates:
        """Show nothing."""
        return {self._panel: gr.Column(visible=False), self.checked: ""}

    def load(self, checked: str) -> Entry:
        """Load the adapter that was checked, and its base model if that is not in memory. Raises ArenaError."""
        name = checked.partition("@")[0]
        for entry in self._catalogue.entries:
            if entry.name == name and entry.loads_base:  # it is listed, so that loading it needs no permission
                self._catalogue.engine_for(entry)
                return self._catalogue.find(name)
        return self._catalogue.load(checked)


def render(preview: Preview) -> str:
    """Return what an adapter is and what loading it takes, in a sentence each."""
    method = f"{palette.dot(preview.method)}{html.escape(preview.title)}"
    commit = f", commit {preview.revision[:8]}" if preview.revision else ""
    name = f"<b>{html.escape(preview.name)}</b>{commit}"
    return f'<p role="status">{name}: {method} on {html.escape(preview.base_model)}. {_cost(preview)}</p>'


def _cost(preview: Preview) -> str:
    downloads = []
    if preview.download_mb:
        downloads.append(f"{fragments.megabytes(preview.download_mb)} for the adapter")
    if preview.base and preview.base.download_mb:
        downloads.append(f"{preview.base.download_mb:,.0f} MB for its base model")
    cost = f"To download: <b>{' and '.join(downloads)}</b>." if downloads else "Nothing to download."
    if preview.base:
        cost += f" Its base model takes <b>{preview.base.memory_mb:,.0f} MB</b> of memory."
    return cost
