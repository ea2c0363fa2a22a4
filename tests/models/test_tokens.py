"""Truncating texts, and reading complete texts in windows."""

import pytest
from conftest import tokenizer
from tokenizers import processors

from adapter_arena.models.tokens import encode, spans, windows
from adapter_arena.models.truncation import MAX_WINDOWS


def test_long_texts_keep_head_and_tail():
    words = tokenizer()
    text = " ".join(["acting"] * 50 + ["awful"] * 50)
    (encoded,) = encode(words, [text], max_length=22)
    acting, awful = words.convert_tokens_to_ids(["acting", "awful"])
    assert encoded.truncated
    assert encoded.ids == [words.cls_token_id, *[acting] * 5, *[awful] * 15, words.sep_token_id]


def test_short_texts_are_complete():
    words = tokenizer()
    (encoded,) = encode(words, ["The acting is superb ."], max_length=64)
    assert not encoded.truncated
    assert words.decode(encoded.ids) == "[CLS] the acting is superb . [SEP]"


def test_a_million_characters_keep_the_last_words():
    words = tokenizer()
    (encoded,) = encode(words, ["x" * 1_000_000 + " the acting is awful"], max_length=32)
    assert encoded.truncated
    assert words.decode(encoded.ids).endswith("the acting is awful [SEP]")


def test_windows_cover_the_complete_text_and_overlap_by_a_quarter():
    words = tokenizer()
    text = " ".join(["acting", "awful", "superb", "the", "film"] * 20)
    ids = words(text, add_special_tokens=False)["input_ids"]
    found = windows(words, text, max_length=22)
    inside = [window.ids[1:-1] for window in found]
    assert all(window.ids[0] == words.cls_token_id and window.ids[-1] == words.sep_token_id for window in found)
    assert inside[:-1] == [ids[start : start + 20] for start in range(0, 80, 15)]
    assert inside[-1] == ids[-20:]
    assert not any(window.truncated for window in found)


def test_a_short_text_is_one_window_the_same_as_encoded():
    words = tokenizer()
    for text in ("The acting is superb .", "?", "acting " * 20):
        assert windows(words, text, 22) == encode(words, [text], 22)


def test_windows_of_a_very_long_text_are_bounded_and_keep_its_end():
    words = tokenizer()
    found = windows(words, "acting " * 5000 + "awful", 22)
    assert len(found) == MAX_WINDOWS
    assert found[0].truncated
    assert found[-1].ids[-2] == words.convert_tokens_to_ids("awful")
    assert windows(words, "x" * 1_000_000, 22)[0].truncated


@pytest.mark.parametrize(
    ("template", "before", "after"),
    [
        ("[CLS] $A", ["[CLS]"], []),
        ("$A [SEP]", [], ["[SEP]"]),
        ("[MASK] [CLS] $A [SEP]", ["[MASK]", "[CLS]"], ["[SEP]"]),
    ],
)
def test_special_tokens_are_those_of_the_template(template, before, after):
    words = tokenizer()
    ids = [(token, words.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]", "[MASK]")]
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    acting = words.convert_tokens_to_ids("acting")
    first = words.convert_tokens_to_ids(before)
    last = words.convert_tokens_to_ids(after)
    (encoded,) = encode(words, ["acting " * 50], max_length=8)
    size = 8 - len(before) - len(after)
    assert encoded.ids == [*first, *[acting] * size, *last]
    assert all(len(window.ids) <= 8 for window in windows(words, "acting " * 50, 8))
    assert len(spans(words, "acting " * 50, 8)) == 8
    assert encode(words, [""], 8)[0].ids == [*first, *last]


def test_a_text_without_any_token_is_one_special_token():
    words = tokenizer()
    words.cls_token = None
    words.sep_token = None
    assert encode(words, [""], 8)[0].ids == [words.unk_token_id]
    assert spans(words, "", 8) == [(0, 0)]
    assert len(encode(words, ["acting " * 50], 8)[0].ids) == 8
