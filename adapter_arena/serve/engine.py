"""Serve predictions: one base in 4 bits, many adapters of any PEFT type, grouped batches.

Every adapter wraps its own skeleton (bases.skeleton) of the one base, so switching is no operation
at all. All callers put their texts into one queue; one worker takes some of each caller's, groups them by
adapter and length, and hands each group to a core, or a lone one to all of them.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TypeVar

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from adapter_arena import machine, settings
from adapter_arena.adapters import store
from adapter_arena.adapters.store import Adapter
from adapter_arena.errors import AdapterError, ArenaError, BusyError, RequestError, one_line, unknown
from adapter_arena.models import bases, compute, methods, tokens
from adapter_arena.models.fast import attention, fused
from adapter_arena.serve import merging
from adapter_arena.serve.served import Prediction, Served

# Tokens (rows x longest row) in one forward: more gains no speed on two cores and costs memory.
MAX_BATCH_TOKENS = 8192
SHARE_TOKENS = 2048
"""What one caller gets before the others have their turn: about a quarter of a second on two cores."""
LANE_TOKENS = 512
"""What a core that computes alone is given at least: fewer make its products slow."""
HOT_ROWS = 32
"""Rows after which an adapter is merged: merging costs about what eight save, so it pays even where it is soon undone."""
T = TypeVar("T")
_LOG = logging.getLogger(__name__)


@dataclass
class _Job:
    """One text waiting for its logits."""

    served: Served
    encoded: tokens.Encoded
    future: Future


class _Request:
    """One caller's texts, which are taken in shares so that the others are answered between."""

    def __init__(self, jobs: list[_Job]):
        self.jobs = deque(sorted(jobs, key=lambda job: -len(job.encoded.ids)))
        self.futures = [job.future for job in jobs]

    def take(self, room: int) -> list[_Job]:
        """The longest texts that are left, at most `room` tokens with padding but at least one."""
        longest = len(self.jobs[0].encoded.ids)
        return [self.jobs.popleft() for _ in range(min(len(self.jobs), max(1, room // longest)))]


@dataclass
class _Call:
    """A function waiting for its turn on the worker."""

    function: Callable[[], object]
    future: Future

    @property
    def futures(self) -> list[Future]:
        return [self.future]


class Engine:
    """One base model and the adapters on it; every method may be called from any thread."""

    def __init__(
        self,
        base: bases.Base,
        precision: str = "nf4",
        hot_mb: float | None = None,
        dtype: torch.dtype | None = None,
    ):
        """Load the base.

        `precision` is how it is held: `nf4`, `bf16` or `fp32`. `dtype` is the type it computes in, bf16 or fp32; the
        faster one of this machine, or `ARENA_COMPUTE`, if None. `hot_mb` is the memory for merged adapters and for the
        base's weights in `dtype`; `ARENA_HOT_MB` if None.
        """
        machine.reuse_memory()  # else 40 % of the time goes into page faults
        self.base = base
        self.dtype = bases.compute_type(base, precision, dtype)
        self.precision = "nf4" if precision == "nf4" else compute.name_of(self.dtype)
        self.tokenizer = bases.load_tokenizer(base)
        self.model = machine.run_in_fresh_thread(self._load_base, precision)
        self._reads_flat = attention.is_lean(self.model) and self.model.device.type == "cpu"
        room = 0.0
        if precision == "nf4":
            room = merging.budget_mb() if hot_mb is None else hot_mb
        self._hot = merging.MergedCache(self.model, room - machine.run_in_fresh_thread(merging.widen, self.model, room))
        self._served: dict[str, Served] = {}
        self._lock, self._loading = threading.Lock(), threading.RLock()
        self._budget = 1e6 * settings.number("ARENA_LOADED_MB")
        # A lone batch is computed by all cores together; of several each core takes its own, since waiting for each
        # other after every product takes longer, and far longer when something else runs beside them.
        self._cores = torch.get_num_threads() if self.model.device.type == "cpu" else 1
        self._lanes = self._new_lanes()
        self._free = threading.Semaphore(self._cores)
        self._closed = False
        self._waiting, self._most_waiting = 0, settings.number("ARENA_MAX_WAITING")
        self._queue: queue.SimpleQueue[_Request | _Call | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="engine", daemon=True).start()

    @property
    def compute(self) -> str:
        """Name of the type it computes in: `bf16` or `fp32`."""
        return compute.name_of(self.dtype)

    def _load_base(self, precision: str) -> PreTrainedModel:
        return bases.load_model(self.base, precision, dtype=self.dtype).requires_grad_(False)

    def _new_lanes(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._cores, "lane", machine.compute_alone)

    @property
    def adapters(self) -> list[Adapter]:
        """The adapters that can be asked, in the order they were added."""
        return [served.adapter for served in list(self._served.values())]

    @property
    def waiting(self) -> int:
        """Texts that wait for their turn."""
        return self._waiting

    @property
    def in_memory(self) -> int:
        """Adapters that are loaded."""
        return sum(served.model is not None for served in list(self._served.values()))

    @property
    def merged_mb(self) -> float:
        """Memory that merged copies of adapters take, 10^6 bytes."""
        return self._hot.megabytes

    def offer(self, adapter: Adapter) -> None:
        """Have an adapter loaded when it is first asked; one of the same name is replaced."""
        with self._lock:
            self._served[adapter.name] = Served(adapter, None, None)

    def remove(self, name: str) -> None:
        """Offer an adapter no longer; what waits for it is answered still."""
        with self._lock:
            self._served.pop(name, None)
        self._hot.forget(name)

    def add(self, adapter: Adapter, max_length: int | None = None) -> None:
        """Load an adapter; one of the same name is replaced. Raises AdapterError and serves on.

        `max_length` is the window in tokens; None for the one it was trained with. Those asked longest ago make
        room where the weights of all that are loaded exceed ARENA_LOADED_MB (2000); they are loaded again when asked.
        """
        try:
            model = machine.run_in_fresh_thread(self._load_full if adapter.is_full else self._load_peft, adapter)
        except Exception as error:
            raise AdapterError(
                f"Adapter {adapter.name} does not fit {self.base.label}: {one_line(error)}. Train it again."
            ) from error
        self._put(adapter, model, max_length)
        machine.release_memory(collect=False)  # the files' bytes, which are not needed again

    def close(self) -> None:
        """Let the worker finish what waits and end; the engine answers nothing after."""
        with self._lock:
            self._closed = True
            self._queue.put(None)

    def add_folder(self, folder: Path) -> Adapter:
        """Validate and load an adapter folder. Raises AdapterError."""
        adapter = store.read(folder, self.base)
        self.add(adapter)
        return adapter

    def add_untrained(self, name: str, labels: list[str], seed: int, max_length: int) -> None:
        """Add the base with a random head, the baseline that every adapter is compared with."""
        model = bases.skeleton(self.model)
        torch.manual_seed(seed)
        bases.reset_head(model, self.base.architecture, len(labels))
        adapter = Adapter(name, Path(), "untrained", self.base.label, labels, None)
        self._put(adapter, model.eval(), max_length)

    def predict(
        self,
        texts: list[str],
        adapter: str | None = None,
        whole_text: bool = False,
        watch: Callable[[int, int], None] | None = None,
    ) -> list[Prediction | ArenaError]:
        """Answers in the order of `texts`; a text that cannot be answered has an error in its place.

        `adapter` is a name from `adapters`, the first when None. A text beyond the adapter's window is cut in
        the middle or, for `whole_text`, read in windows whose probabilities are averaged. `watch` is told, in the
        caller's thread, how many passes over a text are done and how many there are. Raises RequestError when the
        adapter is none, BusyError when too many texts wait.
        """
        served = self.find(adapter)
        return [
            item if isinstance(item, ArenaError) else self._prediction(served, item)
            for item in self._run(texts, served, whole_text, watch)
        ]

    def logits(self, texts: list[str], adapter: str | None = None) -> torch.Tensor:
        """Raw logits, float32, shape (len(texts), labels). Raises the first text's error if there is one."""
        rows = self._run(texts, self.find(adapter))
        for row in rows:
            if isinstance(row, ArenaError):
                raise row
        return torch.stack([job.future.result() for [job] in rows])

    def encode(self, texts: list[str], adapter: str | None = None) -> list[tokens.Encoded]:
        """The token ids of each text as the adapter reads it."""
        return tokens.encode(self.tokenizer, texts, self.find(adapter).max_length)

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns on the worker, between batches: no other pass runs beside it or shares its rows.

        Every request waits meanwhile, so long work is to be handed over in pieces. Raises RequestError.
        """
        call = _Call(function, Future())
        self._enqueue(call)
        if error := call.future.exception():
            raise _failed(error) from error
        return call.future.result()

    @torch.inference_mode()
    def forward(self, served: Served, rows: list[tokens.Encoded]) -> torch.Tensor:
        """Raw logits, float32, shape (rows, labels), of one pass; for the worker alone, see `call`."""
        model = self._hot.find(served) or served.model
        if isinstance(model, fused.Classifier):
            return model([row.ids for row in rows]).float().cpu()
        if self._reads_flat and not methods.virtual_tokens(model):
            inputs = attention.flat(self.model, [row.ids for row in rows])
        else:
            longest = max(len(row.ids) for row in rows)
            ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id)
            mask = torch.zeros_like(ids)
            for i, row in enumerate(rows):
                ids[i, : len(row.ids)] = torch.tensor(row.ids)
                mask[i, : len(row.ids)] = 1
            device = self.model.device
            inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        with bases.autocast(self.model):
            return model(**inputs).logits.float().cpu()

    def heat(self, name: str) -> bool:
        """Merge an adapter now instead of after its first answer; False where it cannot be, or not in the budget.

        Raises RequestError.
        """
        return machine.run_in_fresh_thread(self._hot.heat, self.find(name))

    def find(self, name: str | None) -> Served:
        """The adapter of that name, the first when None or empty, in memory. Raises RequestError, AdapterError."""
        served = dict(self._served)
        if not served:
            raise RequestError("No adapter is loaded: train one with `python train_space.py --dataset sample`.")
        if name in (None, ""):
            name = next(iter(served))
        if not isinstance(name, str) or name not in served:
            raise RequestError(unknown("adapter", str(name)[:100], served))
        return self._loaded(name)

    def _loaded(self, name: str) -> Served:
        """The adapter in memory; while it is read, in the caller's thread, requests for others are answered.

        Raises AdapterError when it cannot be loaded.
        """
        served = self._served.get(name)
        if served and served.model is None:
            with self._loading:
                served = self._served.get(name)
                if served and served.model is None:
                    self.add(served.adapter, served.max_length)
                    served = self._served.get(name)
        if served is None:
            raise RequestError(f"Adapter {name} has just been taken out: ask another, or load it again.")
        served.used = time.monotonic()
        return served

    def _make_room(self, keep: str) -> None:
        """Let go of the adapters asked longest ago until the others fit the budget; under the lock."""
        # The untrained base, of no bytes, cannot be read again.
        sizes = {n: one.adapter.size for n, one in self._served.items() if one.model is not None and one.adapter.size}
        for name in sorted(sizes, key=lambda name: self._served[name].used):
            if sum(sizes.values()) <= self._budget:
                return
            if name != keep:
                # Requests that wait hold the old one until they are answered.
                self._served[name] = Served(self._served[name].adapter, None, self._served[name].max_length)
                self._hot.forget(name)
                del sizes[name]

    def _put(self, adapter: Adapter, model: PreTrainedModel | PeftModel, max_length: int | None = None) -> None:
        window = min(bases.positions(self.model) - methods.virtual_tokens(model), 512)
        length = min(max_length or adapter.max_length or window, window)
        with self._lock:
            self._served[adapter.name] = Served(adapter, model.eval().requires_grad_(False), length, time.monotonic())
            self._make_room(adapter.name)

    def _load_peft(self, adapter: Adapter) -> PeftModel:
        skeleton = bases.skeleton(self.model)
        bases.reset_head(skeleton, self.base.architecture, len(adapter.labels))
        # PEFT keeps the name as a module's name, which must not hold a dot: every skeleton has just one.
        model = PeftModel.from_pretrained(skeleton, str(adapter.folder), adapter_name="default", local_files_only=True)
        methods.keep_norms(model)
        return methods.skip_casts(model) if self.dtype == torch.bfloat16 else model

    def _load_full(self, adapter: Adapter) -> PreTrainedModel:
        model = AutoModelForSequenceClassification.from_pretrained(
            adapter.folder,
            num_labels=len(adapter.labels),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=bases.implementation(self.base),
        )
        return bases.prepare(attention.first_token_only(model), self.dtype)

    def _run(
        self,
        texts: list[str],
        served: Served,
        whole_text: bool = False,
        watch: Callable[[int, int], None] | None = None,
    ) -> list["list[_Job] | ArenaError"]:
        """Queue the texts that can be answered, one job for each window of theirs, and wait for them."""
        rows: list[list[_Job] | ArenaError] = [check(text) for text in texts]
        good = [i for i, error in enumerate(rows) if error is None]
        if not good:
            return rows
        self._check_room(len(good))  # before they are read, which takes its time too
        sound = [texts[i] for i in good]
        if whole_text:
            encoded = [tokens.windows(self.tokenizer, text, served.max_length) for text in sound]
        else:
            encoded = [[row] for row in tokens.encode(self.tokenizer, sound, served.max_length)]
        for i, windows in zip(good, encoded):
            rows[i] = [_Job(served, window, Future()) for window in windows]
        # All at once: batches, and with them bf16 rounding, then do not hang on how fast the worker is.
        jobs = [job for i in good for job in rows[i]]
        self._enqueue(_Request(jobs), len(jobs))
        try:
            if watch:
                for done, _ in enumerate(as_completed([job.future for job in jobs]), 1):
                    watch(done, len(jobs))
            for i in good:
                if error := next(filter(None, [job.future.exception() for job in rows[i]]), None):
                    rows[i] = _failed(error)
        except BaseException:  # the caller gives up, by Ctrl-C for example: what is left is not worth a pass
            for job in jobs:
                job.future.cancel()
            raise
        return rows

    def _check_room(self, texts: int) -> None:
        if self._waiting and self._waiting + texts > self._most_waiting:
            raise BusyError(
                f"Too many texts wait to be answered ({self._waiting:,} of at most {self._most_waiting:,.0f}, ARENA_MAX_WAITING): "
                "try again in a few seconds."
            )

    def _enqueue(self, item: _Request | _Call, texts: int = 0) -> None:
        with self._lock:  # nothing may enter the queue behind the worker's end
            if self._closed:
                raise RequestError("This base model has just made room for another: ask again.")
            self._check_room(texts)
            self._waiting += texts
            self._queue.put(item)

    def _prediction(self, served: Served, windows: list[_Job]) -> Prediction:
        adapter = served.adapter
        probabilities = served.probabilities(torch.stack([job.future.result() for job in windows])).mean(0).tolist()
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return Prediction(
            label=adapter.labels[best],
            confidence=probabilities[best],
            scores=dict(zip(adapter.labels, probabilities)),
            adapter=adapter.name,
            tokens=sum(len(job.encoded.ids) for job in windows),
            truncated=windows[0].encoded.truncated,
        )

    def _work(self) -> None:
        waiting: deque[_Request | _Call] = deque()
        is_open = True
        while waiting or is_open:
            while is_open and not (waiting and self._queue.empty()):
                if (item := self._queue.get()) is None:
                    is_open = False
                else:
                    waiting.append(item)
            held, texts = list(waiting), _texts(waiting)
            try:
                jobs, calls = self._turn(waiting)
                texts = _texts(waiting)  # the others are taken
                self._hand_out(jobs)
                for call in calls:
                    self._seize(wait=True)
                    self._answer(call)
                    self._free.release(self._cores)
                for job in jobs:
                    job.served.rows += 1
                    if job.served.rows >= HOT_ROWS:
                        job.served.rows = 0
                        if self._hot.find(job.served) is None:
                            heat = threading.Thread(
                                target=self._hot.heat, args=(job.served,), name="heater", daemon=True
                            )
                            heat.start()
            except BaseException as error:  # noqa: BLE001 - a fault of ours must not leave callers waiting for ever
                _LOG.exception("the worker failed and goes on")
                waiting.clear()
                with self._lock:
                    self._waiting -= texts
                for future in (future for item in held for future in item.futures):
                    _settle(future, error=error)
        self._lanes.shutdown()

    def _turn(self, waiting: deque[_Request | _Call]) -> tuple[list[_Job], list[list[_Call]]]:
        """What is run next: a share of each request in the order they came, as far as one forward has room.

        What is left of a request goes behind those that had no turn.
        """
        jobs, calls, untouched, begun = [], [], [], []
        room, taken = MAX_BATCH_TOKENS, 0
        while waiting:
            item = waiting.popleft()
            if isinstance(item, _Call):
                calls.append([item])
            elif room <= 0:
                untouched.append(item)
            else:
                share = item.take(min(room, SHARE_TOKENS))
                taken, room = taken + len(share), room - len(share) * len(share[0].encoded.ids)
                jobs += [job for job in share if job.future.set_running_or_notify_cancel()]
                begun += [item] if item.jobs else []
        waiting.extend([*untouched, *begun])
        with self._lock:
            self._waiting -= taken
        return jobs, [[call] for [call] in calls if call.future.set_running_or_notify_cancel()]

    def _hand_out(self, jobs: list[_Job]) -> None:
        """Have the jobs run; returns when the last batch is under way, so that the next turn fills what gets free."""
        hot = [isinstance(self._hot.find(job.served), fused.Classifier) for job in jobs]
        share = max(LANE_TOKENS, sum(len(job.encoded.ids) for job in jobs) // self._cores)
        # Of a cold adapter every batch dequantises the base, so it has few.
        batches = group(list(compress(jobs, hot)), share) + group([j for j, is_hot in zip(jobs, hot) if not is_hot])
        if len(batches) == 1 and self._seize(wait=False):
            self._answer(batches[0])
            self._free.release(self._cores)
            return
        for batch in sorted(batches, key=lambda batch: -sum(len(job.encoded.ids) for job in batch)):
            self._free.acquire()
            try:
                lane = self._lanes.submit(self._answer, batch)
            except RuntimeError:  # no thread can be started: a pool that failed once takes nothing more
                self._free.release()
                self._lanes.shutdown(wait=False)
                self._lanes = self._new_lanes()
                raise
            lane.add_done_callback(lambda _: self._free.release())

    def _seize(self, wait: bool) -> bool:
        """Take all cores, so that no other batch runs; False where one does and that is not waited for."""
        for taken in range(self._cores):
            if not self._free.acquire(blocking=wait):
                if taken:
                    self._free.release(taken)
                return False
        return True

    def _answer(self, batch: list[_Job] | list[_Call]) -> None:
        """Give every caller of the batch its result or its error; a text that fails takes no other with it."""
        try:
            if isinstance(batch[0], _Call):
                _settle(batch[0].future, batch[0].function())
                return
            results = self.forward(batch[0].served, [job.encoded for job in batch])
            finite = results.isfinite().all(dim=1).tolist()
        except BaseException as error:  # noqa: BLE001 - whatever it is, its callers are told and the worker lives on
            if len(batch) == 1:
                _settle(batch[0].future, error=error)
            else:
                for job in batch:
                    self._answer([job])
            return
        for job, result, is_finite in zip(batch, results, finite):
            _settle(job.future, result, None if is_finite else ArithmeticError("its output is not a number"))


def _settle(future: Future, result: object = None, error: BaseException | None = None) -> None:
    """Tell who waits, unless a fault of the worker was told to them before."""
    with suppress(InvalidStateError):
        if error:
            future.set_exception(error)
        else:
            future.set_result(result)


def _texts(waiting: deque[_Request | _Call]) -> int:
    return sum(len(item.jobs) for item in waiting if isinstance(item, _Request))


def group(jobs: list[_Job], most: int = MAX_BATCH_TOKENS) -> list[list[_Job]]:
    """Batches of one adapter each, rows of like length together, at most `most` tokens with padding."""
    batches: list[list[_Job]] = []
    for job in sorted(jobs, key=lambda job: (id(job.served), len(job.encoded.ids))):
        last = batches[-1] if batches else None
        if last and last[0].served is job.served and (len(last) + 1) * len(job.encoded.ids) <= most:
            last.append(job)
        else:
            batches.append([job])
    return batches


def _failed(error: BaseException) -> RequestError:
    return RequestError(f"The model failed on this text ({error}): try another text or adapter.")


def check(text: object) -> RequestError | None:
    """Why this text cannot be answered, or None."""
    if not isinstance(text, str):
        return RequestError(
            f"A text must be a string, not {type(text).__name__}: send one text, or a list to /predict_batch."
        )
    if not text.strip():
        return RequestError("The text is empty: write a sentence or two.")
    if len(text) > (most := settings.number("ARENA_MAX_CHARACTERS")):
        return RequestError(
            f"The text has {len(text):,} characters, over the limit of {most:,.0f} (ARENA_MAX_CHARACTERS): shorten it."
        )
    return None
