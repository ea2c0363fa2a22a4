"""Embeddings of texts by the frozen base model as it is served, computed once for each base, window and rows."""

import contextlib
import hashlib
import io
import json
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import pyarrow
import pyarrow.compute
import torch
from tqdm.auto import tqdm

from adapter_arena import files, settings
from adapter_arena.data.rows import Rows, token_ids
from adapter_arena.models import bases, compute, loading, templates, weights
from adapter_arena.models.fast import attention
from adapter_arena.serve.engine import Engine

_BATCH = 32
_CACHE_VERSION = 1


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of some rows, in their order."""

    values: numpy.ndarray
    """float32, shape (rows, width)."""
    seconds: float
    """Duration of computing them, also if they were read from the cache."""


def embed(engine: Engine, rows: Rows, max_length: int, description: str) -> Embeddings:
    """Return the mean of the last layer's states over the tokens of each text, from the cache if they are there.

    Texts are truncated to `max_length` tokens as the adapters' are. `description` is shown at the progress bar.
    """
    path = _cache_path(engine, rows, max_length)
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):  # missing or damaged: computed again
        with numpy.load(path, allow_pickle=False) as saved:
            found = Embeddings(saved["values"], float(saved["seconds"]))
        with contextlib.suppress(OSError):  # a cache that cannot be written
            path.touch()
        return found
    start = time.perf_counter()
    values = _compute(engine, rows, max_length, description)
    computed = Embeddings(values, time.perf_counter() - start)
    _write(path, computed)
    return computed


def base_key(engine: Engine) -> list[str]:
    """Return what decides the numbers that the engine's base computes."""
    weights_sha256 = engine.base.sha256 or weights.sha256(bases.locate(engine.base))
    return [weights_sha256, engine.precision, str(engine.dtype)]


def rows_key(rows: Rows) -> str:
    """Return a hash of the texts of the rows and of their order."""
    positions = rows.index.astype(numpy.int64).tobytes()
    return hashlib.sha256(rows.source.encode("utf-8", "surrogatepass") + positions).hexdigest()


def _cache_path(engine: Engine, rows: Rows, max_length: int) -> Path:
    key = json.dumps([_CACHE_VERSION, *base_key(engine), rows_key(rows), max_length])
    return files.cache_folder() / "embeddings" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"


def _write(path: Path, embeddings: Embeddings) -> None:
    content = io.BytesIO()
    numpy.savez(content, values=embeddings.values, seconds=embeddings.seconds)
    files.write_cache(path, content.getvalue())
    with contextlib.suppress(OSError):  # write_cache has reported it
        files.delete_unused(path.parent)


@torch.inference_mode()
def _compute(engine: Engine, rows: Rows, max_length: int, description: str) -> numpy.ndarray:
    # A skeleton is a model of its own on the same weights, so requests to the engine are not disturbed.
    model = bases.skeleton(engine.model)
    encoder = model.get_encoder() if engine.base.architecture.is_encoder_decoder else model.base_model
    window = min(max_length, loading.position_limit(model), int(settings.get("ARENA_MAX_WINDOW")))
    table = token_ids(engine.tokenizer, rows, window)
    ids = table["ids"]
    has_types = rows.pairs is not None and templates.reads_token_types(model, engine.tokenizer)
    values = None
    with (
        attention.every_token(model),
        compute.autocast(model),
        tqdm(total=len(rows), desc=description, unit="text", dynamic_ncols=True) as bar,
    ):
        for batch in _equal_lengths(ids):
            tokens = _stacked(ids, batch).to(model.device)
            inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
            if has_types:
                inputs["token_type_ids"] = _stacked(table["types"], batch).to(model.device)
            states = encoder(**inputs)[0]
            means = states.float().mean(dim=1).cpu().numpy()
            if values is None:
                values = numpy.empty((len(rows), means.shape[1]), dtype=numpy.float32)
            values[batch] = means
            bar.update(len(batch))
    return values


def _stacked(column: pyarrow.ChunkedArray, batch: numpy.ndarray) -> torch.Tensor:
    """Return these rows of a column of lists of equal length, int64, shape (rows, length)."""
    lists = [column[index].values.to_numpy() for index in batch.tolist()]
    return torch.from_numpy(numpy.stack(lists)).long()


def _equal_lengths(ids: pyarrow.ChunkedArray) -> Iterator[numpy.ndarray]:
    """Yield the positions of rows with equally many tokens, at most `_BATCH` at a time.

    Without padding the mean needs no mask, which some architectures do not keep to their last layer.
    """
    lengths = pyarrow.compute.list_value_length(ids).to_numpy()
    order = numpy.argsort(-lengths, kind="stable")
    ends = numpy.flatnonzero(numpy.diff(lengths[order])) + 1
    for group in numpy.split(order, ends):
        for start in range(0, len(group), _BATCH):
            yield group[start : start + _BATCH]
