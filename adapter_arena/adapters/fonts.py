"""Fonts of the pictures: which can draw the names of classes in any script."""

import functools
from collections.abc import Iterable

DEFAULT = "DejaVu Sans"
"""Comes with matplotlib, so every machine draws the same picture."""
_BOXES_ONLY = "Last Resort"
"""A font with a box for each character, which also comes with matplotlib."""


def default_draws(texts: Iterable[str]) -> bool:
    """Return whether the default font has every character of the texts."""
    characters = _visible_characters(texts)
    if all(character.isascii() for character in characters):
        return True  # without the import of matplotlib
    return characters <= characters_of(_default_path())


def families_for(texts: Iterable[str]) -> list[str] | None:
    """Return the font families that together draw the texts: the default one and, if needed, one of this machine.

    None if this machine has no such font.
    """
    texts = list(texts)
    if default_draws(texts):
        return [DEFAULT]
    missing = _visible_characters(texts) - characters_of(_default_path())
    return _families_with(frozenset(missing))


@functools.cache
def _families_with(missing: frozenset[str]) -> list[str] | None:
    from matplotlib import font_manager

    for family in sorted(set(font_manager.get_font_names())):
        if not family.startswith(_BOXES_ONLY) and missing <= characters_of(font_manager.findfont(family)):
            return [DEFAULT, family]
    return None


def _visible_characters(texts: Iterable[str]) -> set[str]:
    return {character for text in texts for character in text if not character.isspace()}


def _default_path() -> str:
    from matplotlib.font_manager import findfont

    return findfont(DEFAULT)


@functools.cache
def characters_of(path: str) -> frozenset[str]:
    """Return the characters that a font file can draw at any size: none for a font of pictures, such as emoji."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # deleted since matplotlib listed it, or damaged
        return frozenset()
    if not font.scalable:
        return frozenset()
    return frozenset(map(chr, font.get_charmap()))
