"""Text to token ids, the same way in training, evaluation and serving."""

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

MAX_WINDOWS = 32
"""Most windows of one text: over 9,000 tokens with a window of 384."""
# No vocabulary here has words of more than a few dozen characters, so a text of more than 64 characters a token is
# truncated in the middle before it is tokenised: 1 MB then costs milliseconds instead of a second.
_CHARACTERS_PER_TOKEN = 64
_SPECIAL_TOKENS = 2


class Encoded(NamedTuple):
    """Token ids with the special tokens, and whether any of the text was left out."""

    ids: list[int]
    truncated: bool


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[Encoded]:
    """Return the token ids of each text, at most `max_length` with special tokens.

    Longer texts keep the first quarter and the last three quarters of the window, because the verdict of a review is
    often at its end (head+tail, Sun et al. 2019, arXiv:1905.05583).
    """
    bodies = [_body(text, max_length) for text in texts]
    all_ids = tokenizer(bodies, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
    encoded = []
    for text, ids in zip(texts, all_ids):
        window = _window(ids, max_length)
        truncated = len(window) < len(ids) or _is_cut(text, max_length)
        encoded.append(_with_special_tokens(tokenizer, window, truncated))
    return encoded


def windows(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> list[Encoded]:
    """Return the complete text in windows of at most `max_length` tokens that overlap by a quarter.

    The last window ends with the text. Texts longer than MAX_WINDOWS windows are truncated in the middle, as by
    `encode`.
    """
    size = max_length - _SPECIAL_TOKENS
    step = size * 3 // 4
    longest = max_length * MAX_WINDOWS
    most_tokens = (MAX_WINDOWS - 1) * step + size
    body = _body(text, longest)
    ids = tokenizer(body, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
    window = _window(ids, most_tokens + _SPECIAL_TOKENS)
    truncated = len(window) < len(ids) or _is_cut(text, longest)
    last_start = max(0, len(window) - size)
    starts = [*range(0, len(window) - size, step), last_start]
    return [_with_special_tokens(tokenizer, window[start : start + size], truncated) for start in starts]


def spans(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> list[tuple[int, int]]:
    """Return for each id of `encode` the start and end of its characters in `text`; (0, 0) for special tokens."""
    body = _body(text, max_length)
    offsets = tokenizer(body, add_special_tokens=False, truncation=False, return_offsets_mapping=True)["offset_mapping"]
    removed = len(text) - len(body)
    head = max_length * _CHARACTERS_PER_TOKEN // 4
    found = [(0, 0)]
    for start, end in _window(offsets, max_length):
        shift = removed if end > head else 0
        found.append((start + shift, end + shift))
    found.append((0, 0))
    return found


def _body(text: str, max_length: int) -> str:
    """Return the text to tokenise: without its middle if it is far too long, and with "?" for a lone surrogate."""
    limit = max_length * _CHARACTERS_PER_TOKEN
    if _is_cut(text, max_length):
        head = limit // 4
        text = text[:head] + " " + text[head - limit :]
    return text.encode("utf-8", "replace").decode()


def _is_cut(text: str, max_length: int) -> bool:
    """Return whether the text is truncated before it is tokenised."""
    return len(text) > max_length * _CHARACTERS_PER_TOKEN


def _window(tokens: list, max_length: int) -> list:
    """Return the first quarter and the last three quarters of a window, or all tokens if they fit."""
    size = max_length - _SPECIAL_TOKENS
    if len(tokens) <= size:
        return tokens
    head = size // 4
    return tokens[:head] + tokens[head - size :]


def _with_special_tokens(tokenizer: PreTrainedTokenizerBase, ids: list[int], truncated: bool) -> Encoded:
    return Encoded([tokenizer.cls_token_id, *ids, tokenizer.sep_token_id], truncated)
