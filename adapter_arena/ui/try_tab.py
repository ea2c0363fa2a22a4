"""Try: one text, one adapter, its answer, and the words that contributed to it."""

import time
from dataclasses import dataclass

import gradio as gr

from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Entry
from adapter_arena.serve.explain import explain
from adapter_arena.serve.served import Prediction
from adapter_arena.ui import fragments
from adapter_arena.ui.shared import PRIVATE, adapter_choices, adapter_dropdown, predict_one

_SCENE = (
    "The plot takes its time, and scene after scene is spent on people walking through rain and saying very little. "
)
EXAMPLES = {
    "Clear": "A quiet, beautifully acted film that trusts its audience. I was in tears by the end and would see it again tomorrow.",
    "Mixed": "The first half drags and the jokes fall flat, but the final act is so good that I forgive it everything.",
    "Sarcastic": "Oh great, another superhero sequel. Just what the world was waiting for. My favourite part was the car park.",
    "Late twist": "Great camera work, a fine cast, a stirring score, and still the dullest evening I have had in years.",
    "Very long": (
        f"I went in with low hopes. {24 * _SCENE}And then the last ten minutes arrive, everything falls into place, "
        "and I left the cinema happier than I have been all year."
    ),
    "German": "Ein wunderbarer Film, klug, warm und witzig. Ich habe jede Minute genossen.",
}
_NO_ANSWER = fragments.placeholder("Enter a text and press Classify.")
# The script of Copy link: the address of the page with the text and the adapter as parameters.
_COPY_LINK = """(text, adapter) => {
  const url = new URL(window.location.pathname, window.location.origin);
  url.search = new URLSearchParams({text, adapter});
  navigator.clipboard?.writeText(url.href);
  history.replaceState(null, '', url);
}"""


@dataclass(frozen=True)
class Layout:
    """The tab's components."""

    text: gr.Textbox
    adapter: gr.Dropdown
    whole_text: gr.Checkbox
    run: gr.Button
    link: gr.Button
    answer: gr.HTML
    words: gr.HTML


def build(demo: gr.Blocks, catalogue: Catalogue) -> None:
    """Build the tab: its components and its events."""
    layout = _build_layout(catalogue)

    def classify(text: str, name: str, whole_text: bool = False) -> str:
        start = time.perf_counter()
        prediction = predict_one(catalogue, text, name, whole_text)
        milliseconds = 1000 * (time.perf_counter() - start)
        return render_answer(prediction, catalogue.find(name), milliseconds)

    def explain_words(text: str, name: str) -> gr.HTML:
        try:
            entry = catalogue.find(name)
            explanation = explain(catalogue.engine_for(entry), text, entry.name)
        except ArenaError as error:  # the answer is still valid; only its explanation is missing
            return gr.HTML(fragments.notice(str(error), "error"), visible=True)
        return gr.HTML(fragments.words(explanation.words, explanation.label), visible=True)

    def classify_again(text: str, name: str, whole_text: bool) -> str:
        return classify(text, name, whole_text) if text.strip() else _NO_ANSWER

    def explain_again(text: str, name: str) -> gr.HTML:
        return explain_words(text, name) if text.strip() else gr.HTML(visible=False)

    def open_link(request: gr.Request) -> tuple:
        """List the current adapters; classify the text of the page's address, if it has one."""
        parameters = dict(request.query_params)
        text = parameters.get("text", "")
        choices = adapter_choices(catalogue)
        names = [name for _, name in choices]
        name = parameters.get("adapter")
        if name not in names:
            name = names[0] if names else None
        dropdown = gr.Dropdown(choices, value=name)
        if not text.strip() or name is None:
            return gr.skip(), dropdown, gr.skip(), gr.skip()
        return text, dropdown, classify(text, name), explain_words(text, name)

    inputs = [layout.text, layout.adapter]
    inputs_of_answer = [*inputs, layout.whole_text]
    answered = gr.on([layout.run.click, layout.text.submit], classify, inputs_of_answer, layout.answer, **PRIVATE)
    answered.success(explain_words, inputs, layout.words, **PRIVATE)
    layout.whole_text.change(classify_again, inputs_of_answer, layout.answer, **PRIVATE)
    switched = layout.adapter.change(classify_again, inputs_of_answer, layout.answer, **PRIVATE)
    switched.success(explain_again, inputs, layout.words, **PRIVATE)
    layout.link.click(None, inputs, js=_COPY_LINK, api_visibility="private")
    demo.load(open_link, None, [*inputs, layout.answer, layout.words], **PRIVATE)


def _build_layout(catalogue: Catalogue) -> Layout:
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=6, min_width=320):
            text = gr.Textbox(
                label="Text",
                placeholder="Type or paste a review",
                lines=6,
                max_lines=14,
                elem_id="text",
                autofocus=True,
            )
            adapter = adapter_dropdown(catalogue, "adapter")
            whole_text = gr.Checkbox(
                False,
                label="Read long texts completely",
                info="In pieces, whose answers are averaged. Otherwise long texts are truncated in the middle.",
                elem_id="whole",
            )
            with gr.Row(elem_classes="actions"):
                run = gr.Button("Classify", variant="primary", elem_id="run")
                link = gr.Button("Copy link", elem_id="link")
            gr.Examples(
                list(EXAMPLES.values()),
                text,
                label="Examples",
                elem_id="examples",
                api_visibility="private",
                example_labels=list(EXAMPLES),
            )
        with gr.Column(scale=5, min_width=320):
            answer = gr.HTML(_NO_ANSWER, elem_id="answer", elem_classes="panel")
            words = gr.HTML("", elem_id="words", elem_classes="panel", visible=False)
    return Layout(text=text, adapter=adapter, whole_text=whole_text, run=run, link=link, answer=answer, words=words)


def render_answer(prediction: Prediction, entry: Entry, milliseconds: float) -> str:
    """Return the answer with the facts about its computation."""
    facts = {
        "Tokens": f"{prediction.tokens:,}",
        "Text": "truncated in the middle" if prediction.truncated else "read completely",
        "Time": f"{milliseconds:,.0f} ms",
        "Adapter": entry.name,
        "Base model": entry.base_model or "unknown",
    }
    if entry.revision:
        facts["Commit"] = entry.revision[:8]
    return fragments.verdict(prediction) + fragments.facts(facts)
