"""Find out how a text file is encoded."""

import codecs
from pathlib import Path

from adapter_arena.data.compressed import open_bytes

_BLOCK_SIZE = 1 << 20
_CONTROL_CHARACTERS = bytes({*range(32), 127} - {*b"\t\n\v\f\r\x1b"})
_NAMES = {"cp1252": "Windows-1252", "latin-1": "Latin-1"}


def detect_encoding(path: Path) -> str | None:
    """Return `utf-16`, `utf-8-sig`, `cp1252` or `latin-1`, or None if the file is not text.

    UTF-16 (Excel's "Unicode text") is recognised by its byte-order mark. Latin-1 can decode any bytes, so it comes last.
    """
    if starts_with_utf16_mark(path):
        return "utf-16"
    if _is_binary(path):
        return None
    for encoding in ("utf-8-sig", "cp1252"):
        if _decodes(path, encoding):
            return encoding
    return "latin-1"


def starts_with_utf16_mark(path: Path) -> bool:
    """Return whether the file, decompressed, begins with the byte-order mark of UTF-16."""
    with open_bytes(path) as file:
        return file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def encoding_notes(path: Path, encoding: str) -> list[str]:
    """Return a note for the user if the encoding is only a guess."""
    name = _NAMES.get(encoding)
    if name is None:
        return []
    return [f"{path.name} is not UTF-8: it was read as {name}. If letters look wrong, save it as UTF-8."]


def _is_binary(path: Path) -> bool:
    """Return whether the file has a zero byte, or control characters among more than 1 % of its bytes."""
    controls = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_SIZE):
            if b"\0" in block:
                return True
            controls += len(block) - len(block.translate(None, _CONTROL_CHARACTERS))
    return controls > path.stat().st_size / 100


def _decodes(path: Path, encoding: str) -> bool:
    try:
        with path.open(encoding=encoding, newline="") as file:
            while file.read(_BLOCK_SIZE):
                pass
    except UnicodeDecodeError:
        return False
    return True
