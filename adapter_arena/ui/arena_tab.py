"""Arena: one text through every adapter, and a duel of two adapters whose names are hidden."""

import html
import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial

import gradio as gr

from adapter_arena import tasks
from adapter_arena.serve.catalogue import UNTRAINED, Catalogue
from adapter_arena.serve.entries import Answer, Entry
from adapter_arena.serve.served import Prediction
from adapter_arena.serve.votes import Tally, Votes
from adapter_arena.texts import parts
from adapter_arena.ui import fragments
from adapter_arena.ui.fragments import Column
from adapter_arena.ui.shared import PRIVATE, predict_one, user_error, user_errors, with_pair

EXAMPLES = {
    "Mixed": "The first half drags and the jokes fall flat, but the final act is so good that I forgive it everything.",
    "Damned with faint praise": "It is not the worst film I have seen this year, and the popcorn was fresh.",
    "Negated": "I cannot say that I did not enjoy it, though nobody would call it a masterpiece.",
}
_VOTES = {"a": "A is right", "b": "B is right", "both": "Both are right", "neither": "Neither is right"}
_NO_COMPARISON = fragments.placeholder(
    "Enter a text and press Compare all, or Blind duel to judge two hidden adapters."
)


@dataclass(frozen=True)
class Row:
    """An adapter's answer in the table; `is_odd` if most adapters with the same labels give another."""

    answer: Answer
    is_odd: bool


@dataclass(frozen=True)
class Duel:
    """The text of a duel, or both texts of a pair on a line each, and the names of its adapters, which the page hides until the vote."""

    text: str
    a: str
    b: str


class ArenaTab:
    """The tab's components and events."""

    def __init__(self, demo: gr.Blocks, catalogue: Catalogue, votes: Votes):
        self._catalogue = catalogue
        self._votes = votes
        self._text = gr.Textbox(
            label="Text", placeholder="Type or paste a review", lines=3, max_lines=10, elem_id="arena-text"
        )
        self._text_pair = gr.Textbox(
            label="Second text, for adapters of pairs",
            lines=2,
            max_lines=10,
            elem_id="arena-text-pair",
            visible=self._takes_pairs(),
        )
        with gr.Row(elem_classes="actions"):
            self._compare_button = gr.Button("Compare all", variant="primary", elem_id="compare")
            self._duel_button = gr.Button("Blind duel", elem_id="duel")
        gr.Examples(
            list(EXAMPLES.values()),
            self._text,
            label="Examples",
            api_visibility="private",
            example_labels=list(EXAMPLES),
        )
        self._comparison = gr.HTML(_NO_COMPARISON, elem_id="rows", elem_classes="pinned", js_on_load=fragments.SORT)
        self._build_duel()
        with gr.Accordion("Votes so far", open=False, elem_id="tally-box"):
            self._tally = gr.HTML(_render_tally(votes.tally()), elem_id="tally", js_on_load=fragments.SORT)
        self._wire_events(demo)

    def _build_duel(self) -> None:
        self._current_duel = gr.State(None)
        with gr.Column(visible=False, elem_id="blind") as self._duel_column:
            with gr.Row(elem_classes="duel"):
                self._side_a = gr.HTML(elem_id="side-a", elem_classes="panel", min_width=280)
                self._side_b = gr.HTML(elem_id="side-b", elem_classes="panel", min_width=280)
            with gr.Row(elem_classes="actions"):
                self._vote_buttons = [gr.Button(label, elem_id=f"vote-{vote}") for vote, label in _VOTES.items()]
            self._store_text = gr.Checkbox(label="Store my text with the vote", value=False, elem_id="keep")
            self._names = gr.HTML(elem_id="revealed")

    def _takes_pairs(self) -> bool:
        return any(entry.takes_pairs for entry in self._catalogue.entries)

    def _wire_events(self, demo: gr.Blocks) -> None:
        demo.load(lambda: gr.Textbox(visible=self._takes_pairs()), None, self._text_pair, **PRIVATE)
        compared = [self._comparison, self._duel_column]
        texts = [self._text, self._text_pair]
        gr.on([self._compare_button.click, self._text.submit], self._compare, texts, compared, **PRIVATE)
        started = [self._side_a, self._side_b, self._duel_column, self._names, self._current_duel, *self._vote_buttons]
        self._duel_button.click(self._start_duel, texts, started, **PRIVATE)
        voted = [self._names, self._tally, self._current_duel, *self._vote_buttons]
        for vote, button in zip(_VOTES, self._vote_buttons, strict=True):
            button.click(partial(self._vote, vote), [self._current_duel, self._store_text], voted, **PRIVATE)

    def _compare(self, text: str, text_pair: str) -> tuple:
        with user_errors():
            answers = self._catalogue.compare(with_pair(text, text_pair))
        return render_comparison(answers), gr.Column(visible=False)

    def _start_duel(self, text: str, text_pair: str) -> tuple:
        names = [
            entry.name
            for entry in self._catalogue.entries
            if _can_duel(entry) and bool(entry.takes_pairs) == bool(text_pair)
        ]
        both = with_pair(text, text_pair)
        with user_errors():
            a, b = self._votes.pick(names, random.SystemRandom())
        side_a = _render_side("A", predict_one(self._catalogue, both, a))
        side_b = _render_side("B", predict_one(self._catalogue, both, b))
        return (
            side_a,
            side_b,
            gr.Column(visible=True),
            "",
            Duel("\n".join(parts(both)), a, b),
            *_set_vote_buttons(interactive=True),
        )

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
        return _render_names(duel), tally, None, *_set_vote_buttons(interactive=False)


def _can_duel(entry: Entry) -> bool:
    """Return whether both sides of a duel can be right or wrong: there are two classes, and one of them is the answer."""
    return entry.task == tasks.SINGLE_LABEL and entry.adapter is not None and len(entry.adapter.labels) == 2


def _render_side(letter: str, prediction: Prediction) -> str:
    return f'<p class="side">{letter}</p>{fragments.verdict(prediction)}'


def _set_vote_buttons(interactive: bool) -> list[gr.Button]:
    return [gr.Button(interactive=interactive) for _ in _VOTES]


def _render_names(duel: Duel) -> str:
    names = f"<b>A</b> {html.escape(duel.a)} <b>B</b> {html.escape(duel.b)}"
    return f'<p class="names" role="status">{names}</p>'


def render_comparison(answers: list[Answer]) -> str:
    """Return the table of all answers, with those highlighted that differ from the majority of their labels."""
    majority = _majority_labels(answers)
    rows = []
    differing = 0
    for answer in answers:
        prediction = answer.prediction
        is_odd = False
        if prediction is not None and prediction.confidence is not None:  # numbers differ always
            is_odd = prediction.label != majority.get(tuple(prediction.scores), prediction.label)
        rows.append(Row(answer, is_odd))
        differing += is_odd and answer.name != UNTRAINED
    summary = f"{differing} of {len(rows)} answers differ" if differing else "All trained adapters agree"
    return fragments.notice(summary) + fragments.table(rows, _COLUMNS, is_odd=lambda row: row.is_odd)


def _majority_labels(answers: list[Answer]) -> dict[tuple[str, ...], str]:
    """Return the most frequent answer of the trained adapters by the labels that they choose from."""
    counts: dict[tuple[str, ...], Counter] = defaultdict(Counter)
    for answer in answers:
        if answer.prediction and answer.name != UNTRAINED:
            labels = tuple(answer.prediction.scores)
            counts[labels][answer.prediction.label] += 1
    return {labels: counter.most_common(1)[0][0] for labels, counter in counts.items()}


def _answer_cell(row: Row) -> str:
    if row.answer.error:
        return fragments.notice(row.answer.error, "error")
    prediction = row.answer.prediction
    label = f'<span class="answer">{html.escape(fragments.answer_text(prediction))}</span>'
    if prediction.confidence is None or prediction.labels is not None:
        return label
    return f"{label} {fragments.confidence_chip(prediction.confidence)}"


def _label(row: Row) -> str | None:
    return row.answer.prediction and row.answer.prediction.label


def _confidence(row: Row) -> float | None:
    return row.answer.prediction and row.answer.prediction.confidence


def _confidence_cell(row: Row) -> str:
    confidence = _confidence(row)
    return "–" if confidence is None else fragments.bar(confidence)


_COLUMNS = [
    Column("Adapter", lambda r: html.escape(r.answer.title), lambda r: r.answer.title, number=False, less_first=True),
    Column("Answer", _answer_cell, _label, number=False),
    Column("Confidence", _confidence_cell, _confidence),
    Column("Accuracy", lambda r: fragments.percent(r.answer.accuracy), lambda r: r.answer.accuracy),
    Column(
        "Trained parameters",
        lambda r: fragments.count(r.answer.trainable_params),
        lambda r: r.answer.trainable_params,
        less_first=True,
    ),
    Column("Size", lambda r: fragments.megabytes(r.answer.megabytes), lambda r: r.answer.megabytes, less_first=True),
    Column("Time", lambda r: f"{r.answer.milliseconds:,.0f} ms", lambda r: r.answer.milliseconds, less_first=True),
]


def _render_tally(tallies: list[Tally]) -> str:
    if not tallies:
        return fragments.placeholder("No votes yet. Start a blind duel to cast the first.")
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
