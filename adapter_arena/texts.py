"""What is classified: one text, or a pair of texts such as a question and its answer."""

Text = str | tuple[str, str]


def parts(text: Text) -> tuple[str, ...]:
    """Return the one text, or both texts of a pair."""
    return (text,) if isinstance(text, str) else text


def length(text: Text) -> int:
    """Return the number of characters, of both texts of a pair together."""
    return sum(map(len, parts(text)))
