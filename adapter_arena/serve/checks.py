"""What is refused before it is tokenised: texts that are no texts, and pairs for an adapter of single texts."""

from adapter_arena import settings
from adapter_arena.adapters.store import Adapter
from adapter_arena.errors import RequestError
from adapter_arena.texts import length


def text_error(text: object, adapter: Adapter) -> RequestError | None:
    """Return why the adapter cannot classify a text or a pair of texts, or None if it can."""
    problem = _pair_problem(text, adapter) if isinstance(text, tuple) else _single_problem(text, adapter)
    if problem is None:
        limit = settings.get("ARENA_MAX_CHARACTERS")
        if length(text) > limit:
            problem = (
                f"The text has {length(text):,} characters, over the limit of {limit:,.0f} (ARENA_MAX_CHARACTERS). "
                "Shorten it."
            )
    return RequestError(problem) if problem else None


def _single_problem(text: object, adapter: Adapter) -> str | None:
    if not isinstance(text, str):
        return f"A text must be a string, not {type(text).__name__}. Send one text, or a list to /predict_batch."
    if not text.strip():
        return "The text is empty. Write a sentence or two."
    if adapter.takes_pairs:
        columns = " and ".join(adapter.results.dataset.text_columns)
        return f"Adapter {adapter.name} classifies pairs of texts ({columns}). Send the second one as text_pair."
    return None


def _pair_problem(pair: tuple, adapter: Adapter) -> str | None:
    if adapter.takes_pairs is False:
        return f"Adapter {adapter.name} classifies single texts, not pairs. Leave out the second text (text_pair)."
    if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        return "A pair must be two strings. Send the second one as text_pair, or a list of two to /predict_batch."
    for text, which in zip(pair, ("first", "second")):
        if not text.strip():
            return f"The {which} text of the pair is empty. Write a sentence or two."
    return None
