"""Pairs of texts by the template of three families of tokenizers, truncated fairly, alone and in batches."""

import pytest
from conftest import tokenizer
from pair_bases import PAIR, TEMPLATES, pair_tokenizer

from adapter_arena.models import tokens
from adapter_arena.models.pairs import fair_sizes
from adapter_arena.models.templates import pair_frame

PIECES = {
    "bert": "[CLS] the acting is superb . [SEP] the film is awful [SEP]",
    "roberta": "[CLS] the acting is superb . [SEP] [SEP] the film is awful [SEP]",
    "llama": "[CLS] the acting is superb . [CLS] the film is awful",
}
N_FIRST = {"bert": 7, "llama": 6}
"""Tokens of type 0 in front of those of type 1."""


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_pair_is_encoded_as_the_tokenizer_itself_does(family):
    words = pair_tokenizer(family)
    (encoded,) = tokens.encode(words, [PAIR], 64)
    own = words(*PAIR, return_token_type_ids=True)
    assert words.decode(encoded.ids) == PIECES[family]
    assert encoded.ids == own["input_ids"]
    assert (encoded.types or [0] * len(encoded.ids)) == own["token_type_ids"]
    assert not encoded.truncated
    assert encoded.types is None if family == "roberta" else encoded.types.index(1) == N_FIRST[family]


def test_pairs_and_single_texts_may_be_mixed():
    words = pair_tokenizer("bert")
    texts = [PAIR, "The acting is superb .", PAIR]
    alone = [tokens.encode(words, [text], 64)[0] for text in texts]
    assert tokens.encode(words, texts, 64) == alone
    assert alone[1].types is None


def test_a_tokenizer_that_was_saved_without_its_template_gets_berts():
    words = tokenizer()
    (encoded,) = tokens.encode(words, [PAIR], 64)
    assert words.decode(encoded.ids) == PIECES["bert"]
    assert encoded.types.index(1) == 7
    assert pair_frame(words).separator == "[SEP]"


@pytest.mark.parametrize(("special", "between"), [({"eos_token": "[MASK]"}, "[MASK]"), ({}, "[UNK]")])
def test_a_template_with_nothing_between_the_texts_gets_a_separator(special, between):
    words = tokenizer()
    words.cls_token = None
    words.sep_token = None
    for name, token in special.items():
        setattr(words, name, token)
    if not special:  # a decoder's vocabulary has the line break, that of the tests does not
        words.backend_tokenizer.pre_tokenizer = None
        words.backend_tokenizer.normalizer = None
    (encoded,) = tokens.encode(words, [("acting", "awful")], 64)
    assert words.convert_ids_to_tokens(encoded.ids) == ["acting", between, "awful"]
    assert pair_frame(words).separator == special.get("eos_token", "\n")


@pytest.mark.parametrize(
    ("first", "second", "room", "kept"),
    [
        (5, 5, 10, (5, 5)),
        (20, 3, 10, (7, 3)),
        (3, 20, 10, (3, 7)),
        (20, 20, 10, (5, 5)),
        (20, 21, 11, (6, 5)),
        (6, 20, 10, (5, 5)),
        (0, 20, 10, (0, 10)),
        (20, 20, 1, (1, 1)),
    ],
)
def test_the_longer_text_is_truncated_first(first, second, room, kept):
    assert fair_sizes(first, second, room) == kept


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("size", [(50, 3), (3, 50), (50, 50), (9, 9)])
def test_a_long_pair_fills_the_window_and_keeps_heads_and_tails(family, size):
    words = pair_tokenizer(family)
    n_first, n_second = size
    pair = ("film " + "acting " * (n_first - 2) + "awful", "film " + "acting " * (n_second - 2) + "superb")
    (encoded,) = tokens.encode(words, [pair], 20)
    kept = words.convert_ids_to_tokens(encoded.ids)
    assert encoded.truncated == (n_first + n_second + pair_frame(words).size > 20)
    assert len(kept) == min(20, n_first + n_second + pair_frame(words).size)
    assert kept.count("film") == 2
    assert kept.index("awful") < kept.index("superb")
    assert len(tokens.spans(words, pair, 20)) == len(encoded.ids)


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("is_first_long", [True, False])
def test_windows_read_the_longer_text_and_keep_the_shorter_one(family, is_first_long):
    words = pair_tokenizer(family)
    long_text = " ".join(["acting", "awful", "superb", "the", "film"] * 12)
    short_text = "is . is"
    pair = (long_text, short_text) if is_first_long else (short_text, long_text)
    found = tokens.windows(words, pair, 20)
    size = 17 - pair_frame(words).size
    long_ids = words(long_text, add_special_tokens=False)["input_ids"]
    starts = [*range(0, 60 - size, size * 3 // 4), 60 - size]
    expected = []
    for start in starts:
        piece = words.decode(long_ids[start : start + size])
        both = (piece, short_text) if is_first_long else (short_text, piece)
        expected += tokens.encode(words, [both], 20)
    assert found == expected
    assert tokens.windows(words, PAIR, 64) == tokens.encode(words, [PAIR], 64)


def test_windows_of_two_long_texts_are_bounded_and_say_what_is_left_out():
    words = pair_tokenizer("bert")
    found = tokens.windows(words, ("acting " * 50, "awful " * 5000), 20)
    assert len(found) == 32
    assert all(len(window.ids) == 20 and window.truncated for window in found)


def test_spans_count_characters_through_both_texts():
    words = pair_tokenizer("roberta")
    both = PAIR[0] + PAIR[1]
    found = [both[start:end].lower() for start, end in tokens.spans(words, PAIR, 64)]
    assert found == ["", "the", "acting", "is", "superb", ".", "", "", "the", "film", "is", "awful", ""]
