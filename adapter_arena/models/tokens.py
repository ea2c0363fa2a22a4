"""Text to token ids, the same way in training, evaluation and serving."""

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

# No vocabulary here has words of more than a few dozen characters, so a text of over 64 characters
# a token is cut in the middle before tokenising: 1 MB costs milliseconds instead of a second.
_CHARACTERS_PER_TOKEN = 64
MAX_WINDOWS = 32
"""Of a text that is read whole: over 9,000 tokens of a window of 384."""


class Encoded(NamedTuple):
    """Token ids with the special tokens, and whether anything of the text was left out."""

    ids: list[int]
    truncated: bool


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[Encoded]:
    """Token ids of each text, at most `max_length` with special tokens.

    Of longer texts the first quarter and the last three quarters of the window are kept: the
    verdict of a review often stands at its end (head+tail, Sun et al. 2019, arXiv:1905.05583).
    """
    bodies = [_body(text, max_length) for text in texts]
    found = tokenizer(bodies, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
    encoded = []
    for text, ids in zip(texts, found):
        kept = _window(ids, max_length)
        truncated = len(kept) < len(ids) or len(text) > max_length * _CHARACTERS_PER_TOKEN
        encoded.append(Encoded([tokenizer.cls_token_id, *kept, tokenizer.sep_token_id], truncated))
    return encoded


def windows(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> list[Encoded]:
    """The whole text as windows of at most `max_length` tokens that overlap by a quarter, the last at its end.

    Of what MAX_WINDOWS do not hold the middle is left out, as by `encode`.
    """
    room = max_length - 2
    body = _body(text, max_length * MAX_WINDOWS)
    ids = tokenizer(body, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
    kept = _window(ids, (MAX_WINDOWS - 1) * (room * 3 // 4) + room + 2)
    truncated = len(kept) < len(ids) or len(text) > max_length * MAX_WINDOWS * _CHARACTERS_PER_TOKEN
    starts = [*range(0, len(kept) - room, room * 3 // 4), max(0, len(kept) - room)]
    ends = tokenizer.cls_token_id, tokenizer.sep_token_id
    return [Encoded([ends[0], *kept[start : start + room], ends[1]], truncated) for start in starts]


def spans(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> list[tuple[int, int]]:
    """For each of the ids of `encode`, start and end of what it stands for in `text`; (0, 0) for special tokens."""
    body = _body(text, max_length)
    head, missing = max_length * _CHARACTERS_PER_TOKEN // 4, len(text) - len(body)
    found = tokenizer(body, add_special_tokens=False, truncation=False, return_offsets_mapping=True)["offset_mapping"]
    shifted = [(a + missing, b + missing) if missing and b > head else (a, b) for a, b in _window(found, max_length)]
    return [(0, 0), *shifted, (0, 0)]


def _body(text: str, max_length: int) -> str:
    """The text as it is tokenised: without its middle if it is far too long, a lone surrogate as "?"."""
    limit = max_length * _CHARACTERS_PER_TOKEN
    if len(text) > limit:
        text = text[: limit // 4] + " " + text[-(limit - limit // 4) :]
    return text.encode("utf-8", "replace").decode()


def _window(tokens: list, max_length: int) -> list:
    """Those of a whole text's tokens that are kept."""
    room = max_length - 2
    head = room // 4
    return tokens[:head] + tokens[head - room :] if len(tokens) > room else tokens
