"""Try: one text, one adapter, the answer and the words that moved it."""

import time

import gradio as gr

from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Entry
from adapter_arena.serve.explain import explain
from adapter_arena.serve.served import Prediction
from adapter_arena.ui import fragments
from adapter_arena.ui.shared import PRIVATE, adapter_choices, adapter_dropdown, predict_one

EXAMPLES = {
    "Clear": "A quiet, beautifully acted film that trusts its audience. I was in tears by the end and would see it again tomorrow.",
    "Mixed": "The first half drags and the jokes fall flat, but the final act is so good that I forgive it everything.",
    "Sarcastic": "Oh great, another superhero sequel. Just what the world was waiting for. My favourite part was the car park.",
    "Turns at the end": "Great camera work, a fine cast, a stirring score, and still the dullest evening I have had in years.",
    "Very long": " ".join(
        [
            "I went in with low hopes.",
            *[
                "The plot takes its time, and scene after scene is spent on people walking through rain and saying very little."
            ]
            * 24,
            "And then the last ten minutes arrive, everything falls into place, and I left the cinema happier than I have been all year.",
        ]
    ),
    "Not English": "Ein wunderbarer Film, klug, warm und witzig. Ich habe jede Minute genossen.",
}
_WAITING = '<p class="nothing">Type a text and press Classify</p>'


def build(demo: gr.Blocks, catalogue: Catalogue) -> None:
    """The tab's content and what it does."""
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=6, min_width=320):
            text = gr.Textbox(
                label="Your text",
                placeholder="Type or paste a review",
                lines=6,
                max_lines=14,
                elem_id="text",
                autofocus=True,
            )
            adapter = adapter_dropdown(catalogue, "adapter")
            whole = gr.Checkbox(
                False,
                label="Read long texts whole",
                info="In windows whose answers are averaged; otherwise the middle is left out",
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
            answer = gr.HTML(_WAITING, elem_id="answer", elem_classes="panel")
            words = gr.HTML("", elem_id="words", elem_classes="panel", visible=False)

    def classify(text: str, name: str, whole_text: bool = False):
        start = time.perf_counter()
        prediction = predict_one(catalogue, text, name, whole_text)
        milliseconds = 1000 * (time.perf_counter() - start)
        return answered(prediction, catalogue.find(name), milliseconds)

    def show_words(text: str, name: str):
        try:
            found = explain(catalogue.engine_for(catalogue.find(name)), text, catalogue.find(name).name)
        except ArenaError as error:  # the answer stands; only its explanation is missing
            return gr.HTML(fragments.notice(str(error), "error"), visible=True)
        return gr.HTML(fragments.words(found.words, found.label), visible=True)

    def switch(text: str, name: str, whole_text: bool):
        return classify(text, name, whole_text) if text.strip() else _WAITING

    def switched_words(text: str, name: str):
        return show_words(text, name) if text.strip() else gr.HTML(visible=False)

    inputs = [text, adapter]
    asked = gr.on([run.click, text.submit], classify, [*inputs, whole], answer, **PRIVATE)
    asked.success(show_words, inputs, words, **PRIVATE)
    whole.change(switch, [*inputs, whole], answer, **PRIVATE)
    adapter.change(switch, [*inputs, whole], answer, **PRIVATE).success(switched_words, inputs, words, **PRIVATE)
    link.click(
        None,
        inputs,
        js="""(text, adapter) => {
          const url = new URL(window.location.pathname, window.location.origin);
          url.search = new URLSearchParams({text, adapter});
          navigator.clipboard?.writeText(url.href);
          history.replaceState(null, '', url);
        }""",
        api_visibility="private",
    )

    def reopen(request: gr.Request):
        """The adapters there are by now; and a link's text with its adapter, answered as the page opens."""
        asked = dict(request.query_params)
        choices = adapter_choices(catalogue)
        names = [name for _, name in choices]
        text, name = asked.get("text", ""), asked.get("adapter")
        name = name if name in names else next(iter(names), None)
        dropdown = gr.Dropdown(choices, value=name)
        if not text.strip() or name is None:
            return gr.skip(), dropdown, gr.skip(), gr.skip()
        return text, dropdown, classify(text, name), show_words(text, name)

    demo.load(reopen, None, [text, adapter, answer, words], **PRIVATE)


def answered(prediction: Prediction, entry: Entry, milliseconds: float) -> str:
    """The answer and what it was made with."""
    rows = {
        "Tokens": f"{prediction.tokens:,}",
        "Text": "cut in the middle" if prediction.truncated else "read whole",
        "Time": f"{milliseconds:,.0f} ms",
        "Adapter": entry.name,
        "Base": entry.base_model or "unknown",
    }
    if entry.revision:
        rows["Commit"] = entry.revision[:8]
    return fragments.verdict(prediction) + fragments.facts(rows)
