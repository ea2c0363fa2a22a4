"""Pairs of texts to token ids, by the base model's own template and truncated fairly.

If a pair exceeds the window, the longer text is truncated until both are equally long, and then both. What is left of a
truncated text is its first quarter and its last three quarters, as of a single text.
"""

from transformers import PreTrainedTokenizerBase

from adapter_arena.models import truncation
from adapter_arena.models.templates import PairFrame, pair_frame
from adapter_arena.models.truncation import Encoded

Pair = tuple[str, str]


def encode(tokenizer: PreTrainedTokenizerBase, pairs: list[Pair], max_length: int) -> list[Encoded]:
    """Return the token ids of each pair, at most `max_length` with special tokens."""
    frame = pair_frame(tokenizer)
    firsts = _tokenise(tokenizer, [first for first, _ in pairs], max_length)
    seconds = _tokenise(tokenizer, [second for _, second in pairs], max_length)
    encoded = []
    for pair, first, second in zip(pairs, firsts, seconds):
        first_size, second_size = fair_sizes(len(first), len(second), max_length - frame.size)
        is_cut = any(truncation.is_cut(text, max_length) for text in pair)
        truncated = is_cut or first_size < len(first) or second_size < len(second)
        encoded.append(
            _joined(frame, truncation.window(first, first_size), truncation.window(second, second_size), truncated)
        )
    return encoded


def windows(tokenizer: PreTrainedTokenizerBase, pair: Pair, max_length: int) -> list[Encoded]:
    """Return the pair in windows: the longer text in pieces that overlap by a quarter, each with the complete shorter one.

    The shorter text gets at most half of a window. A longer text of more than MAX_WINDOWS windows is truncated.
    """
    frame = pair_frame(tokenizer)
    longest = max_length * truncation.MAX_WINDOWS
    first, second = _tokenise(tokenizer, list(pair), longest)
    is_first_longer = len(first) > len(second)
    longer, shorter = (first, second) if is_first_longer else (second, first)
    room = max_length - frame.size
    kept = truncation.window(shorter, max(1, room // 2))
    size = max(1, room - len(kept))
    read = truncation.window(longer, truncation.most_tokens(size))
    is_cut = any(truncation.is_cut(text, longest) for text in pair)
    truncated = is_cut or len(kept) < len(shorter) or len(read) < len(longer)
    found = []
    for start in truncation.starts(len(read), size):
        piece = read[start : start + size]
        both = (piece, kept) if is_first_longer else (kept, piece)
        found.append(_joined(frame, *both, truncated))
    return found


def spans(tokenizer: PreTrainedTokenizerBase, pair: Pair, max_length: int) -> list[tuple[int, int]]:
    """Return for each id of `encode` the start and end of its characters in the two texts, one after the other.

    It is (0, 0) for special tokens.
    """
    frame = pair_frame(tokenizer)
    first_spans = truncation.character_spans(tokenizer, pair[0], max_length)
    second_spans = []
    for start, end in truncation.character_spans(tokenizer, pair[1], max_length):
        second_spans.append((start + len(pair[0]), end + len(pair[0])))
    first_size, second_size = fair_sizes(len(first_spans), len(second_spans), max_length - frame.size)
    return [
        *[(0, 0)] * len(frame.before.ids),
        *truncation.window(first_spans, first_size),
        *[(0, 0)] * len(frame.between.ids),
        *truncation.window(second_spans, second_size),
        *[(0, 0)] * len(frame.after.ids),
    ]


def fair_sizes(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens two texts of so many tokens keep in `room` tokens: the longer one is truncated first."""
    room = max(2, room)
    if first + second <= room:
        return first, second
    if first <= room // 2:
        return first, room - first
    if second <= room // 2:
        return room - second, second
    return room - room // 2, room // 2


def _tokenise(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[list[int]]:
    bodies = [truncation.body(text, max_length) for text in texts]
    return tokenizer(bodies, add_special_tokens=False, truncation=False, padding=False)["input_ids"]


def _joined(frame: PairFrame, first: list[int], second: list[int], truncated: bool) -> Encoded:
    types = frame.types(first, second)
    return Encoded(frame.ids(first, second), truncated, types if any(types) else None)
