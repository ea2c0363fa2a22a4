"""The page and the named API, on Gradio; everything it shows comes from the engine."""

import html
import re
import time
from pathlib import Path

import gradio as gr

from . import methods
from .engine import Engine, Prediction
from .errors import ArenaError, RequestError
from .store import Adapter

MAX_ROWS = 10_000
_CSS = Path(__file__).with_name("ui.css")
EXAMPLES = [
    "A quiet, beautifully acted film that trusts its audience. I was in tears by the end and would see it again tomorrow.",
    "Two hours of explosions and not one line worth hearing. I kept looking at my watch.",
    "The first half drags and the jokes fall flat, but the final act is so good that I forgive it everything.",
    "Oh great, another superhero sequel. Just what the world was waiting for.",
    "Great camera work, a fine cast, a stirring score, and still the dullest evening I have had in years.",
]
EXAMPLE_LABELS = ["Clear praise", "Clear pan", "Mixed", "Sarcastic", "Turns at the end"]
THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.teal,
    neutral_hue=gr.themes.colors.stone,
    radius_size=gr.themes.sizes.radius_md,
    # Names of fonts people have: a web font would be a request to a network that may not be there.
    font=["Avenir Next", "Segoe UI", "Noto Sans", "Helvetica Neue", "sans-serif"],
    font_mono=["ui-monospace", "SF Mono", "Consolas", "monospace"],
).set(
    body_background_fill="#f7f5f1",
    body_background_fill_dark="#14171a",
    block_background_fill="#ffffff",
    block_background_fill_dark="#1d2125",
    block_border_width="1px",
    block_shadow="none",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    block_label_border_width="0px",
    block_label_text_weight="600",
    body_text_color_subdued="#57534e",
    body_text_color_subdued_dark="#b8b4ae",
    block_label_text_color="#44403c",
    block_title_text_color="#44403c",
    block_title_text_weight="600",
    input_background_fill="#faf9f7",
    input_background_fill_dark="#14171a",
    input_border_color="#d6d3d1",
    input_border_color_dark="#3b4046",
    input_border_width="1px",
    border_color_primary_dark="#33383e",
    stat_background_fill="#0f766e",
    stat_background_fill_dark="#2dd4bf",
    button_primary_background_fill="#0f766e",
    button_primary_background_fill_hover="#115e59",
    button_primary_background_fill_dark="#0f766e",
    button_primary_background_fill_hover_dark="#115e59",
    button_primary_text_color="#ffffff",
    button_primary_text_color_dark="#ffffff",
)


def launch(engine: Engine) -> None:
    """Serve the page and the API until the process is stopped."""
    build(engine).queue(default_concurrency_limit=32).launch(
        theme=THEME, css_paths=_CSS, show_error=True, footer_links=["api"], ssr_mode=False
    )


def build(engine: Engine) -> gr.Blocks:
    """The Blocks app around an engine."""
    with gr.Blocks(title="PEFT Arena") as demo:
        _page(engine)
        _api(engine)
    return demo


def choice(adapter: Adapter) -> str:
    """An adapter as the dropdown shows it: method, dataset, accuracy."""
    title = methods.METHODS[adapter.method].title if adapter.method in methods.METHODS else adapter.method
    if adapter.results is None:
        return f"{adapter.name} · {title} · accuracy unknown"
    return f"{title} · {adapter.results.dataset.id} · {adapter.results.evaluation.accuracy:.1%}"


def describe(adapter: Adapter) -> dict:
    """An adapter as `/list_adapters` returns it; None for what is not known."""
    found = adapter.results
    return {
        "name": adapter.name,
        "method": adapter.method,
        "base_model": adapter.base_model,
        "source": "local",
        "labels": adapter.labels,
        "dataset": found and found.dataset.id,
        "accuracy": found and found.evaluation.accuracy,
        "accuracy_ci95": found and found.evaluation.accuracy_ci95,
        "f1": found and found.evaluation.f1,
        "ece": found and found.evaluation.ece,
        "trainable_params": found and found.training.trainable_params,
        "megabytes": adapter.weights.stat().st_size / 1e6 if adapter.weights.is_file() else None,
    }


def _page(engine: Engine) -> None:
    adapters = engine.adapters
    gr.HTML(_header(engine), elem_id="header")
    if not adapters:
        gr.HTML(
            '<div id="empty"><h2>No adapter yet</h2><p>Train one in under two minutes, then start the app again:</p>'
            "<pre>python train_space.py --dataset sample</pre></div>"
        )
        return
    first = adapters[0].name
    with gr.Row(elem_id="try"):
        with gr.Column(scale=6, min_width=320):
            text = gr.Textbox(
                label="Your text",
                placeholder="Type or paste a review",
                lines=7,
                max_lines=16,
                elem_id="text",
                autofocus=True,
            )
            adapter = gr.Dropdown(
                [(choice(a), a.name) for a in adapters], value=first, label="Adapter", elem_id="adapter"
            )
            run = gr.Button("Classify", variant="primary", elem_id="run")
            gr.Examples(
                EXAMPLES,
                text,
                label="Examples",
                elem_id="examples",
                api_visibility="private",
                example_labels=EXAMPLE_LABELS,
            )
        with gr.Column(scale=5, min_width=320):
            answer = gr.Label(label="Answer", elem_id="answer", num_top_classes=10)
            used = gr.HTML(_used(None, adapters[0], 0), elem_id="used", container=True)
    card = gr.Markdown(_card(adapters[0]), elem_id="card", container=True)

    def classify(text: str, name: str):
        start = time.perf_counter()
        prediction = _one(engine, text, name)
        seconds = time.perf_counter() - start
        return prediction.scores, _used(prediction, _named(engine, name), 1000 * seconds)

    def switch(text: str, name: str):
        chosen = _named(engine, name)
        if text.strip():
            return *classify(text, name), _card(chosen)
        return None, _used(None, chosen, 0), _card(chosen)

    private = {"api_visibility": "private", "show_progress": "minimal"}
    gr.on([run.click, text.submit], classify, [text, adapter], [answer, used], **private)
    adapter.change(switch, [text, adapter], [answer, used, card], **private)


def _api(engine: Engine) -> None:
    """The endpoints; docstrings and types are what the API page shows."""

    def predict(text: str, adapter: str = "") -> dict:
        """Classify one text.

        Args:
            text: The text.
            adapter: A name from /list_adapters; empty for the first.
        Returns:
            label, confidence, scores (probability of each label), adapter, tokens read, truncated.
        """
        return _one(engine, text, adapter).to_dict()

    def predict_batch(texts: list[str], adapter: str = "") -> list[dict]:
        """Classify up to 10,000 texts with one adapter.

        Args:
            texts: The texts.
            adapter: A name from /list_adapters; empty for the first.
        Returns:
            One answer a text, in order, as /predict gives; {"error": reason} where a text has none.
        """
        if not isinstance(texts, list):
            raise gr.Error("texts must be a list: use /predict for one text.", print_exception=False)
        if len(texts) > MAX_ROWS:
            raise gr.Error(
                f"{len(texts):,} texts are over the limit of {MAX_ROWS:,} a call: send fewer.", print_exception=False
            )
        try:
            answers = engine.predict(texts, adapter)
        except RequestError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return [{"error": str(a)} if isinstance(a, ArenaError) else a.to_dict() for a in answers]

    def list_adapters() -> list[dict]:
        """List the adapters that can be asked.

        Returns:
            One entry an adapter: name, method, base_model, source, labels, dataset, accuracy with its
            95 % interval, f1, ece, trainable_params, megabytes; null where not known.
        """
        return [describe(adapter) for adapter in engine.adapters]

    for endpoint in (predict, predict_batch, list_adapters):
        gr.api(endpoint, api_name=endpoint.__name__)


def _one(engine: Engine, text: str, adapter: str) -> Prediction:
    """One prediction; every reason against it becomes a clean error answer."""
    try:
        prediction = engine.predict([text], adapter)[0]
    except RequestError as error:
        prediction = error
    if isinstance(prediction, ArenaError):
        raise gr.Error(str(prediction), print_exception=False)
    return prediction


def _named(engine: Engine, name: str) -> Adapter:
    return next(adapter for adapter in engine.adapters if adapter.name == name)


def _header(engine: Engine) -> str:
    held = {"nf4": "4 bits", "bf16": "16 bits", "fp32": "32 bits"}[engine.precision]
    return (
        "<h1>PEFT Arena</h1><p>Full fine-tuning, LoRA, QLoRA or IA³? One "
        f"<b>{html.escape(engine.base.label)}</b> in {held}, an adapter for each method. Try them on your own words.</p>"
    )


def _used(prediction: Prediction | None, adapter: Adapter, milliseconds: float) -> str:
    """What an answer was made with, as a definition list."""
    facts = {"Tokens": "–", "Text": "–", "Time": "–", "Adapter": adapter.name, "Base": adapter.base_model}
    if prediction:
        facts["Tokens"] = f"{prediction.tokens:,}"
        facts["Text"] = "cut in the middle" if prediction.truncated else "read whole"
        facts["Time"] = f"{milliseconds:,.0f} ms"
    return "<dl>" + "".join(f"<div><dt>{k}</dt><dd>{html.escape(v)}</dd></div>" for k, v in facts.items()) + "</dl>"


def _card(adapter: Adapter) -> str:
    """The adapter's card without its metadata; Gradio strips scripts and handlers from it."""
    path = adapter.folder / "README.md"
    if not path.is_file():
        return f"## {adapter.name}\n\nThis adapter has no card."
    return re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8", errors="replace"), flags=re.DOTALL)
