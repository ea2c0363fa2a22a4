"""Arena: one text through every adapter at once; and the duel of two of them, names hidden."""

import html
import random
from collections import Counter
from dataclasses import dataclass

import gradio as gr

from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import UNTRAINED, Catalogue
from adapter_arena.serve.entries import Answer
from adapter_arena.serve.votes import Votes
from adapter_arena.ui import fragments
from adapter_arena.ui.fragments import Column
from adapter_arena.ui.shared import PRIVATE, refused

EXAMPLES = {
    "Mixed": "The first half drags and the jokes fall flat, but the final act is so good that I forgive it everything.",
    "Damned with faint praise": "It is not the worst film I have seen this year, and the popcorn was fresh.",
    "Negated": "I cannot say that I did not enjoy it, though nobody would call it a masterpiece.",
}


@dataclass(frozen=True)
class Row:
    """An adapter's answer in the table; `odd` when it differs from what most with the same labels say."""

    answer: Answer
    odd: bool


def build(demo: gr.Blocks, catalogue: Catalogue, votes: Votes) -> None:
    """The tab's content and what it does."""
    text = gr.Textbox(
        label="Your text", placeholder="Type or paste a review", lines=3, max_lines=10, elem_id="arena-text"
    )
    with gr.Row(elem_classes="actions"):
        run = gr.Button("Compare all", variant="primary", elem_id="compare")
        blind = gr.Button("Blind duel", elem_id="duel")
    gr.Examples(
        list(EXAMPLES.values()), text, label="Examples", api_visibility="private", example_labels=list(EXAMPLES)
    )
    rows = gr.HTML('<p class="nothing">Type a text and compare all</p>', elem_id="rows", js_on_load=fragments.SORT)
    with gr.Column(visible=False, elem_id="blind") as duel:
        with gr.Row(elem_classes="duel"):
            sides = [gr.HTML(elem_id=f"side-{name}", elem_classes="panel", min_width=280) for name in "ab"]
        with gr.Row(elem_classes="actions"):
            choices = [gr.Button(name, elem_id=f"vote-{key}") for key, name in _VOTES.items()]
        keep = gr.Checkbox(label="Keep my text with the vote", value=False, elem_id="keep")
        revealed = gr.HTML(elem_id="revealed")
    pair = gr.State(None)
    with gr.Accordion("Votes so far", open=False, elem_id="tally-box"):
        tally = gr.HTML(_tally(votes), elem_id="tally", js_on_load=fragments.SORT)

    def compare(said: str):
        try:
            return compared(catalogue.compare(said)), gr.Column(visible=False)
        except ArenaError as error:
            raise refused(error) from error

    def start(said: str):
        try:
            names = [entry.name for entry in catalogue.entries if entry.adapter and len(entry.adapter.labels) == 2]
            two = votes.pick(names, random.SystemRandom())
            shown = [fragments.verdict(answer) for name in two for answer in [_answer(catalogue, said, name)]]
        except ArenaError as error:
            raise refused(error) from error
        heads = [f'<p class="side">{letter}</p>{found}' for letter, found in zip("AB", shown)]
        return (*heads, gr.Column(visible=True), "", (said, *two), *[gr.Button(interactive=True)] * len(_VOTES))

    def vote(key: str):
        def cast(state: tuple, with_text: bool):
            if not state:
                raise refused("Start a blind duel first.")
            said, a, b = state
            winner, loser = (b, a) if key == "b" else (a, b)
            try:
                revisions = {entry.name: entry.revision for entry in catalogue.entries}
                votes.record(winner, loser, key in ("both", "neither"), said if with_text else None, revisions)
            except ArenaError as error:
                raise refused(error) from error
            names = "".join(f"<b>{letter}</b> {html.escape(name)} " for letter, name in zip("AB", (a, b)))
            return (
                f'<p class="names" role="status">{names}</p>',
                _tally(votes),
                None,
                *[gr.Button(interactive=False)] * len(_VOTES),
            )

        return cast

    run.click(compare, text, [rows, duel], **PRIVATE)
    text.submit(compare, text, [rows, duel], **PRIVATE)
    blind.click(start, text, [*sides, duel, revealed, pair, *choices], **PRIVATE)
    for key, button in zip(_VOTES, choices):
        button.click(vote(key), [pair, keep], [revealed, tally, pair, *choices], **PRIVATE)


_VOTES = {"a": "A is right", "b": "B is right", "both": "Both are", "neither": "Neither is"}


def _answer(catalogue: Catalogue, text: str, name: str):
    found = catalogue.predict([text], name)[0]
    if isinstance(found, ArenaError):
        raise found
    return found


def compared(answers: list[Answer]) -> str:
    """The table of all answers; those that differ from the majority of their labels are marked."""
    most: dict[tuple, str] = {}
    by_labels: dict[tuple, Counter] = {}
    for answer in answers:
        if answer.prediction and answer.name != UNTRAINED:
            by_labels.setdefault(tuple(answer.prediction.scores), Counter())[answer.prediction.label] += 1
    for labels, counted in by_labels.items():
        most[labels] = counted.most_common(1)[0][0]
    rows = [
        Row(a, bool(a.prediction and a.prediction.label != most.get(tuple(a.prediction.scores), a.prediction.label)))
        for a in answers
    ]
    differ = sum(row.odd for row in rows if row.answer.name != UNTRAINED)
    said = f"{differ} of {len(rows)} differ" if differ else "All that are trained agree"
    return fragments.notice(said) + fragments.table(rows, _COLUMNS, mark=lambda row: "odd" if row.odd else "")


def _label(row: Row) -> str:
    if row.answer.error:
        return fragments.notice(row.answer.error, "error")
    found = row.answer.prediction
    word = fragments.in_words(found.confidence)
    return f'<span class="answer">{html.escape(found.label)}</span> <span class="chip {word}">{word}</span>'


_COLUMNS = [
    Column("Adapter", lambda r: html.escape(r.answer.title), lambda r: r.answer.title, number=False, less_first=True),
    Column("Answer", _label, lambda r: r.answer.prediction and r.answer.prediction.label, number=False),
    Column(
        "Confidence",
        lambda r: fragments.bar(r.answer.prediction.confidence) if r.answer.prediction else "–",
        lambda r: r.answer.prediction and r.answer.prediction.confidence,
    ),
    Column("Accuracy", lambda r: fragments.percent(r.answer.accuracy), lambda r: r.answer.accuracy),
    Column(
        "Trained",
        lambda r: fragments.count(r.answer.trainable_params),
        lambda r: r.answer.trainable_params,
        less_first=True,
    ),
    Column("Size", lambda r: fragments.megabytes(r.answer.megabytes), lambda r: r.answer.megabytes, less_first=True),
    Column("Time", lambda r: f"{r.answer.milliseconds:,.0f} ms", lambda r: r.answer.milliseconds, less_first=True),
]


def _tally(votes: Votes) -> str:
    rows = votes.tally()
    if not rows:
        return '<p class="nothing">No vote yet</p>'
    return fragments.table(
        rows,
        [
            Column("Adapter", lambda t: html.escape(t.adapter), lambda t: t.adapter, number=False, less_first=True),
            Column("Right", lambda t: f"{t.wins:,}", lambda t: t.wins),
            Column("Wrong", lambda t: f"{t.losses:,}", lambda t: t.losses),
            Column("Tied", lambda t: f"{t.ties:,}", lambda t: t.ties),
            Column(
                "Share",
                lambda t: (
                    f"{100 * t.share:.0f} % <small>{100 * t.share_ci95[0]:.0f}–{100 * t.share_ci95[1]:.0f}</small>"
                ),
                lambda t: t.share,
            ),
            Column("Strength", lambda t: f"{t.strength:+.0f}", lambda t: t.strength),
        ],
    )
