"""Adapters: the card, the files and their origin, the command that repeats the training, and code to use it."""

import hashlib
import html
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from adapter_arena.adapters import cards
from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import fragments
from adapter_arena.ui.fragments import Column
from adapter_arena.ui.shared import PRIVATE, adapter_choices, adapter_dropdown

MAX_CARD_CHARACTERS = 100_000
_SNIPPETS = {
    "command": ("Train it again", "shell"),
    "recipe": ("recipe.yaml", "yaml"),
    "peft": ("Use it with PEFT", "python"),
    "pipeline": ("Use it with a pipeline", "python"),
    "client": ("Call this app", "python"),
}
"""Title and language of the card's code blocks, by their name in `cards.snippets`."""


class AdaptersTab:
    """The tab's components and events; `adapter` is the choice of the adapter to show."""

    def __init__(self, demo: gr.Blocks, catalogue: Catalogue):
        self._catalogue = catalogue
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=5, min_width=320):
                self.adapter = adapter_dropdown(catalogue, "shown")
            with gr.Column(scale=5, min_width=320), gr.Row(elem_classes="hub"):
                self._repo = gr.Textbox(
                    label="Load from the Hub", placeholder="user/adapter", max_lines=1, elem_id="repo", scale=4
                )
                self._load_button = gr.Button("Load", elem_id="load", scale=1, min_width=80)
                self._refresh_button = gr.Button("Refresh", elem_id="refresh", scale=1, min_width=80)
        self._status = gr.HTML(_render_status(catalogue), elem_id="status")
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=6, min_width=320):
                self._card = gr.Markdown(elem_id="card", container=True, sanitize_html=True)
            with gr.Column(scale=5, min_width=320):
                self._files = gr.HTML(elem_id="files", elem_classes="panel")
                self._snippets = [_code(name, *options) for name, options in _SNIPPETS.items()]
        self._wire_events(demo)

    def _wire_events(self, demo: gr.Blocks) -> None:
        shown = [self._card, self._files, *self._snippets]
        listed = [self.adapter, self._status]
        self.adapter.change(self._show, self.adapter, shown, **PRIVATE)
        loaded = gr.on([self._load_button.click, self._repo.submit], self._load, self._repo, listed, **PRIVATE)
        loaded.success(self._show, self.adapter, shown, **PRIVATE)  # also if it was selected before
        self._refresh_button.click(self._refresh, self.adapter, listed, **PRIVATE)
        demo.load(self._show, self.adapter, shown, **PRIVATE)

    def _show(self, name: str | None) -> list:
        try:
            entry = self._catalogue.find(name)
            if entry.adapter is None and entry.loads_base:
                return [_render_unloaded(entry), fragments.facts(_facts(entry)), *_no_snippets("")]
            if entry.adapter is None:
                self._catalogue.engine_for(entry)  # downloads it
                entry = self._catalogue.find(name)
        except ArenaError as error:
            return [fragments.notice(str(error), "error"), "", *_no_snippets("")]
        return [_render_card(entry), render_files(entry), *_snippets(entry)]

    def _load(self, repo: str) -> tuple:
        try:
            entry = self._catalogue.load(repo)
        except ArenaError as error:
            return gr.skip(), _render_status(self._catalogue) + fragments.notice(str(error), "error")
        loaded = fragments.notice(f"{entry.name} is loaded on {entry.base_model} at commit {entry.revision[:8]}.")
        choices = adapter_choices(self._catalogue)
        return gr.Dropdown(choices, value=entry.name), _render_status(self._catalogue) + loaded

    def _refresh(self, name: str | None) -> tuple:
        if not self._catalogue.has_sources:
            hint = "There is no Hub user or repo to list: load a repo by name, or start the app with ARENA_NAMESPACE."
            return gr.skip(), _render_status(self._catalogue) + fragments.notice(hint)
        self._catalogue.refresh()
        return gr.Dropdown(adapter_choices(self._catalogue), value=name), _render_status(self._catalogue)


def _code(name: str, label: str, language: str) -> gr.Code:
    return gr.Code(label=label, language=language, interactive=False, wrap_lines=True, elem_id=f"code-{name}")


def _render_status(catalogue: Catalogue) -> str:
    """Return the number of adapters by source, and the result of the last listing of the Hub."""
    sources = [entry.source for entry in catalogue.entries]
    text = f"{sources.count('local')} local adapters, {sources.count('hub')} from the Hub"
    status = catalogue.status
    if status.reached is False:
        text += ". The Hub cannot be reached; local adapters still work."
    elif status.reached:
        text += f", listed {status.ago()}"
    lines = fragments.notice(text)
    for problem in [*catalogue.left_out, *status.problems]:
        lines += fragments.notice(problem, "error")
    return lines


def _render_card(entry: Entry) -> str:
    """Return the adapter's card as Markdown; Gradio removes scripts and event handlers from it."""
    card = cards.body(entry.adapter.folder, MAX_CARD_CHARACTERS)
    return card or f"## {html.escape(entry.name)}\n\nThis adapter has no card."


def _render_unloaded(entry: Entry) -> str:
    """Return what is shown in place of the card of an adapter whose base model is not loaded."""
    return (
        f"## {html.escape(entry.name)}\n\nIts base model is not loaded. To load both, classify a text with it, or enter "
        f"`{html.escape(entry.name)}` under *Load from the Hub*."
    )


def _facts(entry: Entry) -> dict[str, str]:
    """Return an adapter's origin and base model."""
    source = f"Hub, commit {entry.revision}" if entry.revision else "local folder"
    return {"Source": source, "Base model": entry.base_note}


def render_files(entry: Entry) -> str:
    """Return the adapter's origin, and its files with their hashes."""
    facts = _facts(entry)
    if entry.adapter.notes:
        facts["Notes"] = "; ".join(entry.adapter.notes)
    if entry.results:
        facts["Trained"] = entry.results.created_at[:10]
        facts["Code"] = entry.results.environment.get("code_revision", "unknown")[:16]
        facts["Dataset"] = f"{entry.results.dataset.id} {entry.results.dataset.revision[:12]}"
        facts["SHA-256 of the base model"] = entry.results.base_model.sha256[:16]
    try:
        files = _read_files(entry.adapter.folder)
    except OSError as error:
        reason = (
            f"The files of {entry.name} cannot be read ({error.strerror}). Restore its folder, then restart the app."
        )
        return fragments.facts(facts) + fragments.notice(reason, "error")
    return fragments.facts(facts) + fragments.table(files, _FILE_COLUMNS)


@dataclass(frozen=True)
class File:
    """A file of an adapter folder."""

    name: str
    size: int
    """In bytes."""
    sha256: str


def _read_files(folder: Path) -> list[File]:
    files = []
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            files.append(File(path.name, path.stat().st_size, sha256))
    return files


_FILE_COLUMNS = [
    Column("File", lambda file: html.escape(file.name), lambda file: file.name, number=False, less_first=True),
    Column("kB", lambda file: f"{file.size / 1000:,.1f}", lambda file: file.size),
    Column("SHA-256", lambda file: f'<code title="{file.sha256}">{file.sha256[:12]}</code>', number=False),
]


def _snippets(entry: Entry) -> list[str]:
    """Return the code of the adapter's card, in the order of _SNIPPETS."""
    if entry.results is None:
        return _no_snippets("# Not trained with Adapter Arena: how it was trained is not recorded.")
    snippets = cards.snippets(entry.results)
    return [snippets[name] for name in _SNIPPETS]


def _no_snippets(reason: str) -> list[str]:
    """Return `reason` as the first snippet, and the others empty."""
    return [reason] + [""] * (len(_SNIPPETS) - 1)
