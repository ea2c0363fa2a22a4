"""The peers of the engine: the ways in which adapters are served today.

A peer is made from adapter folders and returns label ids for texts. All peers truncate texts to WINDOW tokens. Those
that can batch get texts sorted by length, and use the batch size among their `sizes` that is fastest for them.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import onnx
import onnxruntime
import openvino
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from peft import PeftConfig, PeftModel
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    pipeline,
)

from adapter_arena import machine
from adapter_arena.adapters import export, store
from adapter_arena.models import bases, loading
from adapter_arena.recipe import DEFAULT_BASE
from adapter_arena.serve.engine import Engine

WINDOW = 384
BASE = bases.find(DEFAULT_BASE)
Run = Callable[[numpy.ndarray, numpy.ndarray], numpy.ndarray]
"""A compiled model: from token ids and mask, shape (texts, tokens), to logits, shape (texts, labels)."""


class Peer:
    """A way to serve adapters."""

    sizes: tuple[int, ...] = (1,)
    """Batch sizes among which `tune` chooses."""
    size = 1
    """Batch size."""
    max_texts: int | None = None
    """Most texts of one measurement, for peers whose rate does not depend on the number of texts."""
    needs_merged_folders = False
    """Whether the folders are complete models with the adapters merged into them."""
    serves_one_adapter = False
    """Whether it serves only the first folder."""
    has_our_settings = False
    """Whether its process has the settings of adapter_arena.runtime; the others have the defaults of the libraries."""

    def answer(self, texts: list[str], adapter: str) -> list[int]:
        """Return the label ids of the texts by one adapter, in order."""
        raise NotImplementedError

    def mixed(self, texts: list[str], adapters: list[str]) -> list[int]:
        """Return the label ids of texts that are each for another adapter; each adapter's texts are batched."""
        labels = [0] * len(texts)
        for adapter, positions in _positions_by_adapter(adapters).items():
            own_texts = [texts[i] for i in positions]
            for i, label in zip(positions, self.answer(own_texts, adapter)):
                labels[i] = label
        return labels

    def tune(self, texts: list[str], adapter: str) -> None:
        """Choose the size that answers these texts fastest."""
        seconds = {}
        for size in self.sizes:
            self.size = size
            self.answer(texts[:8], adapter)
            start = time.perf_counter()
            self.answer(texts, adapter)
            seconds[size] = time.perf_counter() - start
        self.size = min(seconds, key=seconds.get)


class Arena(Peer):
    """Our engine as the app runs it, with every adapter merged."""

    merges = True
    has_our_settings = True

    def __init__(self, folders: list[Path]):
        self.engine = Engine(BASE)
        if not self.merges:
            # A budget of 0 would also leave the base's weights in 4 bits.
            self.engine._start_merge = lambda served: None
        self.base_mb = machine.memory_mb()
        for folder in folders:
            self.engine.add(store.read(folder, BASE), WINDOW)
            if self.merges:
                self.engine.merge(folder.name)
        self.loaded_mb = machine.memory_mb()
        self._callers = ThreadPoolExecutor(len(folders))

    def answer(self, texts: list[str], adapter: str) -> list[int]:
        """Answer as one caller."""
        labels = self.engine.get(adapter).adapter.labels
        return [labels.index(answer.label) for answer in self.engine.predict(texts, adapter)]

    def mixed(self, texts: list[str], adapters: list[str]) -> list[int]:
        """Answer concurrent callers, one for each adapter."""
        positions_by_adapter = _positions_by_adapter(adapters)
        futures = {}
        for adapter, positions in positions_by_adapter.items():
            own_texts = [texts[i] for i in positions]
            futures[adapter] = self._callers.submit(self.answer, own_texts, adapter)
        labels = [0] * len(texts)
        for adapter, positions in positions_by_adapter.items():
            for i, label in zip(positions, futures[adapter].result()):
                labels[i] = label
        return labels


class UnmergedArena(Arena):
    """Our engine without merged adapters."""

    merges = False


class Textbook(Peer):
    """bitsandbytes' default 4 bits and PEFT's `set_adapter`, one text at a time; one base for each PEFT type."""

    max_texts = 128

    def __init__(self, folders: list[Path]):
        self._tokenizer = loading.load_tokenizer(BASE)
        self._models: dict[str, PeftModel] = {}
        by_type: dict[str, PeftModel] = {}
        for folder in folders:
            peft_type = PeftConfig.from_pretrained(folder).peft_type
            if peft_type in by_type:
                by_type[peft_type].load_adapter(folder, adapter_name=folder.name)
            else:
                base_model = self._load_base()
                by_type[peft_type] = PeftModel.from_pretrained(base_model, folder, adapter_name=folder.name).eval()
            self._models[folder.name] = by_type[peft_type]

    def _load_base(self) -> PreTrainedModel:
        # By default the head is quantised too, and then PEFT cannot replace it.
        quantization = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=[BASE.architecture.outside_encoder])
        return AutoModelForSequenceClassification.from_pretrained(
            bases.locate(BASE), num_labels=2, quantization_config=quantization
        )

    @torch.inference_mode()
    def answer(self, texts: list[str], adapter: str) -> list[int]:
        """Answer the texts one by one."""
        model = self._models[adapter]
        labels = []
        for text in texts:
            model.set_adapter(adapter)
            encoded = self._tokenizer(text, truncation=True, max_length=WINDOW, return_tensors="pt")
            labels.append(int(model(**encoded).logits.argmax()))
        return labels

    def mixed(self, texts: list[str], adapters: list[str]) -> list[int]:
        """Answer the texts in their order, and change the adapter between them."""
        labels = []
        for text, adapter in zip(texts, adapters):
            labels += self.answer([text], adapter)
        return labels


class Pipeline(Peer):
    """`transformers.pipeline` with a merged fp32 model for each adapter."""

    sizes = (1, 8, 32)
    needs_merged_folders = True

    def __init__(self, folders: list[Path]):
        self._pipelines = {}
        for folder in folders:
            self._pipelines[folder.name] = pipeline(
                "text-classification", str(folder), tokenizer=str(folder), device="cpu"
            )

    def answer(self, texts: list[str], adapter: str) -> list[int]:
        """Answer the texts in batches, sorted by length."""
        classify = self._pipelines[adapter]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        sorted_texts = [texts[i] for i in order]
        answers = classify(sorted_texts, batch_size=self.size, truncation=True, max_length=WINDOW)
        labels = [0] * len(texts)
        for i, answer in zip(order, answers):
            labels[i] = classify.model.config.label2id[answer["label"]]
        return labels


class Compiled(Peer):
    """One merged model, compiled by a runtime; its sizes are tokens in a batch, with padding."""

    sizes = (1, 1024, 4096)
    needs_merged_folders = True
    serves_one_adapter = True

    def __init__(self, folders: list[Path]):
        self._tokenizer = AutoTokenizer.from_pretrained(folders[0])
        self._run = self.load(folders[0])

    def load(self, folder: Path) -> Run:
        """Return the compiled model."""
        raise NotImplementedError

    def answer(self, texts: list[str], adapter: str) -> list[int]:
        """Answer the texts in batches, sorted by length."""
        ids = self._tokenizer(texts, truncation=True, max_length=WINDOW)["input_ids"]
        labels = [0] * len(texts)
        for batch in _batches([len(row) for row in ids], self.size):
            longest = max(len(ids[i]) for i in batch)
            padded = numpy.zeros((len(batch), longest), dtype=numpy.int64)
            mask = numpy.zeros_like(padded)
            for row, i in enumerate(batch):
                padded[row, : len(ids[i])] = ids[i]
                mask[row, : len(ids[i])] = 1
            for i, logits in zip(batch, self._run(padded, mask)):
                labels[i] = int(logits.argmax())
        return labels


class Onnx(Compiled):
    """ONNX Runtime, fp32."""

    file = "model.onnx"

    def load(self, folder: Path) -> Run:
        """Return the model of an ONNX session."""
        session = onnxruntime.InferenceSession(folder / self.file, providers=["CPUExecutionProvider"])
        return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


class OnnxInt8(Onnx):
    """ONNX Runtime with int8 weights; activations are quantised dynamically."""

    file = "model-int8.onnx"


class OpenVino(Compiled):
    """OpenVINO at its default precision, which is bf16 if the CPU supports it."""

    def load(self, folder: Path) -> Run:
        """Return the model compiled by OpenVINO."""
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        example = {"input_ids": torch.ones(2, 16, dtype=torch.int64), "attention_mask": torch.ones(2, 16).long()}
        converted = openvino.convert_model(model, example_input=example)
        compiled = openvino.compile_model(converted, "CPU")
        return lambda ids, mask: compiled({"input_ids": ids, "attention_mask": mask})[0]


PEERS: dict[str, type[Peer]] = {
    "Adapter Arena": Arena,
    "Adapter Arena, nothing merged": UnmergedArena,
    "textbook": Textbook,
    "pipeline": Pipeline,
    "ONNX Runtime": Onnx,
    "ONNX Runtime, int8": OnnxInt8,
    "OpenVINO": OpenVino,
}
"""The peers, in the order in which they are measured and shown."""


def write_merged(folder: Path, target: Path, with_onnx: bool) -> None:
    """Write the fp32 base with the adapter merged into it to `target`, and its ONNX files if `with_onnx`."""
    base_model = AutoModelForSequenceClassification.from_pretrained(bases.locate(BASE), num_labels=2)
    model = export.merge_and_unwrap(PeftModel.from_pretrained(base_model, folder)).eval()
    model.save_pretrained(target)
    tokenizer = loading.load_tokenizer(BASE)
    tokenizer.save_pretrained(target)
    if with_onnx:
        export.write_onnx(model, tokenizer, target / Onnx.file)
        exported = onnx.load(target / Onnx.file)
        del exported.graph.value_info[:]  # the quantiser rejects the exporter's shapes of transposed weights
        onnx.save(exported, target / Onnx.file)
        quantize_dynamic(target / Onnx.file, target / OnnxInt8.file, weight_type=QuantType.QInt8)


def _positions_by_adapter(adapters: list[str]) -> dict[str, list[int]]:
    positions: dict[str, list[int]] = defaultdict(list)
    for i, adapter in enumerate(adapters):
        positions[adapter].append(i)
    return positions


def _batches(lengths: list[int], max_tokens: int) -> list[list[int]]:
    """Return batches of indices of texts of similar length, as many as fit in `max_tokens` with padding, at least one."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and (len(batches[-1]) + 1) * lengths[i] <= max_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
