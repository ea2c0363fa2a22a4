"""What is left of a text that exceeds a window: its first quarter and its last three quarters."""

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

MAX_WINDOWS = 32
"""Most windows of one text: over 9,000 tokens with a window of 384."""
# No vocabulary here has words of more than a few dozen characters, so a text of more than 64 characters a token is
# truncated in the middle before it is tokenised: 1 MB then costs milliseconds instead of a second.
CHARACTERS_PER_TOKEN = 64


class Encoded(NamedTuple):
    """Token ids with the special tokens, and whether any of the text was left out."""

    ids: list[int]
    truncated: bool
    types: list[int] | None = None
    """Token type of each id; None if all are 0, as those of a single text. Not every model reads them."""


def body(text: str, max_length: int) -> str:
    """Return the text to tokenise: without its middle if it is far too long, and with "?" for a lone surrogate."""
    limit = max_length * CHARACTERS_PER_TOKEN
    if is_cut(text, max_length):
        head = limit // 4
        text = text[:head] + " " + text[head - limit :]
    return text.encode("utf-8", "replace").decode()


def is_cut(text: str, max_length: int) -> bool:
    """Return whether the text is truncated before it is tokenised."""
    return len(text) > max_length * CHARACTERS_PER_TOKEN


def character_spans(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> list[tuple[int, int]]:
    """Return for each token of `body` the start and end of its characters in `text`."""
    shortened = body(text, max_length)
    removed = len(text) - len(shortened)
    head = max_length * CHARACTERS_PER_TOKEN // 4
    found = []
    for start, end in tokenizer(shortened, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]:
        shift = removed if end > head else 0
        found.append((start + shift, end + shift))
    return found


def window(tokens: list, size: int) -> list:
    """Return the first quarter and the last three quarters of a window, or all tokens if they fit; `size` is at least 1."""
    if len(tokens) <= size:
        return tokens
    head = size // 4
    return tokens[:head] + tokens[head - size :]


def starts(n_tokens: int, size: int) -> list[int]:
    """Return the starts of windows of `size` tokens that overlap by a quarter; the last one ends with the text."""
    step = size * 3 // 4 or 1
    return [*range(0, n_tokens - size, step), max(0, n_tokens - size)]


def most_tokens(size: int) -> int:
    """Return the number of tokens in MAX_WINDOWS windows."""
    return (MAX_WINDOWS - 1) * (size * 3 // 4 or 1) + size
