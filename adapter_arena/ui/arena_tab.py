"""Arena: one text through every adapter, and a duel of two adapters whose names are hidden."""

import html
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from adapter_arena.serve.catalogue import UNTRAINED, Catalogue
from adapter_arena.serve.entries import Answer
from adapter_arena.serve.votes import Tally, Votes
from adapter_arena.ui import fragments
from adapter_arena.ui.fragments import Column
from adapter_arena.ui.shared import PRIVATE, predict_one, user_error, user_errors

EXAMPLES = {
    "Mixed": "The first half drags and the jokes fall flat, but the final act is so good that I forgive it everything.",
    "Damned with faint praise": "It is not the worst film I have seen this year, and the popcorn was fresh.",
    "Negated": "I cannot say that I did not enjoy it, though nobody would call it a masterpiece.",
}
_VOTES = {"a": "A is right", "b": "B is right", "both": "Both are right", "neither": "Neither is right"}


@dataclass(frozen=True)
class Row:
    """An adapter's answer in the table; `is_odd` if most adapters with the same labels give another."""

    answer: Answer
    is_odd: bool


@dataclass(frozen=True)
class Duel:
    """The text of a duel and the names of its adapters, which the page hides until the vote."""

    text: str
    a: str
    b: str


@dataclass(frozen=True)
class Layout:
    """The tab's components."""

    text: gr.Textbox
    compare: gr.Button
    start_duel: gr.Button
    comparison: gr.HTML
    duel: gr.Column
    sides: list[gr.HTML]
    votes: list[gr.Button]
    store_text: gr.Checkbox
    revealed: gr.HTML
    tally: gr.HTML


def build(catalogue: Catalogue, votes: Votes) -> None:
    """Build the tab: its components and its events."""
    layout = _build_layout(votes)
    current_duel = gr.State(None)

    def compare(text: str) -> tuple:
        with user_errors():
            answers = catalogue.compare(text)
        return render_comparison(answers), gr.Column(visible=False)

    def start_duel(text: str) -> tuple:
        names = [entry.name for entry in catalogue.entries if entry.adapter and len(entry.adapter.labels) == 2]
        with user_errors():
            a, b = votes.pick(names, random.SystemRandom())
        sides = []
        for letter, name in (("A", a), ("B", b)):
            verdict = fragments.verdict(predict_one(catalogue, text, name))
            sides.append(f'<p class="side">{letter}</p>{verdict}')
        return *sides, gr.Column(visible=True), "", Duel(text, a, b), *_vote_buttons(interactive=True)

    def vote(choice: str) -> Callable[[Duel | None, bool], tuple]:
        def cast(duel: Duel | None, store_text: bool) -> tuple:
            if duel is None:
                raise user_error("Please start a blind duel first.")
            winner, loser = (duel.b, duel.a) if choice == "b" else (duel.a, duel.b)
            is_tie = choice in ("both", "neither")
            text = duel.text if store_text else None
            revisions = {entry.name: entry.revision for entry in catalogue.entries}
            with user_errors():
                votes.record(winner, loser, is_tie, text, revisions)
                tally = _render_tally(votes.tally())
            return _render_names(duel), tally, None, *_vote_buttons(interactive=False)

        return cast

    gr.on([layout.compare.click, layout.text.submit], compare, layout.text, [layout.comparison, layout.duel], **PRIVATE)
    started = [*layout.sides, layout.duel, layout.revealed, current_duel, *layout.votes]
    layout.start_duel.click(start_duel, layout.text, started, **PRIVATE)
    voted = [layout.revealed, layout.tally, current_duel, *layout.votes]
    for choice, button in zip(_VOTES, layout.votes, strict=True):
        button.click(vote(choice), [current_duel, layout.store_text], voted, **PRIVATE)


def _build_layout(votes: Votes) -> Layout:
    text = gr.Textbox(label="Text", placeholder="Type or paste a review", lines=3, max_lines=10, elem_id="arena-text")
    with gr.Row(elem_classes="actions"):
        compare = gr.Button("Compare all", variant="primary", elem_id="compare")
        start_duel = gr.Button("Blind duel", elem_id="duel")
    gr.Examples(
        list(EXAMPLES.values()), text, label="Examples", api_visibility="private", example_labels=list(EXAMPLES)
    )
    empty = fragments.placeholder("Enter a text and press Compare all, or Blind duel to judge two hidden adapters.")
    comparison = gr.HTML(empty, elem_id="rows", js_on_load=fragments.SORT)
    with gr.Column(visible=False, elem_id="blind") as duel:
        with gr.Row(elem_classes="duel"):
            sides = [gr.HTML(elem_id=f"side-{letter}", elem_classes="panel", min_width=280) for letter in "ab"]
        with gr.Row(elem_classes="actions"):
            buttons = [gr.Button(label, elem_id=f"vote-{choice}") for choice, label in _VOTES.items()]
        store_text = gr.Checkbox(label="Store my text with the vote", value=False, elem_id="keep")
        revealed = gr.HTML(elem_id="revealed")
    with gr.Accordion("Votes so far", open=False, elem_id="tally-box"):
        tally = gr.HTML(_render_tally(votes.tally()), elem_id="tally", js_on_load=fragments.SORT)
    return Layout(
        text=text,
        compare=compare,
        start_duel=start_duel,
        comparison=comparison,
        duel=duel,
        sides=sides,
        votes=buttons,
        store_text=store_text,
        revealed=revealed,
        tally=tally,
    )


def _vote_buttons(interactive: bool) -> list[gr.Button]:
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
        is_odd = prediction is not None and prediction.label != majority.get(tuple(prediction.scores), prediction.label)
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
    label = f'<span class="answer">{html.escape(prediction.label)}</span>'
    return f"{label} {fragments.confidence_chip(prediction.confidence)}"


def _label(row: Row) -> str | None:
    return row.answer.prediction and row.answer.prediction.label


def _confidence(row: Row) -> float | None:
    return row.answer.prediction and row.answer.prediction.confidence


def _confidence_cell(row: Row) -> str:
    return fragments.bar(row.answer.prediction.confidence) if row.answer.prediction else "–"


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
