from conftest import tokenizer

from peft_arena.tokens import encode


def test_long_texts_keep_head_and_tail():
    words = tokenizer()
    text = " ".join(["acting"] * 50 + ["awful"] * 50)
    (encoded,) = encode(words, [text], max_length=22)
    acting, awful = words.convert_tokens_to_ids(["acting", "awful"])
    assert encoded.truncated
    assert encoded.ids == [words.cls_token_id, *[acting] * 5, *[awful] * 15, words.sep_token_id]


def test_short_texts_are_whole():
    words = tokenizer()
    (encoded,) = encode(words, ["The acting is superb ."], max_length=64)
    assert not encoded.truncated
    assert words.decode(encoded.ids) == "[CLS] the acting is superb . [SEP]"


def test_a_million_characters_keep_the_last_words():
    words = tokenizer()
    (encoded,) = encode(words, ["x" * 1_000_000 + " the acting is awful"], max_length=32)
    assert encoded.truncated
    assert words.decode(encoded.ids).endswith("the acting is awful [SEP]")
