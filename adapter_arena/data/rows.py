"""Rows on disk: read once, tokenised once, memory-mapped, cached by content.

A dataset may be larger than memory. A label and a hash of the text decide which rows are used; the texts and their
token ids stay in Arrow files, which the operating system pages in as they are read.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy
import pandas
import pyarrow
import pyarrow.compute
from transformers import PreTrainedTokenizerBase

from adapter_arena.data import pairs
from adapter_arena.errors import DataError
from adapter_arena.files import cache_folder, delete_unused, write_atomic
from adapter_arena.models import tokens
from adapter_arena.texts import Text, parts

_CACHE_VERSION = 4
_PARALLELISM = "TOKENIZERS_PARALLELISM"
_TABLE = pyarrow.schema(
    {
        "text": pyarrow.large_string(),
        "pair": pyarrow.large_string(),
        "label": pyarrow.string(),
        "key": pyarrow.uint64(),
    }
)
_TOKEN_IDS = pyarrow.schema({"ids": pyarrow.list_(pyarrow.int32()), "types": pyarrow.list_(pyarrow.int8())})

Batches = Callable[[], Iterable[pyarrow.RecordBatch]]


@dataclass(frozen=True)
class Rows:
    """Some rows of a table of texts, in the table's order."""

    texts: pyarrow.ChunkedArray
    """The texts of the complete table."""
    index: numpy.ndarray
    """Positions of the rows in the table, ascending."""
    labels: numpy.ndarray
    """Label of each row, as an index into the label names."""
    source: str
    """Decides the content of the table: the hash of the data and how they were read."""
    pairs: pyarrow.ChunkedArray | None = None
    """The second texts of the complete table; None if the rows are single texts."""

    @classmethod
    def from_frame(cls, frame: pandas.DataFrame) -> "Rows":
        """Return all rows of a frame with columns `text`, a string or a pair of strings, and `label`."""
        texts = frame["text"].tolist()
        source = hashlib.sha256(repr(texts).encode("utf-8", "surrogatepass")).hexdigest()
        columns = [_chunked(column) for column in zip(*map(parts, texts))]
        first = columns[0] if columns else _chunked([])
        second = columns[1] if len(columns) > 1 else None
        return cls(first, numpy.arange(len(frame)), frame["label"].to_numpy(), source, second)

    def __len__(self) -> int:
        return len(self.index)

    def iter_texts(self) -> Iterator[list[Text]]:
        """Yield the texts, some thousands at a time."""
        start = 0
        for number, chunk in enumerate(self.texts.chunks):
            first, last = numpy.searchsorted(self.index, [start, start + len(chunk)])
            if first < last:
                positions = pyarrow.array(self.index[first:last] - start)
                texts = chunk.take(positions).to_pylist()
                if self.pairs is not None:  # read in the same chunks
                    texts = list(zip(texts, self.pairs.chunk(number).take(positions).to_pylist()))
                yield texts
            start += len(chunk)

    def frame(self) -> pandas.DataFrame:
        """Return a frame in memory with columns `text`, a string or a pair of strings, and `label`."""
        texts = [text for batch in self.iter_texts() for text in batch]
        text_type = "str" if self.pairs is None else object
        return pandas.DataFrame({"text": pandas.Series(texts, dtype=text_type), "label": self.labels})


def _chunked(texts: Iterable[str]) -> pyarrow.ChunkedArray:
    return pyarrow.chunked_array([pyarrow.array(texts, pyarrow.large_string())])


def load_table(
    source: str, frames: Callable[[], Iterable[pandas.DataFrame]], notes: list[str] | None = None
) -> pyarrow.Table:
    """Return the rows of `frames` with columns `text`, `pair` (stripped, null if empty), `label` and `key`. Raises DataError.

    The frames have columns `text`, `label` and, for pairs, `pair`, all strings; they are only read if nothing is cached
    for `source`. The key is a 64-bit hash of the text, or of both texts of a pair: the chance that two of 4 million
    different texts share one is one in two million.

    `frames` may append to `notes`; what it appended is cached too, and appended if the rows are not read again.
    """
    notes = [] if notes is None else notes

    def batches() -> Iterator[pyarrow.RecordBatch]:
        for frame in frames():
            text = frame["text"].str.strip()
            pair = frame["pair"].str.strip() if "pair" in frame else None
            content = text if pair is None else pairs.joined(text, pair)
            keys = pandas.util.hash_pandas_object(content, index=False, categorize=False)
            columns = pandas.DataFrame({"text": text.mask(text == ""), "label": frame["label"], "key": keys})
            columns["pair"] = None if pair is None else pair.mask(pair == "")
            yield from pyarrow.Table.from_pandas(columns, schema=_TABLE, preserve_index=False).to_batches()

    return _load_cached(["rows", source], _TABLE, batches, notes)


def token_ids(tokenizer: PreTrainedTokenizerBase, rows: Rows, max_length: int) -> pyarrow.Table:
    """Return the `ids` and the token `types` of each row as from `tokens.encode`, memory-mapped. Raises DataError."""
    positions = hashlib.sha256(rows.index.astype(numpy.int64).tobytes()).hexdigest()

    def batches() -> Iterator[pyarrow.RecordBatch]:
        for texts in rows.iter_texts():
            with _all_cores():
                encoded = tokens.encode(tokenizer, texts, max_length)
            ids = pyarrow.array([row.ids for row in encoded], _TOKEN_IDS.field("ids").type)
            types = pyarrow.array([row.types for row in encoded], _TOKEN_IDS.field("types").type)
            yield pyarrow.record_batch([ids, types], schema=_TOKEN_IDS)

    return _load_cached(["tokens", rows.source, positions, _tokenizer_hash(tokenizer), max_length], _TOKEN_IDS, batches)


def _tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of everything that decides the token ids of a text."""
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    for name in ("truncation", "padding"):  # set by each call, and so other after the first one
        del settings[name]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


@contextmanager
def _all_cores() -> Iterator[None]:
    """Let `tokenizers` use every core; the trainer turns this off because of its warnings in forked processes."""
    before = os.environ.get(_PARALLELISM, "false")
    os.environ[_PARALLELISM] = "true"
    try:
        yield
    finally:
        os.environ[_PARALLELISM] = before


# ---------------------------------------------------------------- the cache
# Own code and not `datasets`, as measured on 300,000 rows of a CSV file: `Dataset.from_generator` takes 6.2 s of CPU time
# for the same table, this 1.5 s; `Dataset.map` tokenises as fast, but with a peak of 87 MB of memory, this with 71 MB.
# `load_dataset("csv")` takes 0.3 s, but it reads short rows, numbers and missing cells in another way than `tables`.


def _load_cached(key: list, schema: pyarrow.Schema, batches: Batches, notes: list[str] | None = None) -> pyarrow.Table:
    """Return the table cached under that key, memory-mapped; it is made of `batches` if missing. Raises DataError.

    What `batches` appends to `notes` is cached beside it.
    """
    folder = cache_folder() / "rows"
    name = hashlib.sha256(repr([_CACHE_VERSION, *key]).encode()).hexdigest()[:32]
    path = folder / f"{name}.arrow"
    notes_path = folder / f"{name}.json"
    known_notes = len(notes or [])
    if path.is_file():
        if notes is not None and notes_path.is_file():
            notes += json.loads(notes_path.read_text())
            os.utime(notes_path)
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            delete_unused(folder)
            _write(path, schema, batches())
            if notes and notes[known_notes:]:
                write_atomic(notes_path, json.dumps(notes[known_notes:]))
        except OSError as error:
            raise DataError(
                f"The rows cannot be cached in {folder} ({error.strerror or error}): free some space, or set "
                "ARENA_CACHE to a folder that has enough."
            ) from error
    os.utime(path)
    with pyarrow.memory_map(str(path)) as file:
        return pyarrow.ipc.open_file(file).read_all()


def _write(path: Path, schema: pyarrow.Schema, batches: Iterable[pyarrow.RecordBatch]) -> None:
    """Write the file completely or not at all, even if another process writes the same file."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    os.close(handle)
    try:
        with pyarrow.OSFile(name, "wb") as file, pyarrow.ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
