"""Compare: a text, the answers of all adapters of a data set, the words that moved one of them, and the blind duel."""

import asyncio
import html
from pathlib import Path

import gradio as gr

from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Entry
from adapter_arena.serve.first_answers import FirstScreen
from adapter_arena.serve.votes import Votes
from adapter_arena.texts import parts
from adapter_arena.ui import answers, details, examples, fragments, headline, scopes
from adapter_arena.ui.comparison import Comparison, Query, View
from adapter_arena.ui.duel import DuelView
from adapter_arena.ui.shared import PRIVATE

_MODES = [("All answers", "all"), ("Blind duel", "duel")]
_SCRIPT = fragments.SORT + Path(__file__).with_name("compare.js").read_text(encoding="utf-8")
_ANNOUNCED = "element.setAttribute('aria-live', 'polite')"
"""Has screen readers read the content when it changes."""
# The address of the page with the text and the adapters as parameters.
_COPY_LINK = """(text, adapter, text_pair) => {
  const url = new URL(window.location.pathname, window.location.origin);
  url.search = new URLSearchParams(text_pair ? {text, adapter, text_pair} : {text, adapter});
  navigator.clipboard?.writeText(url.href);
  history.replaceState(null, '', url);
  const button = document.querySelector('#link');
  button.textContent = 'Link copied';
  setTimeout(() => { button.textContent = 'Copy link'; }, 2000);
}"""
_LAST_WINS = PRIVATE | {"trigger_mode": "always_last"}
"""Options of events that come faster than they are answered: of those that wait, only the last one is answered."""


def first_screen(catalogue: Catalogue) -> FirstScreen:
    """Return what the page shows first: an example for the loaded adapters of the data set with the most of them."""
    entries = catalogue.entries
    members = scopes.chosen(entries, scopes.default(entries))
    text = next(iter(examples.of_entries(members).values()))
    names = [entry.name for entry in members if answers.is_loaded(entry)]
    return FirstScreen(catalogue, text, names, explained=names[0] if names else None)


class CompareTab:
    """The tab's components and events."""

    def __init__(self, demo: gr.Blocks, catalogue: Catalogue, votes: Votes, first: FirstScreen):
        self._catalogue = catalogue
        self._comparison = Comparison(catalogue)
        self._first = first
        self._at_first = scopes.default(catalogue.entries)
        members = self._comparison.members(self._at_first)
        self._headline = gr.HTML(_headline(members), elem_id="headline")
        # A column appears at once and a row later, so the column has the height.
        with gr.Column(elem_id="ask"), gr.Row(elem_classes="split"):
            with gr.Column(scale=7, min_width=320):
                self._build_texts(members)
            with gr.Column(scale=4, min_width=300):
                self._build_options()
        with gr.Column(elem_id="all-answers"):
            self._build_answers()
        self._duel = DuelView(catalogue, votes)
        self._wire_events(demo)

    def _build_texts(self, members: list[Entry]) -> None:
        text, *pair = parts(self._first.text)
        self._text = gr.Textbox(
            text, label="Text", placeholder="Type or paste a text", lines=3, max_lines=3, elem_id="text"
        )
        self._text_pair = gr.Textbox(
            "".join(pair),
            label="Second text",
            lines=2,
            max_lines=2,
            elem_id="text-pair",
            visible=_takes_pairs(members),
        )
        buttons = examples.buttons(examples.of_entries(members))
        self._examples = gr.HTML(buttons, elem_id="examples", js_on_load=examples.PICK_EXAMPLE)

    def _build_options(self) -> None:
        choices = scopes.choices(self._catalogue.entries)
        self._scope = gr.Dropdown(choices, value=self._at_first, label="Adapters", elem_id="adapter")
        self._whole_text = gr.Checkbox(False, label="Read long texts completely", elem_id="whole", container=False)
        with gr.Row(elem_classes="actions"):
            self._mode = gr.Radio(
                _MODES, value="all", show_label=False, container=False, interactive=True, elem_id="mode"
            )
            self._link = gr.Button("Copy link", elem_id="link", size="sm", scale=0, min_width=110)

    def _build_answers(self) -> None:
        self._chosen = gr.State(None)
        self._summary = gr.HTML("", elem_id="summary", js_on_load=_ANNOUNCED)
        with gr.Row(elem_classes="split", equal_height=True):
            with gr.Column(scale=7, min_width=320):
                table = self._comparison.pending(self._at_first).table
                self._rows = gr.HTML(table, elem_id="rows", js_on_load=_SCRIPT)
            with gr.Column(scale=4, min_width=300):
                self._details = gr.HTML(details.PENDING, elem_id="details", elem_classes="panel", js_on_load=_ANNOUNCED)

    def _wire_events(self, demo: gr.Blocks) -> None:
        query = [self._text, self._text_pair, self._scope, self._whole_text]
        chosen = [*query, self._chosen]
        view = [self._summary, self._rows, self._chosen]
        of_scope = [self._headline, self._examples, self._text, self._text_pair]
        typed = [self._rows.input, self._text.submit, self._text_pair.submit, self._whole_text.input]
        changed = self._scope.input(self._show_scope, query, of_scope, **_LAST_WINS)
        loaded = self._rows.load_adapter(self._load, query, view, **PRIVATE)
        for answered in (
            gr.on(typed, self._answer, chosen, view, **_LAST_WINS),
            changed.then(self._answer, chosen, view, **_LAST_WINS),
            loaded.then(self._show_scope, query, of_scope, **PRIVATE),
        ):
            answered.then(self._explain, chosen, self._details, **_LAST_WINS)
        self._rows.select(self._select, query, [self._chosen, self._details], **_LAST_WINS)
        for start in (self._rows.duelled, self._duel.again.click):
            start(self._start_duel, query, self._duel.outputs, **_LAST_WINS)
        self._link.click(None, [self._text, self._scope, self._text_pair], js=_COPY_LINK, api_visibility="private")
        opened = [self._scope, *of_scope, *view, self._details]
        demo.load(self._open, None, opened, api_visibility="private", show_progress="hidden")

    # ------------------------------------------------------------ events

    def _answer(self, text: str, text_pair: str, scope: str, whole_text: bool, chosen: str | None = None) -> tuple:
        problems = self._comparison.fetch_single(scope)
        query = Query(text, text_pair, scope, whole_text)
        return _values(self._comparison.answer(query, chosen, problems))

    def _explain(self, text: str, text_pair: str, scope: str, whole_text: bool, chosen: str | None) -> str:
        return self._comparison.explain(Query(text, text_pair, scope, whole_text), chosen)

    def _select(self, text: str, text_pair: str, scope: str, whole_text: bool, event: gr.EventData) -> tuple:
        return event.name, self._explain(text, text_pair, scope, whole_text, event.name)

    def _load(self, text: str, text_pair: str, scope: str, whole_text: bool, event: gr.EventData) -> tuple:
        problems = self._comparison.load(event.name)
        query = Query(text, text_pair, scope, whole_text)
        return _values(self._comparison.answer(query, event.name, problems))

    def _start_duel(self, text: str, text_pair: str, scope: str, whole_text: bool) -> tuple:
        query = Query(text, text_pair, scope, whole_text)
        members = self._catalogue.entries if scopes.is_single(scope) else self._comparison.members(scope)
        return self._duel.start(self._comparison.text_of(query), members)

    def _show_scope(self, text: str, text_pair: str, scope: str, whole_text: bool = False) -> tuple:
        """Show what belongs to a scope; an example of another one makes place for the first of this one."""
        self._comparison.fetch_single(scope)  # only then its labels are known; `_answer` reports a failure
        members = self._comparison.members(scope)
        texts = examples.of_entries(members)
        of_scope = [_headline(members), examples.buttons(texts)]
        if text.strip() and not examples.is_from_elsewhere(text, texts, self._catalogue.entries):
            return *of_scope, gr.skip(), gr.Textbox(visible=_takes_pairs(members))
        first, *pair = parts(next(iter(texts.values())))
        return *of_scope, first, gr.Textbox("".join(pair), visible=_takes_pairs(members))

    async def _open(self, request: gr.Request) -> tuple:
        """Answer the text of the page's address, if it has one; otherwise show the first answers when they are there."""
        given = dict(request.query_params)
        text, text_pair, scope = given.get("text", ""), given.get("text_pair", ""), given.get("adapter")
        choices = scopes.choices(self._catalogue.entries)
        if scope not in [choice for _, choice in choices]:
            scope = scopes.default(self._catalogue.entries)
        dropdown = gr.Dropdown(choices, value=scope)
        if text.strip() or scope != self._at_first:
            return dropdown, *await asyncio.to_thread(self._open_link, text, text_pair, scope)
        first, *pair = parts(self._first.text)
        query = Query(first, "".join(pair), scope)
        try:
            found = await asyncio.shield(asyncio.wrap_future(self._first.future))
            view, shown_details = await asyncio.to_thread(self._comparison.first, query, found)
        except ArenaError as error:
            view, shown_details = self._comparison.pending(scope, fragments.notice(str(error), "error")), ""
        return dropdown, *[gr.skip() for _ in range(4)], *_values(view), shown_details

    def _open_link(self, text: str, text_pair: str, scope: str) -> tuple:
        problems = self._comparison.fetch_single(scope)
        members = self._comparison.members(scope)
        texts = examples.of_entries(members)
        if not text.strip():
            text, *pair = parts(next(iter(texts.values())))
            text_pair = "".join(pair)
        query = Query(text, text_pair, scope)
        view = self._comparison.answer(query, None, problems)
        second = gr.Textbox(text_pair, visible=_takes_pairs(members))
        of_scope = (_headline(members), examples.buttons(texts), text, second)
        return *of_scope, *_values(view), self._comparison.explain(query, view.chosen)


def _values(view: View) -> tuple[str, str, str | None]:
    return view.summary, view.table, view.chosen


def _headline(members: list[Entry]) -> str:
    if not members:
        return "<p>No adapter yet: train one, or load one from the Hub in Adapters.</p>"
    return f"<p>{html.escape(headline.of_entries(members))}</p>"


def _takes_pairs(members: list[Entry]) -> bool:
    return any(entry.takes_pairs for entry in members)
