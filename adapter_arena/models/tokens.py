"""Text to token ids, the same way in training, evaluation and serving."""

from transformers import PreTrainedTokenizerBase

from adapter_arena.models import pairs, truncation
from adapter_arena.models.templates import frame
from adapter_arena.models.truncation import Encoded
from adapter_arena.texts import Text


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[Text], max_length: int) -> list[Encoded]:
    """Return the token ids of each text or pair, at most `max_length` with special tokens.

    Longer texts keep the first quarter and the last three quarters of the window, because the verdict of a review is
    often at its end (head+tail, Sun et al. 2019, arXiv:1905.05583). Of a pair, the longer text is truncated first.
    """
    single_texts = [text for text in texts if isinstance(text, str)]
    pair_texts = [text for text in texts if not isinstance(text, str)]
    singles = iter(_encode_singles(tokenizer, single_texts, max_length) if single_texts else [])
    encoded_pairs = iter(pairs.encode(tokenizer, pair_texts, max_length) if pair_texts else [])
    return [next(singles if isinstance(text, str) else encoded_pairs) for text in texts]


def _encode_singles(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[Encoded]:
    bodies = [truncation.body(text, max_length) for text in texts]
    all_ids = tokenizer(bodies, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
    encoded = []
    for text, ids in zip(texts, all_ids):
        window = truncation.window(ids, max_length - frame(tokenizer).size)
        truncated = len(window) < len(ids) or truncation.is_cut(text, max_length)
        encoded.append(_with_special_tokens(tokenizer, window, truncated))
    return encoded


def windows(tokenizer: PreTrainedTokenizerBase, text: Text, max_length: int) -> list[Encoded]:
    """Return the complete text in windows of at most `max_length` tokens that overlap by a quarter.

    The last window ends with the text. Texts longer than MAX_WINDOWS windows are truncated in the middle, as by
    `encode`. Of a pair, the longer text is read in pieces, see `pairs.windows`.
    """
    if not isinstance(text, str):
        return pairs.windows(tokenizer, text, max_length)
    size = max_length - frame(tokenizer).size
    longest = max_length * truncation.MAX_WINDOWS
    body = truncation.body(text, longest)
    ids = tokenizer(body, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
    window = truncation.window(ids, truncation.most_tokens(size))
    truncated = len(window) < len(ids) or truncation.is_cut(text, longest)
    found = []
    for start in truncation.starts(len(window), size):
        found.append(_with_special_tokens(tokenizer, window[start : start + size], truncated))
    return found


def spans(tokenizer: PreTrainedTokenizerBase, text: Text, max_length: int) -> list[tuple[int, int]]:
    """Return for each id of `encode` the start and end of its characters in `text`; (0, 0) for special tokens.

    The characters of a pair are counted through both texts.
    """
    if not isinstance(text, str):
        return pairs.spans(tokenizer, text, max_length)
    special = frame(tokenizer)
    found = [(0, 0)] * len(special.before)
    found += truncation.window(truncation.character_spans(tokenizer, text, max_length), max_length - special.size)
    found.extend([(0, 0)] * len(special.after))
    return found or [(0, 0)]


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
