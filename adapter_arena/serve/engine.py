"""Serve predictions: one base model in 4 bits, many adapters of any PEFT type, batches of several callers.

Each adapter wraps its own skeleton of the base (`bases.skeleton`), so changing the adapter costs nothing. The scheduler
decides which texts are computed next and with which others.
"""

import threading
from collections.abc import Callable
from concurrent.futures import as_completed
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from adapter_arena import machine, settings, tasks
from adapter_arena.adapters import fit, store
from adapter_arena.adapters.store import Adapter
from adapter_arena.errors import AdapterError, ArenaError, RequestError, one_line
from adapter_arena.lru import LRUCache
from adapter_arena.models import (
    bases,
    compute,
    decoders,
    loading,
    peft_patches,
    servable,
    templates,
    tokens,
    truncation,
)
from adapter_arena.models.fast import attention, causal, fused, merging
from adapter_arena.results import Scale
from adapter_arena.serve.checks import text_error
from adapter_arena.serve.merged import MergedCache
from adapter_arena.serve.scheduler import Scheduler, WorkItem
from adapter_arena.serve.served import Prediction, Served, choose
from adapter_arena.texts import Text

ROWS_BEFORE_MERGE = 32
"""Texts after which an adapter is merged: merging takes about as long as eight save, so it pays even if it is evicted soon."""
T = TypeVar("T")


class Engine:
    """One base model and its adapters; every method may be called from any thread."""

    def __init__(
        self,
        base: bases.Base,
        precision: str = "nf4",
        *,
        merged_mb: float | None = None,
        dtype: torch.dtype | None = None,
    ):
        """Load the base model.

        Args:
            base: the base model.
            precision: how its weights are stored: `nf4`, `bf16` or `fp32`.
            merged_mb: memory for merged adapters and for the base's weights in `dtype`; by default ARENA_HOT_MB.
            dtype: the type of the computation, bf16 or fp32; the default is ARENA_COMPUTE, or the faster one here.
        """
        self.base = base
        self.dtype = compute.type_for(base, precision, dtype)
        self.precision = "nf4" if precision == "nf4" else compute.name_of(self.dtype)
        self.tokenizer = loading.load_tokenizer(base)
        self.model = machine.run_in_fresh_thread(self._load_base, precision)
        on_cpu = self.model.device.type == "cpu"
        self._packs_inputs = on_cpu and (
            attention.supports_packed_inputs(self.model) or causal.supports_packed_inputs(self.model)
        )
        self._reads_token_types = templates.reads_token_types(self.model, self.tokenizer)
        self._merged = self._merged_cache(merged_mb)
        self._served: dict[str, Served] = {}
        self._loaded: LRUCache[Served] = LRUCache(1e6 * settings.get("ARENA_LOADED_MB"))
        """Those of `_served` that are loaded and can be loaded again."""
        self._lock = threading.Lock()  # guards the two above and the counts of rows
        self._loading = threading.RLock()
        cores = torch.get_num_threads() if on_cpu else 1
        self._scheduler = Scheduler(cores, settings.get("ARENA_MAX_WAITING"))

    def _load_base(self, precision: str) -> PreTrainedModel:
        return loading.load_model(self.base, precision, dtype=self.dtype).requires_grad_(False)

    def _merged_cache(self, merged_mb: float | None) -> MergedCache:
        """Dequantise the base's weights if they fit the budget; the rest of it is for merged adapters."""
        if self.precision != "nf4":
            return MergedCache(self.model, 0.0)
        if merged_mb is None:
            merged_mb = settings.get("ARENA_HOT_MB")
        base_mb = machine.run_in_fresh_thread(merging.widen, self.model, merged_mb)
        return MergedCache(self.model, merged_mb - base_mb)

    @property
    def compute(self) -> str:
        """Name of the type of the computation: `bf16` or `fp32`."""
        return compute.name_of(self.dtype)

    @property
    def adapters(self) -> list[Adapter]:
        """All adapters, loaded or not, in the order in which they were added."""
        return [served.adapter for served in list(self._served.values())]

    @property
    def waiting(self) -> int:
        """Number of texts that wait to be computed."""
        return self._scheduler.waiting

    @property
    def in_memory(self) -> int:
        """Number of adapters that are loaded, without the untrained base."""
        return len(self._loaded.values())

    @property
    def merged_mb(self) -> float:
        """Memory of the merged adapters in MB (10^6 bytes)."""
        return self._merged.megabytes

    # ------------------------------------------------------------ adapters

    def register(self, adapter: Adapter) -> None:
        """Add an adapter that is loaded by the first request for it; one with the same name is replaced."""
        with self._lock:
            self._loaded.remove(adapter.name)
            self._served[adapter.name] = Served(adapter, None, None)

    def add(self, adapter: Adapter, max_length: int | None = None) -> None:
        """Add and load an adapter; one with the same name is replaced. Raises AdapterError.

        `max_length` is the window in tokens; the default is the one it was trained with. If the loaded adapters exceed
        ARENA_LOADED_MB, the least recently used ones are evicted; a request loads them again.
        """
        load = self._load_full if adapter.is_full else self._load_peft
        try:
            model = machine.run_in_fresh_thread(load, adapter)
        except AdapterError:
            raise
        except Exception as error:
            raise AdapterError(
                f"Adapter {adapter.name} does not fit {self.base.label} ({one_line(error)}). Please train it again."
            ) from error
        self._insert(adapter, model, max_length)
        machine.release_memory(collect=False)  # the content of the files is not needed any more

    def add_folder(self, folder: Path) -> Adapter:
        """Validate, add and load an adapter folder. Raises AdapterError."""
        adapter = store.read(folder, self.base)
        self.add(adapter)
        return adapter

    def add_untrained(
        self,
        name: str,
        labels: list[str],
        seed: int,
        max_length: int,
        task: str = tasks.SINGLE_LABEL,
        scale: Scale | None = None,
    ) -> None:
        """Add the base model with a random head, the baseline of every adapter."""
        model = bases.skeleton(self.model)
        torch.manual_seed(seed)
        loading.reset_head(model, self.base.architecture, len(labels))
        adapter = Adapter(name, Path(), "untrained", self.base.label, labels, None, task=task, scale=scale)
        self._insert(adapter, model, max_length)

    def remove(self, name: str) -> None:
        """Remove an adapter; texts that wait for it are still answered."""
        with self._lock:
            self._loaded.remove(name)
            self._served.pop(name, None)
        self._merged.remove(name)

    def get(self, name: str | None) -> Served:
        """Return the adapter, or the first one if `name` is None or empty; load it if it is not loaded.

        It is loaded in the caller's thread, while requests for other adapters are answered. Raises RequestError if there
        is no such adapter, AdapterError if it cannot be loaded.
        """
        served = choose(dict(self._served), name)
        return self._load(served.adapter.name)

    def merge(self, name: str) -> bool:
        """Merge an adapter now; return False if it cannot be merged or exceeds the budget. Raises the errors of `get`.

        Without this an adapter is merged after ROWS_BEFORE_MERGE texts.
        """
        return machine.run_in_fresh_thread(self._merged.merge, self.get(name))

    def _load(self, name: str) -> Served:
        served = self._served.get(name)
        if served and served.model is None:
            with self._loading:
                served = self._served.get(name)  # another caller may have loaded it
                if served and served.model is None:
                    self.add(served.adapter, served.max_length)
                    served = self._served.get(name)
        if served is None:
            raise RequestError(f"Adapter {name} was just removed. Choose another one, or load it again.")
        self._loaded.get(name)  # it is the most recently used one now
        return served

    def _insert(self, adapter: Adapter, model: PreTrainedModel | PeftModel, max_length: int | None) -> None:
        """Add a loaded adapter, and evict others if the memory is exceeded."""
        positions = loading.position_limit(self.model) - servable.virtual_tokens(model)
        window = min(positions, int(settings.get("ARENA_MAX_WINDOW")))
        length = min(max_length or adapter.max_length or window, window)
        served = Served(adapter, model.eval().requires_grad_(False), length)
        with self._lock:
            self._served[adapter.name] = served
            if adapter.size == 0:
                return  # the untrained base has no files from which it could be loaded again
            for evicted in self._loaded.put(adapter.name, served, adapter.size):
                # A new object: requests that wait still use the old one with its model.
                self._served[evicted.adapter.name] = Served(evicted.adapter, None, evicted.max_length)
                self._merged.remove(evicted.adapter.name)

    def _load_peft(self, adapter: Adapter) -> PeftModel:
        skeleton = bases.skeleton(self.model)
        loading.reset_head(skeleton, self.base.architecture, len(adapter.labels))
        model = fit.attach(skeleton, adapter.fit, adapter.folder)
        peft_patches.cache_dora_norms(model)
        if self.dtype == torch.bfloat16:
            return peft_patches.skip_input_casts(model)
        return model

    def _load_full(self, adapter: Adapter) -> PreTrainedModel:
        attention_name = loading.attention_implementation(self.base)
        model = fit.load_full(adapter.fit, adapter.folder, self.base, attn_implementation=attention_name)
        if self.base.architecture.pools_last_token:
            decoders.prepare(model, self.base.architecture, self.tokenizer.pad_token_id)
        return compute.prepare(attention.first_token_only(model), self.dtype)

    # ------------------------------------------------------------ predictions

    def predict(
        self,
        texts: list[Text],
        adapter: str | None = None,
        whole_text: bool = False,
        watch: Callable[[int, int], None] | None = None,
    ) -> list[Prediction | ArenaError]:
        """Return an answer for each text in order; for a text that cannot be answered, the error.

        Args:
            texts: the texts, or a tuple of two texts for each pair.
            adapter: a name from `adapters`; the default is the first.
            whole_text: read a text that exceeds the adapter's window in several windows and average their
                probabilities; otherwise such a text is truncated in the middle. Of a pair, the longer text is read in windows.
            watch: called in this thread with the numbers of finished and of all windows.

        Raises RequestError if there is no such adapter, BusyError if too many texts wait.
        """
        served = self.get(adapter)
        answers: list[Prediction | ArenaError] = []
        for windows in self._compute(texts, served, whole_text, watch):
            if isinstance(windows, ArenaError):
                answers.append(windows)
            else:
                answers.append(_prediction(served, windows))
        return answers

    def logits(self, texts: list[Text], adapter: str | None = None) -> torch.Tensor:
        """Return raw logits, float32, shape (len(texts), labels). Raises the error of the first text that has one."""
        logits = []
        for windows in self._compute(texts, self.get(adapter)):
            if isinstance(windows, ArenaError):
                raise windows
            logits.append(windows[0].future.result())
        return torch.stack(logits)

    def encode(self, texts: list[Text], adapter: str | None = None) -> list[truncation.Encoded]:
        """Return the token ids of each text or pair as the adapter reads it."""
        return tokens.encode(self.tokenizer, texts, self.get(adapter).max_length)

    def run_exclusively(self, function: Callable[[], T]) -> T:
        """Return the result of `function`, which runs between batches, while no other pass does.

        All requests wait for it, so split long work into several calls. Raises RequestError if it fails.
        """
        future = self._scheduler.call(function)
        if error := future.exception():
            raise _failure(error) from error
        return future.result()

    @torch.inference_mode()
    def forward(self, served: Served, rows: list[truncation.Encoded]) -> torch.Tensor:
        """Return raw logits, float32, shape (rows, labels); call it only through the scheduler or `run_exclusively`."""
        model = self._merged.get(served) or served.model
        ids = [row.ids for row in rows]
        types = self.token_types(rows)
        if isinstance(model, fused.Classifier):
            return model(ids, types).float().cpu()
        if self._packs_inputs and not servable.virtual_tokens(model):
            inputs = self._packed_inputs(ids, types)
        else:
            inputs = self._padded_inputs(ids, types)
        with compute.autocast(self.model):
            return model(**inputs).logits.float().cpu()

    def close(self) -> None:
        """Finish what waits; later requests raise RequestError."""
        self._scheduler.close()

    def _packed_inputs(self, rows: list[list[int]], types: list[list[int]] | None) -> dict:
        if causal.supports_packed_inputs(self.model):
            return causal.packed_inputs(rows)
        return attention.packed_inputs(self.model, rows, types)

    def token_types(self, rows: list[truncation.Encoded]) -> list[list[int]] | None:
        """Return the token types of each row; None if all are 0 or the model has no types."""
        if not self._reads_token_types or not any(row.types for row in rows):
            return None
        return [row.types or [0] * len(row.ids) for row in rows]

    def _padded_inputs(self, rows: list[list[int]], types: list[list[int]] | None) -> dict[str, torch.Tensor]:
        inputs = {
            "input_ids": _padded(rows, self.tokenizer.pad_token_id),
            "attention_mask": _padded([[1] * len(row) for row in rows], 0),
        }
        if types is not None:
            inputs["token_type_ids"] = _padded(types, 0)
        return {name: values.to(self.model.device) for name, values in inputs.items()}

    def _compute(
        self,
        texts: list[Text],
        served: Served,
        whole_text: bool = False,
        watch: Callable[[int, int], None] | None = None,
    ) -> list["list[_Window] | ArenaError"]:
        """Return for each text its windows, whose futures have the logits, or the error."""
        results: list[list[_Window] | ArenaError | None] = []
        valid: dict[int, Text] = {}
        for i, text in enumerate(texts):
            error = text_error(text, served.adapter)
            results.append(error)
            if error is None:
                valid[i] = text
        if not valid:
            return results
        self._scheduler.check_room(len(valid))  # before they are tokenised, which takes time as well
        all_windows = []
        if whole_text:
            encoded = [tokens.windows(self.tokenizer, text, served.max_length) for text in valid.values()]
        else:
            encoded = [[row] for row in tokens.encode(self.tokenizer, list(valid.values()), served.max_length)]
        for i, rows in zip(valid, encoded):
            results[i] = [_Window(self, served, row) for row in rows]
            all_windows.extend(results[i])
        self._scheduler.submit(all_windows)
        try:
            _report_progress(all_windows, watch)
            for i in valid:
                if error := _first_error(results[i]):
                    results[i] = _failure(error)
        except BaseException:  # the caller gave up, by Ctrl-C for example: do not compute the rest
            for window in all_windows:
                window.future.cancel()
            raise
        return results

    def _count_rows(self, served: Served, rows: int) -> None:
        """Merge the adapter in the background if it is in demand."""
        with self._lock:
            served.rows += rows
            if served.rows < ROWS_BEFORE_MERGE:
                return
            served.rows = 0
        if self._merged.get(served) is None:
            self._start_merge(served)

    def _start_merge(self, served: Served) -> None:
        with suppress(RuntimeError):  # no thread can be started: tried again after as many texts
            threading.Thread(target=self._merged.merge, args=(served,), name="merge", daemon=True).start()


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    """Return the rows with `value` after the end of the shorter ones, shape (rows, longest)."""
    padded = torch.full((len(rows), max(map(len, rows))), value)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = torch.tensor(row)
    return padded


class _Window(WorkItem):
    """A text, or one window of a long text, whose `future` gets its logits, shape (labels,)."""

    def __init__(self, engine: Engine, served: Served, encoded: truncation.Encoded):
        super().__init__(key=served, tokens=len(encoded.ids))
        self.engine = engine
        self.served = served
        self.encoded = encoded

    @property
    def splits(self) -> bool:
        """Only a merged adapter: every batch of another one dequantises the base."""
        return isinstance(self.engine._merged.get(self.served), fused.Classifier)

    def run(self, batch: list["_Window"]) -> None:
        """Compute the logits of the batch in one pass."""
        logits = self.engine.forward(self.served, [window.encoded for window in batch])
        finite = logits.isfinite().all(dim=1).tolist()
        for window, row, is_finite in zip(batch, logits, finite):
            if is_finite:
                window.succeed(row)
            else:
                window.fail(ArithmeticError("its output is not a number"))
        self.engine._count_rows(self.served, len(batch))


def _report_progress(windows: list[_Window], watch: Callable[[int, int], None] | None) -> None:
    """Wait for all windows and report the progress, if `watch` is set; otherwise the results are waited for later."""
    if watch is None:
        return
    futures = [window.future for window in windows]
    for done, _ in enumerate(as_completed(futures), start=1):
        watch(done, len(futures))


def _first_error(windows: list[_Window]) -> BaseException | None:
    """Wait for the windows of a text; return the first error, if there is one."""
    for window in windows:
        if error := window.future.exception():
            return error
    return None


def _prediction(served: Served, windows: list[_Window]) -> Prediction:
    """Return the mean over the windows of a text."""
    logits = torch.stack([window.future.result() for window in windows])
    scores = served.scores(logits).mean(0).tolist()
    return Prediction(
        **served.answer(scores),
        adapter=served.adapter.name,
        tokens=sum(window.tokens for window in windows),
        truncated=windows[0].encoded.truncated,
    )


def _failure(error: BaseException) -> RequestError:
    return RequestError(f"The model failed on this text ({error}). Try another text or adapter.")
