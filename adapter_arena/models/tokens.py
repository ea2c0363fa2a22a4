"""Text to token ids, the same way in training, evaluation and serving."""

from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from adapter_arena.errors import BaseModelError

MAX_WINDOWS = 32
"""Most windows of one text: over 9,000 tokens with a window of 384."""
# No vocabulary here has words of more than a few dozen characters, so a text of more than 64 characters a token is
# truncated in the middle before it is tokenised: 1 MB then costs milliseconds instead of a second.
_CHARACTERS_PER_TOKEN = 64
_frames: WeakKeyDictionary = WeakKeyDictionary()


@dataclass(frozen=True)
class Frame:
    """The special tokens that a tokenizer puts before and after each text."""

    before: list[int]
    after: list[int]

    @property
    def size(self) -> int:
        """Number of special tokens."""
        return len(self.before) + len(self.after)


class Encoded(NamedTuple):
    """Token ids with the special tokens, and whether any of the text was left out."""

    ids: list[int]
    truncated: bool


def frame(tokenizer: PreTrainedTokenizerBase) -> Frame:
    """Return the special tokens of the tokenizer's template: `[CLS]` and `[SEP]`, only a first or a last token, or none."""
    if tokenizer not in _frames:
        _frames[tokenizer] = _find_frame(tokenizer)
    return _frames[tokenizer]


def _find_frame(tokenizer: PreTrainedTokenizerBase) -> Frame:
    body = tokenizer("a", add_special_tokens=False)["input_ids"]
    ids = tokenizer("a", add_special_tokens=True)["input_ids"]
    if ids == body and tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None:
        return Frame([tokenizer.cls_token_id], [tokenizer.sep_token_id])  # saved without its template
    for start in range(len(ids) - len(body) + 1):
        end = start + len(body)
        if ids[start:end] == body:
            return Frame(ids[:start], ids[end:])
    raise BaseModelError("The tokenizer changes a text's tokens as it adds special tokens: use another base model.")


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[Encoded]:
    """Return the token ids of each text, at most `max_length` with special tokens.

    Longer texts keep the first quarter and the last three quarters of the window, because the verdict of a review is
    often at its end (head+tail, Sun et al. 2019, arXiv:1905.05583).
    """
    bodies = [_body(text, max_length) for text in texts]
    all_ids = tokenizer(bodies, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
    encoded = []
    for text, ids in zip(texts, all_ids):
        window = _window(ids, max_length - frame(tokenizer).size)
        truncated = len(window) < len(ids) or _is_cut(text, max_length)
        encoded.append(_with_special_tokens(tokenizer, window, truncated))
    return encoded


def windows(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> list[Encoded]:
    """Return the complete text in windows of at most `max_length` tokens that overlap by a quarter.

    The last window ends with the text. Texts longer than MAX_WINDOWS windows are truncated in the middle, as by
    `encode`.
    """
    size = max_length - frame(tokenizer).size
    step = size * 3 // 4
    longest = max_length * MAX_WINDOWS
    most_tokens = (MAX_WINDOWS - 1) * step + size
    body = _body(text, longest)
    ids = tokenizer(body, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
    window = _window(ids, most_tokens)
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
    special = frame(tokenizer)
    found = [(0, 0)] * len(special.before)
    for start, end in _window(offsets, max_length - special.size):
        shift = removed if end > head else 0
        found.append((start + shift, end + shift))
    found.extend([(0, 0)] * len(special.after))
    return found or [(0, 0)]


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


def _window(tokens: list, size: int) -> list:
    """Return the first quarter and the last three quarters of a window, or all tokens if they fit."""
    if len(tokens) <= size:
        return tokens
    head = size // 4
    return tokens[:head] + tokens[head - size :]


def _with_special_tokens(tokenizer: PreTrainedTokenizerBase, ids: list[int], truncated: bool) -> Encoded:
    special = frame(tokenizer)
    row = [*special.before, *ids, *special.after]
    # A model needs at least one token, which an empty text has not if the tokenizer adds none.
    return Encoded(row or [_any_special_token(tokenizer)], truncated)


def _any_special_token(tokenizer: PreTrainedTokenizerBase) -> int:
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id):
        if token_id is not None:
            return token_id
    return 0
