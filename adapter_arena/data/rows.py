"""Rows on disk: read once, tokenised once, memory-mapped, cached by content.

A dataset may be larger than memory. Which of its rows are used is decided by a label and a hash of each
text; the texts stay in an Arrow file that the system pages in while they are read, and so do their token ids.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy
import pandas
import pyarrow
import pyarrow.compute
from transformers import PreTrainedTokenizerBase

from adapter_arena.errors import DataError
from adapter_arena.files import cache_folder
from adapter_arena.models import tokens

_DAYS = 30
"""A file of the cache that was not used for so long is deleted when another is written."""
_VERSION = 1
_PARALLEL = "TOKENIZERS_PARALLELISM"


@dataclass(frozen=True)
class Rows:
    """Some rows of a table of texts, in its order."""

    texts: pyarrow.ChunkedArray
    """Of the whole table."""
    index: numpy.ndarray
    """The rows' places in it, ascending."""
    labels: numpy.ndarray
    """Index into the label names of each row."""
    source: str
    """What the table holds: its content's hash and how that was read."""

    @classmethod
    def of(cls, frame: pandas.DataFrame) -> "Rows":
        """The rows of a frame with columns `text` and `label`."""
        texts = pyarrow.chunked_array([pyarrow.array(frame["text"].tolist(), pyarrow.large_string())])
        source = hashlib.sha256(repr(frame["text"].tolist()).encode("utf-8", "surrogatepass")).hexdigest()
        return cls(texts, numpy.arange(len(frame)), frame["label"].to_numpy(), source)

    def __len__(self) -> int:
        return len(self.index)

    def parts(self) -> Iterator[list[str]]:
        """The texts, some thousands at a time."""
        start = 0
        for chunk in self.texts.chunks:
            first, last = numpy.searchsorted(self.index, [start, start + len(chunk)])
            if first < last:
                yield chunk.take(pyarrow.array(self.index[first:last] - start)).to_pylist()
            start += len(chunk)

    def frame(self) -> pandas.DataFrame:
        """A frame in memory with columns `text` and `label`."""
        texts = [text for part in self.parts() for text in part]
        return pandas.DataFrame({"text": pandas.Series(texts, dtype="str"), "label": self.labels})


def table(source: str, frames: Callable[[], Iterable[pandas.DataFrame]]) -> pyarrow.Table:
    """All rows of `frames` (columns `text` and `label`, strings): `text` stripped, null if empty, `label` and `key`.

    They are read only where nothing is kept under `source`. The key is a hash of 64 bits: that two different
    texts among 4 million share one has a chance of one in two million.
    """
    schema = pyarrow.schema({"text": pyarrow.large_string(), "label": pyarrow.string(), "key": pyarrow.uint64()})

    def batches() -> Iterator[pyarrow.RecordBatch]:
        for frame in frames():
            text = frame["text"].str.strip()
            columns = [
                pyarrow.array(text.to_numpy(object), pyarrow.large_string(), mask=(text == "").to_numpy(bool)),
                pyarrow.array(frame["label"].tolist(), pyarrow.string()),
                pyarrow.array(pandas.util.hash_pandas_object(text, index=False, categorize=False).to_numpy()),
            ]
            yield pyarrow.record_batch(columns, schema=schema)

    return _kept(["rows", source], schema, batches)


def token_ids(tokenizer: PreTrainedTokenizerBase, rows: Rows, max_length: int) -> pyarrow.ChunkedArray:
    """Each row's ids as `tokens.encode` gives them, memory-mapped."""
    schema = pyarrow.schema({"ids": pyarrow.list_(pyarrow.int32())})
    words = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    places = hashlib.sha256(rows.index.astype(numpy.int64).tobytes()).hexdigest()

    def batches() -> Iterator[pyarrow.RecordBatch]:
        for texts in rows.parts():
            with _all_cores():
                ids = [row.ids for row in tokens.encode(tokenizer, texts, max_length)]
            yield pyarrow.record_batch([pyarrow.array(ids, pyarrow.list_(pyarrow.int32()))], schema=schema)

    return _kept(["tokens", rows.source, places, words, max_length], schema, batches)["ids"]


@contextmanager
def _all_cores() -> Iterator[None]:
    """Have `tokenizers` use every core; train_space.py tells it not to, lest it warns of processes that fork."""
    before = os.environ.get(_PARALLEL)
    os.environ[_PARALLEL] = "true"
    try:
        yield
    finally:
        os.environ[_PARALLEL] = "false" if before is None else before


def _kept(key: list, schema: pyarrow.Schema, batches: Callable[[], Iterable[pyarrow.RecordBatch]]) -> pyarrow.Table:
    """The table kept under that key, memory-mapped; made of `batches` where there is none. Raises DataError."""
    folder = cache_folder() / "rows"
    path = folder / f"{hashlib.sha256(repr([_VERSION, *key]).encode()).hexdigest()[:32]}.arrow"
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _forget_unused(folder)
            _write(path, schema, batches())
        except OSError as error:
            raise DataError(
                f"The rows cannot be kept in {folder} ({error.strerror or error}): free some space, or set ARENA_CACHE "
                "to a folder that has it."
            ) from error
    os.utime(path)
    with pyarrow.memory_map(str(path)) as file:
        return pyarrow.ipc.open_file(file).read_all()


def _write(path: Path, schema: pyarrow.Schema, batches: Iterable[pyarrow.RecordBatch]) -> None:
    """Whole or not at all, also while another process writes the same."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    os.close(handle)
    try:
        with pyarrow.OSFile(name, "wb") as file, pyarrow.ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _forget_unused(folder: Path) -> None:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process has deleted or renamed it meanwhile
            if path.stat().st_mtime < time.time() - _DAYS * 24 * 3600:
                path.unlink()
