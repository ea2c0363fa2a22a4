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


@dataclass(frozen=True)
class Layout:
    """The tab's components."""

    adapter: gr.Dropdown
    repo: gr.Textbox
    load: gr.Button
    refresh: gr.Button
    status: gr.HTML
    card: gr.Markdown
    files: gr.HTML
    snippets: list[gr.Code]


def build(demo: gr.Blocks, catalogue: Catalogue) -> gr.Dropdown:
    """Build the tab and return its choice of an adapter."""
    layout = _build_layout(catalogue)

    def show(name: str | None) -> list:
        try:
            entry = catalogue.find(name)
            if entry.adapter is None:
                catalogue.engine_for(entry)  # downloads it
                entry = catalogue.find(name)
        except ArenaError as error:
            return [fragments.notice(str(error), "error"), "", *_no_snippets("")]
        return [_render_card(entry), render_files(entry), *_snippets(entry)]

    def load_from_hub(repo: str) -> tuple:
        try:
            entry = catalogue.load(repo)
        except ArenaError as error:
            return gr.skip(), _render_status(catalogue) + fragments.notice(str(error), "error")
        loaded = fragments.notice(f"{entry.name} is loaded on {entry.base_model} at commit {entry.revision[:8]}.")
        return gr.Dropdown(adapter_choices(catalogue), value=entry.name), _render_status(catalogue) + loaded

    def refresh(name: str | None) -> tuple:
        if not catalogue.has_sources:
            hint = "There is no Hub user or repo to list: load a repo by name, or start the app with ARENA_NAMESPACE."
            return gr.skip(), _render_status(catalogue) + fragments.notice(hint)
        catalogue.refresh()
        return gr.Dropdown(adapter_choices(catalogue), value=name), _render_status(catalogue)

    outputs = [layout.card, layout.files, *layout.snippets]
    layout.adapter.change(show, layout.adapter, outputs, **PRIVATE)
    gr.on(
        [layout.load.click, layout.repo.submit], load_from_hub, layout.repo, [layout.adapter, layout.status], **PRIVATE
    )
    layout.refresh.click(refresh, layout.adapter, [layout.adapter, layout.status], **PRIVATE)
    demo.load(show, layout.adapter, outputs, **PRIVATE)
    return layout.adapter


def _build_layout(catalogue: Catalogue) -> Layout:
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=5, min_width=320):
            adapter = adapter_dropdown(catalogue, "shown")
        with gr.Column(scale=5, min_width=320), gr.Row(elem_classes="hub"):
            repo = gr.Textbox(
                label="Load from the Hub", placeholder="user/adapter", max_lines=1, elem_id="repo", scale=4
            )
            load = gr.Button("Load", elem_id="load", scale=1, min_width=80)
            refresh = gr.Button("Refresh", elem_id="refresh", scale=1, min_width=80)
    status = gr.HTML(_render_status(catalogue), elem_id="status")
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=6, min_width=320):
            card = gr.Markdown(elem_id="card", container=True, sanitize_html=True)
        with gr.Column(scale=5, min_width=320):
            files = gr.HTML(elem_id="files", elem_classes="panel")
            snippets = []
            for name, (label, language) in _SNIPPETS.items():
                code = gr.Code(
                    label=label, language=language, interactive=False, wrap_lines=True, elem_id=f"code-{name}"
                )
                snippets.append(code)
    return Layout(
        adapter=adapter,
        repo=repo,
        load=load,
        refresh=refresh,
        status=status,
        card=card,
        files=files,
        snippets=snippets,
    )


def _render_status(catalogue: Catalogue) -> str:
    """Return the number of adapters by source, and the result of the last listing of the Hub."""
    sources = [entry.source for entry in catalogue.entries]
    text = f"{sources.count('local')} local adapters, {sources.count('hub')} from the Hub"
    status = catalogue.status
    if status.reached is False:
        text += ". The Hub cannot be reached; local adapters still work."
    elif status.reached:
        text += f", listed {status.ago()}"
    problems = [fragments.notice(problem, "error") for problem in status.problems]
    return fragments.notice(text) + "".join(problems)


def _render_card(entry: Entry) -> str:
    """Return the adapter's card as Markdown; Gradio removes scripts and event handlers from it."""
    card = cards.body(entry.adapter.folder, MAX_CARD_CHARACTERS)
    return card or f"## {html.escape(entry.name)}\n\nThis adapter has no card."


def render_files(entry: Entry) -> str:
    """Return the adapter's origin, and its files with their hashes."""
    facts = {
        "Source": f"Hub, commit {entry.revision}" if entry.revision else "local folder",
        "Base model": entry.base_model,
    }
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
