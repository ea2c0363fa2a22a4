"""Names and contents of files that may be compressed: `reviews.CSV.gz` is a .csv file."""

import bz2
import gzip
import io
import lzma
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

import pyarrow

from adapter_arena.errors import shortened_list

SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")
_SYSTEM_FILES = ("__MACOSX/", ".")


def table_suffix(path: Path) -> str:
    """Return the suffix that names the format, in lower case: `.csv` for `DATA.CSV`, `data.csv.gz` and `data.csv.zip`."""
    name = path.name.lower()
    suffix = Path(name).suffix
    if suffix in SUFFIXES:
        inner = Path(Path(name).stem).suffix
        if inner or suffix != ".zip":
            return inner
        return _suffix_in_zip(path)
    return suffix


def is_compressed(path: Path) -> bool:
    """Return whether the last suffix is one of a compressed file."""
    return path.suffix.lower() in SUFFIXES


def open_bytes(path: Path) -> BinaryIO:
    """Open the file for reading, decompressed. Raises OSError, ValueError, lzma.LZMAError or EOFError, also later."""
    openers = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
        ".zst": _open_zst,
        ".zip": _open_zip,
    }
    opener = openers.get(path.suffix.lower())
    return opener(path) if opener else path.open("rb")


@contextmanager
def open_text(path: Path, encoding: str, newline: str | None = None):
    """Open the file as text, decompressed."""
    with open_bytes(path) as file:
        text: TextIO = io.TextIOWrapper(file, encoding=encoding, newline=newline)
        yield text


def _open_zst(path: Path) -> BinaryIO:
    return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))


def _open_zip(path: Path) -> BinaryIO:
    with zipfile.ZipFile(path) as archive:
        return archive.open(_only_member(archive))


def _suffix_in_zip(path: Path) -> str:
    """Return the suffix of the only file in a zip archive, or .zip if it cannot be opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            return Path(_only_member(archive).lower()).suffix
    except (OSError, ValueError, zipfile.BadZipFile):
        return ".zip"


def zip_problem(path: Path) -> str | None:
    """Return why no table can be read from a zip archive, None if one can."""
    try:
        with zipfile.ZipFile(path) as archive:
            _only_member(archive)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        return str(error)
    return None


def _only_member(archive: zipfile.ZipFile) -> str:
    """Return the name of the only file in the archive. Raises ValueError."""
    names = []
    for name in archive.namelist():
        if not name.endswith("/") and not name.startswith(_SYSTEM_FILES):
            names.append(name)
    if len(names) != 1:
        content = shortened_list(names) if names else "no file"
        raise ValueError(f"it must contain one table, and it contains {content}; unpack it into a folder")
    return names[0]
