"""The named endpoints; docstrings and types are what the API page and an agent's tool list show."""

import gradio as gr

from adapter_arena import settings
from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.explain import explain as explain_text
from adapter_arena.ui.shared import predict_one, refused


def build(catalogue: Catalogue) -> None:
    """Register every endpoint on the Blocks app that is being built."""

    def predict(text: str, adapter: str = "", whole_text: bool = False) -> dict:
        """Classify one text with one fine-tuned adapter.

        Args:
            text: The text to classify, for example a film review.
            adapter: A name from list_adapters; empty for the first.
            whole_text: Read a text beyond the adapter's window in pieces instead of leaving out its middle.
        Returns:
            label, confidence (calibrated), scores (probability of each label), adapter, tokens read, truncated.
        """
        return predict_one(catalogue, text, adapter, whole_text).to_dict()

    def predict_batch(texts: list[str], adapter: str = "", whole_text: bool = False) -> list[dict]:
        """Classify up to 10,000 texts with one adapter; while it runs, a client's job.status() tells the progress.

        Args:
            texts: The texts to classify.
            adapter: A name from list_adapters; empty for the first.
            whole_text: Read texts beyond the adapter's window in pieces instead of leaving out their middle.
        Returns:
            One answer a text, in order, as predict gives; {"error": reason} where a text has none.
        """
        if not isinstance(texts, list):
            raise refused("texts must be a list: use /predict for one text.")
        if len(texts) > (most := settings.number("ARENA_MAX_BATCH")):
            raise refused(
                f"{len(texts):,} texts are over the limit of {most:,.0f} a call (ARENA_MAX_BATCH): send fewer."
            )
        report = gr.Progress()  # made here, since gr.api takes it for an argument of the caller

        def watch(done: int, total: int) -> None:
            if done % (total // 100 + 1) == 0:
                report((done, total), unit="texts")

        try:
            answers = catalogue.predict(texts, adapter, whole_text, watch)
        except ArenaError as error:
            raise refused(error) from error
        return [{"error": str(a)} if isinstance(a, ArenaError) else a.to_dict() for a in answers]

    def compare(text: str) -> list[dict]:
        """Classify one text with every adapter at once, to see where the fine-tuning methods differ.

        Args:
            text: The text to classify.
        Returns:
            One answer an adapter that is loaded, as predict gives, with method, accuracy and milliseconds;
            {"adapter": name, "error": reason} where one has none.
        """
        try:
            return [row.to_dict() for row in catalogue.compare(text)]
        except ArenaError as error:
            raise refused(error) from error

    def explain(text: str, adapter: str = "") -> dict:
        """Say which words of a text moved the answer.

        Args:
            text: The text to classify.
            adapter: A name from list_adapters; empty for the first.
        Returns:
            label, confidence and words: [word, weight] for the whole text in order. A weight is the change
            of the label's probability when the word is taken out: above 0 it speaks for the label.
        """
        try:
            entry = catalogue.find(adapter)
            return explain_text(catalogue.serving(entry), text, entry.name).to_dict()
        except ArenaError as error:
            raise refused(error) from error

    def list_adapters() -> list[dict]:
        """List the adapters that can be asked.

        Returns:
            One entry an adapter: name, method, base_model, source (local or hub), revision, labels, dataset,
            accuracy with its 95 % interval, f1, ece, trainable_params, megabytes; null where not known.
        """
        return [entry.to_dict() for entry in catalogue.entries]

    for endpoint in (predict, predict_batch, compare, explain, list_adapters):
        gr.api(endpoint, api_name=endpoint.__name__)
