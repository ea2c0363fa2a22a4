"""What the engine is compared with: the ways in which adapters are served today.

A peer is made of adapter folders and gives texts their adapters' labels. Each cuts texts to WINDOW tokens. Those
that can batch are given texts sorted by length and the batch size, of `sizes`, that is fastest for them.
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
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig, pipeline

from adapter_arena import machine
from adapter_arena.adapters import export, store
from adapter_arena.models import bases, loading
from adapter_arena.recipe import DEFAULT_BASE
from adapter_arena.serve.engine import Engine

WINDOW = 384
BASE = bases.find(DEFAULT_BASE)


class Peer:
    """Answers texts; `size` is what one pass takes, chosen by `tune`."""

    sizes: tuple[int, ...] = (1,)
    size = 1
    most: int | None = None
    """Texts it is asked at most in one load, where its rate does not hang on how many there are."""

    def answer(self, texts: list[str], adapter: str) -> list[int]:
        """The label ids of the texts, in order, by one adapter."""
        raise NotImplementedError

    def mixed(self, texts: list[str], adapters: list[str]) -> list[int]:
        """The label ids of texts that each ask another adapter; here with each adapter's texts together."""
        found = [0] * len(texts)
        for adapter, places in _grouped(adapters).items():
            for i, label in zip(places, self.answer([texts[i] for i in places], adapter)):
                found[i] = label
        return found

    def tune(self, texts: list[str], adapter: str) -> None:
        """Take the size that answers these texts fastest."""
        seconds = {}
        for size in self.sizes:
            self.size = size
            self.answer(texts[:8], adapter)
            start = time.perf_counter()
            self.answer(texts, adapter)
            seconds[size] = time.perf_counter() - start
        self.size = min(seconds, key=seconds.get)


class Arena(Peer):
    """Our engine as the app runs it; `merges`: whether adapters are merged."""

    def __init__(self, folders: list[Path], merges: bool = True):
        self.engine = Engine(BASE)
        if not merges:
            self.engine._start_merge = lambda served: None
        self.base_mb = machine.memory_mb()
        for folder in folders:
            self.engine.add(store.read(folder, BASE), WINDOW)
            if merges:
                self.engine.merge(folder.name)
        self.loaded_mb = machine.memory_mb()
        self._callers = ThreadPoolExecutor(len(folders))

    def answer(self, texts: list[str], adapter: str) -> list[int]:
        """As one caller."""
        labels = self.engine.get(adapter).adapter.labels
        return [labels.index(answer.label) for answer in self.engine.predict(texts, adapter)]

    def mixed(self, texts: list[str], adapters: list[str]) -> list[int]:
        """A caller for each adapter, all at once."""
        places = _grouped(adapters)
        found = [0] * len(texts)
        asked = self._callers.map(lambda name: self.answer([texts[i] for i in places[name]], name), places)
        for name, labels in zip(places, asked):
            for i, label in zip(places[name], labels):
                found[i] = label
        return found


class Textbook(Peer):
    """bitsandbytes' default 4 bits, PEFT's `set_adapter`, one text at a time; a base for each PEFT type."""

    most = 128

    def __init__(self, folders: list[Path]):
        self._tokenizer = loading.load_tokenizer(BASE)
        self._models: dict[str, PeftModel] = {}
        by_type: dict[str, PeftModel] = {}
        for folder in folders:
            kind = PeftConfig.from_pretrained(folder).peft_type
            if kind in by_type:
                by_type[kind].load_adapter(folder, adapter_name=folder.name)
            else:
                model = AutoModelForSequenceClassification.from_pretrained(
                    bases.locate(BASE),
                    num_labels=2,
                    # Its own default quantises the head, which PEFT then cannot replace.
                    quantization_config=BitsAndBytesConfig(
                        load_in_4bit=True, llm_int8_skip_modules=[BASE.architecture.outside_encoder]
                    ),
                )
                by_type[kind] = PeftModel.from_pretrained(model, folder, adapter_name=folder.name).eval()
            self._models[folder.name] = by_type[kind]

    @torch.inference_mode()
    def answer(self, texts: list[str], adapter: str) -> list[int]:
        model, labels = self._models[adapter], []
        for text in texts:
            model.set_adapter(adapter)
            encoded = self._tokenizer(text, truncation=True, max_length=WINDOW, return_tensors="pt")
            labels.append(int(model(**encoded).logits.argmax()))
        return labels

    def mixed(self, texts: list[str], adapters: list[str]) -> list[int]:
        """In the order they come."""
        return [self.answer([text], adapter)[0] for text, adapter in zip(texts, adapters)]


class Pipeline(Peer):
    """`transformers.pipeline` on a merged fp32 model for each adapter."""

    sizes = (1, 8, 32)

    def __init__(self, folders: list[Path]):
        self._pipelines = {
            folder.name: pipeline("text-classification", str(folder), tokenizer=str(folder), device="cpu")
            for folder in folders
        }

    def answer(self, texts: list[str], adapter: str) -> list[int]:
        pipe = self._pipelines[adapter]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        answers = pipe([texts[i] for i in order], batch_size=self.size, truncation=True, max_length=WINDOW)
        found = dict(zip(order, (pipe.model.config.label2id[answer["label"]] for answer in answers)))
        return [found[i] for i in range(len(texts))]


class Compiled(Peer):
    """One merged model, compiled by a runtime; `load` gives a function of ids and mask to logits."""

    sizes = (1, 1024, 4096)
    load: Callable[[Path], Callable[[numpy.ndarray, numpy.ndarray], numpy.ndarray]]

    def __init__(self, folders: list[Path]):
        self._tokenizer = AutoTokenizer.from_pretrained(folders[0])
        self._run = self.load(folders[0])

    def answer(self, texts: list[str], adapter: str) -> list[int]:
        ids = self._tokenizer(texts, truncation=True, max_length=WINDOW)["input_ids"]
        labels = [0] * len(texts)
        for batch in _batches([len(row) for row in ids], self.size):
            padded = numpy.zeros((len(batch), max(len(ids[i]) for i in batch)), dtype=numpy.int64)
            mask = numpy.zeros_like(padded)
            for row, i in enumerate(batch):
                padded[row, : len(ids[i])], mask[row, : len(ids[i])] = ids[i], 1
            for i, logits in zip(batch, self._run(padded, mask)):
                labels[i] = int(logits.argmax())
        return labels


class Onnx(Compiled):
    """ONNX Runtime, fp32."""

    file = "model.onnx"

    def load(self, folder: Path):
        """Its session."""
        session = onnxruntime.InferenceSession(folder / self.file, providers=["CPUExecutionProvider"])
        return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


class OnnxInt8(Onnx):
    """ONNX Runtime, weights in int8, activations quantised as they come."""

    file = "model-int8.onnx"


class OpenVino(Compiled):
    """OpenVINO at its default precision, bf16 where the processor has it."""

    def load(self, folder: Path):
        """Its compiled model."""
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        example = {"input_ids": torch.ones(2, 16, dtype=torch.int64), "attention_mask": torch.ones(2, 16).long()}
        found = openvino.convert_model(model, example_input=example)
        compiled = openvino.compile_model(found, "CPU")
        return lambda ids, mask: compiled({"input_ids": ids, "attention_mask": mask})[0]


def merge(folder: Path, target: Path, with_onnx: bool) -> None:
    """Write the fp32 base with the adapter merged into it to `target`, and its ONNX files."""
    model = AutoModelForSequenceClassification.from_pretrained(bases.locate(BASE), num_labels=2)
    model = export.merge_and_unwrap(PeftModel.from_pretrained(model, folder)).eval()
    model.save_pretrained(target)
    tokenizer = loading.load_tokenizer(BASE)
    tokenizer.save_pretrained(target)
    if with_onnx:
        export.write_onnx(model, tokenizer, target / Onnx.file)
        exported = onnx.load(target / Onnx.file)
        del exported.graph.value_info[:]  # the exporter's shapes of transposed weights stop the quantiser
        onnx.save(exported, target / Onnx.file)
        quantize_dynamic(target / Onnx.file, target / OnnxInt8.file, weight_type=QuantType.QInt8)


def _grouped(adapters: list[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for i, adapter in enumerate(adapters):
        places[adapter].append(i)
    return places


def _batches(lengths: list[int], tokens: int) -> list[list[int]]:
    """Indices of texts of like length, as many together as `tokens` hold with padding, at least one."""
    found: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if found and (len(found[-1]) + 1) * lengths[i] <= tokens:
            found[-1].append(i)
        else:
            found.append([i])
    return found
