"""The named endpoints; the API page and an agent's list of tools show their docstrings and types.

Gradio reads one line per parameter, and joins the lines after Returns with commas.
"""

import math

import gradio as gr

from adapter_arena import settings
from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.explain import explain as explain_text
from adapter_arena.serve.served import Prediction
from adapter_arena.ui.shared import predict_one, user_error, user_errors, with_pair

ENDPOINTS = ("predict", "predict_batch", "compare", "explain", "list_adapters")


_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def boolean(value: object, name: str) -> bool:
    """Return the value of a boolean parameter, which Gradio does not check. Raises gr.Error.

    Clients that build requests from text send `"false"` or `0`; null stands for a parameter that is left out.
    """
    if value is None:
        return False
    is_number = isinstance(value, int | float) and value in (0, 1)  # includes True and False
    text = str(int(value)) if is_number else value
    key = text.strip().lower() if isinstance(text, str) else None
    if key not in _BOOLEANS:
        raise user_error(f"{name} must be true or false, not {str(value)[:40]!r}.")
    return _BOOLEANS[key]


def share(value: object, name: str) -> float:
    """Return the value of a parameter from 0 to 1, also if a client sent it as text; null is 0. Raises gr.Error."""
    if value is None:
        return 0.0
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= 1:
        raise user_error(f"{name} must be a number from 0 to 1, not {str(value)[:40]!r}.")
    return number


def build(catalogue: Catalogue) -> None:
    """Register every endpoint on the Blocks app that is being built."""
    api = Api(catalogue)
    for name in ENDPOINTS:
        gr.api(getattr(api, name), api_name=name)


def _answer(prediction: Prediction, min_confidence: float) -> dict:
    """Return the answer as the API does; with a least confidence, also whether the answer is below it."""
    answer = prediction.to_dict()
    if min_confidence > 0:
        answer["abstained"] = prediction.is_abstained(min_confidence)
    return answer


class Api:
    """The endpoints of one catalogue."""

    def __init__(self, catalogue: Catalogue):
        self._catalogue = catalogue

    def predict(
        self,
        text: str,
        adapter: str = "",
        whole_text: bool = False,
        text_pair: str = "",
        min_confidence: float = 0.0,
    ) -> dict:
        """Classify one text, or a pair of texts, with one fine-tuned adapter.

        Args:
            text: The text to classify, for example a film review.
            adapter: A name from list_adapters. Empty for the first one.
            whole_text: Read a text longer than the adapter's window in pieces instead of truncating it in the middle.
            text_pair: The second text, for an adapter that classifies pairs. Empty for others.
            min_confidence: Confidence from 0 to 1 below which an answer counts as abstained. 0 for no limit.
        Returns:
            label, confidence (calibrated), scores (the probability of each label), adapter, tokens and truncated
            also labels (those above their thresholds) from a multi-label adapter
            from a regression value (in the scale of its data) instead of confidence
            abstained (true or false) if min_confidence is above 0
        """
        limit = share(min_confidence, "min_confidence")
        both = with_pair(text, text_pair)
        prediction = predict_one(self._catalogue, both, adapter, boolean(whole_text, "whole_text"))
        return _answer(prediction, limit)

    def predict_batch(
        self,
        texts: list[str | list[str]],
        adapter: str = "",
        whole_text: bool = False,
        min_confidence: float = 0.0,
    ) -> list[dict]:
        """Classify up to 10,000 texts with one adapter. A client can follow the progress with job.status().

        Args:
            texts: The texts to classify. A list of two texts each for an adapter that classifies pairs.
            adapter: A name from list_adapters. Empty for the first one.
            whole_text: Read texts longer than the adapter's window in pieces instead of truncating them in the middle.
            min_confidence: Confidence from 0 to 1 below which an answer counts as abstained. 0 for no limit.
        Returns:
            one result per text, in order, as returned by predict
            {"error": reason} for a text that cannot be classified
        """
        if not isinstance(texts, list):
            raise user_error("texts must be a list. Please use /predict for one text.")
        limit = settings.get("ARENA_MAX_BATCH")
        if len(texts) > limit:
            raise user_error(
                f"{len(texts):,} texts are over the limit of {limit:,.0f} a call (ARENA_MAX_BATCH). Please send fewer."
            )
        in_pieces = boolean(whole_text, "whole_text")
        least = share(min_confidence, "min_confidence")
        texts = [tuple(text) if isinstance(text, list) else text for text in texts]
        progress = gr.Progress()  # created here, since gr.api would make a parameter an argument of the endpoint
        step = len(texts) // 100 + 1

        def report(done: int, total: int) -> None:
            if done % step == 0:
                progress((done, total), unit="texts")

        with user_errors():
            predictions = self._catalogue.predict(texts, adapter, in_pieces, report)
        results = []
        for prediction in predictions:
            failed = isinstance(prediction, ArenaError)
            results.append({"error": str(prediction)} if failed else _answer(prediction, least))
        return results

    def compare(self, text: str, text_pair: str = "") -> list[dict]:
        """Classify one text, or a pair of texts, with every loaded adapter, to see where the fine-tuning methods differ.

        Args:
            text: The text to classify.
            text_pair: The second text, for adapters that classify pairs.
        Returns:
            one result per adapter as returned by predict, with method, accuracy and milliseconds
            {"adapter": name, "error": reason} for an adapter that fails
        """
        with user_errors():
            return [row.to_dict() for row in self._catalogue.compare(with_pair(text, text_pair))]

    def explain(self, text: str, adapter: str = "", text_pair: str = "") -> dict:
        """Show how much each word of a text contributes to its classification.

        Args:
            text: The text to classify.
            adapter: A name from list_adapters. Empty for the first one.
            text_pair: The second text, for an adapter that classifies pairs. Its words are in words_pair.
        Returns:
            label, confidence and words, a list of [word, weight] in the order of the text
            where the weight is the drop of the label's probability without the word (above 0: supports the label)
            from a regression value instead of confidence and the drop of the value
        """
        with user_errors():
            entry = self._catalogue.find(adapter)
            return explain_text(self._catalogue.engine_for(entry), with_pair(text, text_pair), entry.name).to_dict()

    def list_adapters(self) -> list[dict]:
        """List the available adapters.

        Returns:
            one entry per adapter with name, method, base_model, source (local or hub), revision, labels, takes_pairs, dataset
            accuracy with its 95 % interval, f1, ece, trainable_params and megabytes (null if unknown)
        """
        return [entry.to_dict() for entry in self._catalogue.entries]
