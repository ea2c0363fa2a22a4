"""The blind duel of Compare: two adapters whose names are hidden until the visitor has judged their answers."""

import html
import random
from dataclasses import dataclass
from functools import partial

import gradio as gr

from adapter_arena import tasks
from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Entry
from adapter_arena.serve.served import Prediction
from adapter_arena.serve.votes import Tally, Votes
from adapter_arena.texts import Text, parts
from adapter_arena.ui import fragments
from adapter_arena.ui.answers import is_loaded
from adapter_arena.ui.fragments import Column
from adapter_arena.ui.shared import PRIVATE, user_error, user_errors

_VOTES = {"a": "A is right", "b": "B is right", "both": "Both are right", "neither": "Neither is right"}
_EMPTY = fragments.placeholder("Type a text to start a duel.")


@dataclass(frozen=True)
class Duel:
    """The text of a duel, or both texts of a pair on a line each, and the names of its adapters, which the page hides until the vote."""

    text: str
    a: str
    b: str


class DuelView:
    """The components of the duel, and the events of its votes."""

    def __init__(self, catalogue: Catalogue, votes: Votes):
        self._catalogue = catalogue
        self._votes = votes
        self._current_duel = gr.State(None)
        with gr.Column(elem_id="blind"):  # css/compare.css shows it or the answers
            with gr.Row(elem_classes="duel"):
                self._side_a = gr.HTML(_side("A", _EMPTY), elem_id="side-a", elem_classes="panel", min_width=280)
                self._side_b = gr.HTML(_side("B", _EMPTY), elem_id="side-b", elem_classes="panel", min_width=280)
            with gr.Row(elem_classes="actions"):
                self._vote_buttons = [
                    gr.Button(label, interactive=False, elem_id=f"vote-{vote}") for vote, label in _VOTES.items()
                ]
                self.again = gr.Button("New duel", variant="primary", elem_id="duel")
            self._store_text = gr.Checkbox(label="Store my text with the vote", value=False, elem_id="keep")
            self._names = gr.HTML(elem_id="revealed", js_on_load="element.setAttribute('aria-live', 'polite')")
            with gr.Accordion("Votes so far", open=False, elem_id="tally-box"):
                self._tally = gr.HTML(_render_tally(votes.tally()), elem_id="tally", js_on_load=fragments.SORT)
        self._wire_events()

    @property
    def outputs(self) -> list:
        """The components that `start` updates."""
        return [self._side_a, self._side_b, self._names, self._current_duel, *self._vote_buttons]

    def _wire_events(self) -> None:
        voted = [self._names, self._tally, self._current_duel, *self._vote_buttons]
        for vote, button in zip(_VOTES, self._vote_buttons, strict=True):
            button.click(partial(self._vote, vote), [self._current_duel, self._store_text], voted, **PRIVATE)

    def start(self, text: Text, entries: list[Entry]) -> tuple:
        """Return the values of `outputs` for a new duel of two of these adapters about a text."""
        if not all(part.strip() for part in parts(text)):
            return self._without_duel(_EMPTY)
        takes_pairs = not isinstance(text, str)
        names = [entry.name for entry in entries if _can_duel(entry) and bool(entry.takes_pairs) == takes_pairs]
        try:
            a, b = self._votes.pick(names, random.SystemRandom())
            answer_a, answer_b = self._answer(text, a), self._answer(text, b)
        except ArenaError as error:
            return self._without_duel(fragments.notice(str(error), "error"))
        duel = Duel("\n".join(parts(text)), a, b)
        sides = _side("A", fragments.verdict(answer_a)), _side("B", fragments.verdict(answer_b))
        return *sides, "", duel, *_vote_buttons(interactive=True)

    def _without_duel(self, note: str) -> tuple:
        return _side("A", note), _side("B", note), "", None, *_vote_buttons(interactive=False)

    def _answer(self, text: Text, name: str) -> Prediction:
        prediction = self._catalogue.predict([text], name)[0]
        if isinstance(prediction, ArenaError):
            raise prediction
        return prediction

    def _vote(self, vote: str, duel: Duel | None, store_text: bool) -> tuple:
        if duel is None:
            raise user_error("Please start a blind duel first.")
        winner, loser = (duel.b, duel.a) if vote == "b" else (duel.a, duel.b)
        is_tie = vote in ("both", "neither")
        text = duel.text if store_text else None
        revisions = {entry.name: entry.revision for entry in self._catalogue.entries}
        with user_errors():
            self._votes.record(winner, loser, is_tie, text, revisions)
            tally = _render_tally(self._votes.tally())
        return _render_names(duel), tally, None, *_vote_buttons(interactive=False)


def _can_duel(entry: Entry) -> bool:
    """Return whether both sides of a duel can be right or wrong: there are two classes, and one of them is the answer."""
    return is_loaded(entry) and entry.task == tasks.SINGLE_LABEL and len(entry.adapter.labels) == 2


def _side(letter: str, content: str) -> str:
    return f'<p class="side">{letter}</p>{content}'


def _vote_buttons(interactive: bool) -> list[gr.Button]:
    return [gr.Button(interactive=interactive) for _ in _VOTES]


def _render_names(duel: Duel) -> str:
    return f'<p class="names"><b>A</b> {html.escape(duel.a)} <b>B</b> {html.escape(duel.b)}</p>'


def _render_tally(tallies: list[Tally]) -> str:
    if not tallies:
        return fragments.placeholder("No votes yet.")
    return fragments.table(tallies, _TALLY_COLUMNS)


def _share_cell(tally: Tally) -> str:
    low, high = tally.share_ci95
    return f"{100 * tally.share:.0f} % <small>{100 * low:.0f}–{100 * high:.0f}</small>"


_TALLY_COLUMNS = [
    Column("Adapter", lambda t: html.escape(t.adapter), lambda t: t.adapter, number=False, less_first=True),
    Column("Wins", lambda t: f"{t.wins:,}", lambda t: t.wins),
    Column("Losses", lambda t: f"{t.losses:,}", lambda t: t.losses),
    Column("Ties", lambda t: f"{t.ties:,}", lambda t: t.ties),
    Column("Share of wins", _share_cell, lambda t: t.share),
    Column("Elo", lambda t: f"{t.strength:+.0f}", lambda t: t.strength),
]
