"""Adapters: the card, the files and where they come from, the command that repeats it, code to use it."""

import hashlib
import html
from pathlib import Path

import gradio as gr

from adapter_arena.adapters import cards
from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Entry
from adapter_arena.ui import fragments
from adapter_arena.ui.shared import PRIVATE, adapter_choices, adapter_dropdown

MAX_CARD_CHARACTERS = 100_000


def build(demo: gr.Blocks, catalogue: Catalogue) -> gr.Dropdown:
    """The tab's content; returns its choice of adapter."""
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=5, min_width=320):
            adapter = adapter_dropdown(catalogue, "shown")
        with gr.Column(scale=5, min_width=320), gr.Row(elem_classes="hub"):
            repo = gr.Textbox(
                label="Load from the Hub", placeholder="user/adapter", max_lines=1, elem_id="repo", scale=4
            )
            load = gr.Button("Load", elem_id="load", scale=1, min_width=80)
            refresh = gr.Button("Refresh", elem_id="refresh", scale=1, min_width=80)
    status = gr.HTML(_status(catalogue), elem_id="status")
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=6, min_width=320):
            card = gr.Markdown(elem_id="card", container=True, sanitize_html=True)
        with gr.Column(scale=5, min_width=320):
            files = gr.HTML(elem_id="files", elem_classes="panel")
            repeat = gr.Code(label="Repeat it", language="shell", interactive=False, wrap_lines=True, elem_id="repeat")
            recipe = gr.Code(label="recipe.yaml", language="yaml", interactive=False, wrap_lines=True)
            use = gr.Code(label="With PEFT", language="python", interactive=False, wrap_lines=True)
            pipe = gr.Code(label="With pipeline", language="python", interactive=False, wrap_lines=True)
            client = gr.Code(label="From this app", language="python", interactive=False, wrap_lines=True)

    outputs = [card, files, repeat, recipe, use, pipe, client]

    def show(name: str | None):
        try:
            entry = catalogue.find(name)
            if entry.adapter is None:
                catalogue.engine_for(entry)
                entry = catalogue.find(name)
        except ArenaError as error:
            return fragments.notice(str(error), "error"), *[""] * 6
        return _card(entry), _files(entry), *_code(entry)

    def take(name: str):
        try:
            entry = catalogue.load(name)
        except ArenaError as error:
            return gr.skip(), _status(catalogue) + fragments.notice(str(error), "error")
        verdict = f"{entry.name} fits {entry.base_model} and is loaded at commit {entry.revision[:8]}"
        return gr.Dropdown(adapter_choices(catalogue), value=entry.name), _status(catalogue) + fragments.notice(verdict)

    def look(name: str | None):
        if not catalogue.has_sources:
            return gr.skip(), _status(catalogue) + fragments.notice(
                "No Hub user or repo is set: name one above, or set ARENA_NAMESPACE"
            )
        catalogue.refresh()
        return gr.Dropdown(adapter_choices(catalogue), value=name), _status(catalogue)

    adapter.change(show, adapter, outputs, **PRIVATE)
    gr.on([load.click, repo.submit], take, repo, [adapter, status], **PRIVATE)
    refresh.click(look, adapter, [adapter, status], **PRIVATE)
    demo.load(show, adapter, outputs, **PRIVATE)
    return adapter


def _status(catalogue: Catalogue) -> str:
    """What is offered from where, and how the last look at the Hub went."""
    sources = [entry.source for entry in catalogue.entries]
    said = f"{sources.count('local')} local, {sources.count('hub')} from the Hub"
    status = catalogue.status
    if status.reached is False:
        said += "; the Hub was not reached, local adapters go on"
    elif status.reached:
        said += f"; the Hub was seen {status.ago()}"
    return fragments.notice(said) + "".join(fragments.notice(line, "error") for line in status.problems)


def _card(entry: Entry) -> str:
    """The adapter's card; Gradio strips scripts and handlers from it."""
    found = cards.body(entry.adapter.folder, MAX_CARD_CHARACTERS)
    return found or f"## {html.escape(entry.name)}\n\nThis adapter has no card."


def _files(entry: Entry) -> str:
    """Where it comes from, and its files with their hashes."""
    found = entry.results
    facts = {
        "Source": f"Hub, commit {entry.revision}" if entry.revision else "local folder",
        "Base model": entry.base_model,
    }
    if found:
        facts |= {
            "Trained": found.created_at[:10],
            "Code": found.environment.get("code_revision", "unknown")[:16],
            "Data": f"{found.dataset.id} {found.dataset.revision[:12]}",
            "Base sha256": found.base_model.sha256[:16],
        }
    columns = [
        fragments.Column("File", lambda r: html.escape(r[0]), lambda r: r[0], number=False, less_first=True),
        fragments.Column("kB", lambda r: f"{r[1] / 1000:,.1f}", lambda r: r[1]),
        fragments.Column("sha256", lambda r: f'<code title="{r[2]}">{r[2][:12]}</code>', number=False),
    ]
    try:
        rows = [_row(path) for path in sorted(entry.adapter.folder.iterdir()) if path.is_file()]
    except OSError as error:
        why = f"The files of {entry.name} cannot be read ({error.strerror}): bring its folder back, then start the app again."
        return fragments.facts(facts) + fragments.notice(why, "error")
    return fragments.facts(facts) + fragments.table(rows, columns)


def _row(path: Path) -> tuple[str, int, str]:
    """A file's name, bytes and sha256."""
    with path.open("rb") as file:
        return path.name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _code(entry: Entry) -> list[str]:
    """The command that repeats the run, its recipe, and three ways to use the adapter, as its card has them."""
    if entry.results is None:
        return ["# made elsewhere: how it was trained is not recorded", "", "", "", ""]
    found = cards.snippets(entry.results)
    return [found[key] for key in ("command", "recipe", "peft", "pipeline", "client")]
