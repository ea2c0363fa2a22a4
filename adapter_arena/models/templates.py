"""The special tokens that a tokenizer puts around a text, and around and between the two texts of a pair."""

import inspect
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from adapter_arena.errors import BaseModelError

_frames: WeakKeyDictionary = WeakKeyDictionary()
_pair_frames: WeakKeyDictionary = WeakKeyDictionary()


@dataclass(frozen=True)
class Frame:
    """The special tokens that a tokenizer puts before and after each text."""

    before: list[int]
    after: list[int]

    @property
    def size(self) -> int:
        """Number of special tokens."""
        return len(self.before) + len(self.after)


class Special(NamedTuple):
    """Special tokens, and the token type of each."""

    ids: list[int]
    types: list[int]


@dataclass(frozen=True)
class PairFrame:
    """The special tokens of a pair, and the token types: with BERT's, 0 up to the first [SEP], and then 1."""

    before: Special
    between: Special
    after: Special
    first_type: int = 0
    """Token type of the first text."""
    second_type: int = 1
    separator: str | None = None
    """What is put between the two texts if the tokenizer has no template that does; None if it has."""

    @property
    def size(self) -> int:
        """Number of special tokens."""
        return len(self.before.ids) + len(self.between.ids) + len(self.after.ids)

    def ids(self, first: list[int], second: list[int]) -> list[int]:
        """Return the token ids of a pair with the special tokens."""
        return [*self.before.ids, *first, *self.between.ids, *second, *self.after.ids]

    def types(self, first: list[int], second: list[int]) -> list[int]:
        """Return the token type of each of `ids`."""
        first_types = [self.first_type] * len(first)
        second_types = [self.second_type] * len(second)
        return [*self.before.types, *first_types, *self.between.types, *second_types, *self.after.types]


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
    start = _find(body, ids, 0)
    if start is None:
        raise BaseModelError("The tokenizer changes a text's tokens as it adds special tokens: use another base model.")
    return Frame(ids[:start], ids[start + len(body) :])


def pair_frame(tokenizer: PreTrainedTokenizerBase) -> PairFrame:
    """Return the special tokens of the tokenizer's template for pairs.

    BERT's is `[CLS] a [SEP] b [SEP]`, RoBERTa's `<s> a </s></s> b </s>`, Llama's `<s> a <s> b`. If the template puts
    nothing between the texts, as GPT-2's, it is the separator token, else the end-of-text token, else a line break.
    """
    if tokenizer not in _pair_frames:
        _pair_frames[tokenizer] = _find_pair_frame(tokenizer)
    return _pair_frames[tokenizer]


def _find_pair_frame(tokenizer: PreTrainedTokenizerBase) -> PairFrame:
    body = tokenizer("a", add_special_tokens=False)["input_ids"]
    pair = tokenizer("a", "a", add_special_tokens=True, return_token_type_ids=True)
    ids = pair["input_ids"]
    types = pair["token_type_ids"]
    first = _find(body, ids, 0)
    second = None if first is None else _find(body, ids, first + len(body))
    if second is None or second == first + len(body):
        return _frame_with_separator(tokenizer)
    first_end = first + len(body)
    second_end = second + len(body)
    return PairFrame(
        before=Special(ids[:first], types[:first]),
        between=Special(ids[first_end:second], types[first_end:second]),
        after=Special(ids[second_end:], types[second_end:]),
        first_type=types[first],
        second_type=types[second],
    )


def _frame_with_separator(tokenizer: PreTrainedTokenizerBase) -> PairFrame:
    around = frame(tokenizer)
    separator = tokenizer.sep_token or tokenizer.eos_token or "\n"
    between = tokenizer.convert_tokens_to_ids([separator])
    if separator == "\n":
        between = tokenizer(separator, add_special_tokens=False)["input_ids"]
    if not between:
        raise BaseModelError("The tokenizer has no token to put between two texts: use another base model for pairs.")
    return PairFrame(
        before=Special(around.before, [0] * len(around.before)),
        between=Special(between, [0] * len(between)),
        after=Special(around.after, [1] * len(around.after)),
        separator=separator,
    )


def _find(body: list[int], ids: list[int], start: int) -> int | None:
    """Return the first position from `start` on at which `ids` contain `body`."""
    for position in range(start, len(ids) - len(body) + 1):
        if ids[position : position + len(body)] == body:
            return position
    return None


def reads_token_types(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the model gets token types: BERT does, RoBERTa and decoders do not.

    The model needs an embedding for each of several types, and the tokenizer must count them among the model's inputs,
    as it does for other programs that call the model.
    """
    if "token_type_ids" not in tokenizer.model_input_names:
        return False
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    types = getattr(plain.config, "type_vocab_size", None) or 0
    return types > 1 and "token_type_ids" in inspect.signature(type(plain).forward).parameters
