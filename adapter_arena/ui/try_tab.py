"""Try: one text, one adapter, its answer, and the words that contributed to it."""

import time

import gradio as gr

from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.entries import Entry
from adapter_arena.serve.explain import explain
from adapter_arena.serve.served import Prediction
from adapter_arena.texts import Text, parts
from adapter_arena.ui import fragments
from adapter_arena.ui.shared import PRIVATE, adapter_choices, adapter_dropdown, predict_one, takes_pairs, user_errors

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
_COPY_LINK = """(text, adapter, text_pair) => {
  const url = new URL(window.location.pathname, window.location.origin);
  url.search = new URLSearchParams(text_pair ? {text, adapter, text_pair} : {text, adapter});
  navigator.clipboard?.writeText(url.href);
  history.replaceState(null, '', url);
}"""


class TryTab:
    """The tab's components and events."""

    def __init__(self, demo: gr.Blocks, catalogue: Catalogue):
        self._catalogue = catalogue
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=6, min_width=320):
                self._build_inputs()
            with gr.Column(scale=5, min_width=320):
                self._answer = gr.HTML(_NO_ANSWER, elem_id="answer", elem_classes="panel")
                self._words = gr.HTML("", elem_id="words", elem_classes="panel", visible=False)
        self._wire_events(demo)

    def _build_inputs(self) -> None:
        self._text = gr.Textbox(
            label="Text", placeholder="Type or paste a review", lines=6, max_lines=14, elem_id="text", autofocus=True
        )
        self._text_pair = gr.Textbox(
            label="Second text", lines=3, max_lines=14, elem_id="text-pair", visible=self._takes_pairs_at_first()
        )
        self._adapter = adapter_dropdown(self._catalogue, "adapter")
        self._whole_text = gr.Checkbox(
            False,
            label="Read long texts completely",
            info="In pieces, whose answers are averaged. Otherwise long texts are truncated in the middle.",
            elem_id="whole",
        )
        with gr.Row(elem_classes="actions"):
            self._run = gr.Button("Classify", variant="primary", elem_id="run")
            self._link = gr.Button("Copy link", elem_id="link")
        gr.Examples(
            list(EXAMPLES.values()),
            self._text,
            label="Examples",
            elem_id="examples",
            api_visibility="private",
            example_labels=list(EXAMPLES),
        )

    def _wire_events(self, demo: gr.Blocks) -> None:
        inputs = [self._text, self._adapter, self._text_pair]
        all_inputs = [*inputs, self._whole_text]
        submitted = [self._run.click, self._text.submit, self._text_pair.submit]
        answered = gr.on(submitted, self._classify, all_inputs, self._answer, **PRIVATE)
        # An adapter of the Hub is known to take pairs only after its first request has fetched it.
        answered.then(self._show_second_text, self._adapter, self._text_pair, **PRIVATE)
        answered.success(self._explain, inputs, self._words, **PRIVATE)
        self._whole_text.change(self._classify_again, all_inputs, self._answer, **PRIVATE)
        self._adapter.change(self._show_second_text, self._adapter, self._text_pair, **PRIVATE)
        switched = self._adapter.change(self._classify_again, all_inputs, self._answer, **PRIVATE)
        switched.success(self._explain_again, inputs, self._words, **PRIVATE)
        self._link.click(None, inputs, js=_COPY_LINK, api_visibility="private")
        opened = [*inputs, self._answer, self._words]
        demo.load(self._open_link, None, opened, **PRIVATE)

    def _takes_pairs_at_first(self) -> bool:
        choices = adapter_choices(self._catalogue)
        return bool(choices) and takes_pairs(self._catalogue, choices[0][1])

    def _show_second_text(self, name: str) -> gr.Textbox:
        return gr.Textbox(visible=takes_pairs(self._catalogue, name))

    def _pair(self, text: str, name: str, text_pair: str) -> Text:
        """Return both texts if the adapter takes pairs: the box of the second one is hidden otherwise, but keeps its text."""
        return (text, text_pair) if takes_pairs(self._catalogue, name) else text

    def _classify(self, text: str, name: str, text_pair: str = "", whole_text: bool = False) -> str:
        start = time.perf_counter()
        prediction = predict_one(self._catalogue, self._pair(text, name, text_pair), name, whole_text)
        milliseconds = 1000 * (time.perf_counter() - start)
        return render_answer(prediction, self._catalogue.find(name), milliseconds)

    def _explain(self, text: str, name: str, text_pair: str = "") -> gr.HTML:
        try:
            entry = self._catalogue.find(name)
            engine = self._catalogue.engine_for(entry)
            explanation = explain(engine, self._pair(text, name, text_pair), entry.name)
        except ArenaError as error:  # the answer is still valid; only its explanation is missing
            return gr.HTML(fragments.notice(str(error), "error"), visible=True)
        words = explanation.words
        if explanation.words_pair is not None:
            words = [*words, ("\n", 0.0), *explanation.words_pair]
        return gr.HTML(fragments.words(words, explanation.label, explanation.is_number), visible=True)

    def _is_complete(self, text: str, name: str, text_pair: str) -> bool:
        return all(part.strip() for part in parts(self._pair(text, name, text_pair)))

    def _classify_again(self, text: str, name: str, text_pair: str, whole_text: bool) -> str:
        if not self._is_complete(text, name, text_pair):
            return _NO_ANSWER
        with user_errors():
            entry = self._catalogue.find(name)
        if entry.loads_base:  # choosing an adapter loads no base model
            return fragments.notice(f"{entry.name} needs {entry.base_note}. Press Classify to load it.")
        return self._classify(text, name, text_pair, whole_text)

    def _explain_again(self, text: str, name: str, text_pair: str) -> gr.HTML:
        if not self._is_complete(text, name, text_pair) or self._catalogue.find(name).loads_base:
            return gr.HTML(visible=False)
        return self._explain(text, name, text_pair)

    def _open_link(self, request: gr.Request) -> tuple:
        """List the current adapters; classify the text of the page's address, if it has one."""
        parameters = dict(request.query_params)
        text = parameters.get("text", "")
        choices = adapter_choices(self._catalogue)
        names = [name for _, name in choices]
        name = parameters.get("adapter")
        if name not in names:
            name = names[0] if names else None
        dropdown = gr.Dropdown(choices, value=name)
        text_pair = parameters.get("text_pair", "")
        second = gr.Textbox(value=text_pair, visible=takes_pairs(self._catalogue, name))
        if name is None or not self._is_complete(text, name, text_pair):
            return gr.skip(), dropdown, second, gr.skip(), gr.skip()
        answer = self._classify(text, name, text_pair)
        return text, dropdown, second, answer, self._explain(text, name, text_pair)


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
