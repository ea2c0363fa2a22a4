"""An adapter as a plain model for other engines: the 4-bit base widened, the adapter merged into it."""

import copy
import importlib.util
import math
import shutil
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from adapter_arena.adapters import store
from adapter_arena.adapters.store import Adapter
from adapter_arena.errors import AdapterError, RecipeError, unknown
from adapter_arena.models import bases, methods
from adapter_arena.recipe import DEFAULT_BASE

FORMATS = ("merged", "onnx")
ONNX_FILE = "model.onnx"
ENGINES = {
    "text-embeddings-inference": "text-embeddings-router --model-id {folder} --port 8080  # POST /predict",
    "vLLM": "vllm serve {folder} --runner pooling  # POST /classify",
    "Inference Endpoints": "hf upload USER/NAME {folder}, then deploy that model as text-classification",
}


@torch.no_grad()
def merge(adapter: Adapter, base: bases.Base) -> PreTrainedModel:
    """The plain fp32 model that answers as the adapter does on the 4-bit base, its temperature in the last layer.

    Raises AdapterError for a type that cannot be merged.
    """
    if adapter.is_full:
        model = AutoModelForSequenceClassification.from_pretrained(
            adapter.folder, local_files_only=True, use_safetensors=True, num_labels=len(adapter.labels)
        )
    else:
        model = bases.load_model(base, num_labels=len(adapter.labels), kernel="sdpa", dtype=torch.float32)
    model = _plain(model)
    if not adapter.is_full:
        wrapped = PeftModel.from_pretrained(model, adapter.folder, local_files_only=True)
        if methods.virtual_tokens(wrapped):
            raise AdapterError(
                f"Adapter {adapter.name}: {wrapped.active_peft_config.peft_type.value} puts tokens before the text and "
                "cannot be merged: serve it with python app.py."
            )
        model = unwrapped(wrapped)
    last = model.get_submodule(base.architecture.logits)
    last.weight /= adapter.temperature
    last.bias /= adapter.temperature
    model.config.id2label = dict(enumerate(adapter.labels))
    model.config.label2id = {label: i for i, label in enumerate(adapter.labels)}
    return model.eval()


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """A new fp32 model with the widened weights: one that was in 4 bits can neither be merged nor saved as another."""
    config = copy.deepcopy(model.config)
    for name in ("quantization_config", "_pre_quantization_dtype"):
        config.__dict__.pop(name, None)
    plain = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    plain.load_state_dict(model.dequantize(dtype=torch.float32).float().state_dict())
    return plain


def unwrapped(model: PeftModel) -> PreTrainedModel:
    """The base with the adapter merged into it and its head in place of the base's."""
    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):  # which PEFT leaves where it is in LN tuning
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.modules_to_save[module.active_adapters[0]])
    return model.merge_and_unload()


def write(adapter: Adapter, base: bases.Base, target: Path, kind: str = "merged") -> Path:
    """Write the adapter as a `transformers` folder, for `onnx` with model.onnx beside; whole or not at all.

    Raises RecipeError for an unknown format, missing packages or a target that exists, AdapterError.
    """
    if kind not in FORMATS:
        raise RecipeError(unknown("format", kind, FORMATS))
    if kind == "onnx" and (missing := [n for n in ("onnx", "onnxscript") if importlib.util.find_spec(n) is None]):
        raise RecipeError(f"--format onnx needs {' and '.join(missing)}: pip install {' '.join(missing)}.")
    if target.exists():
        raise RecipeError(f"{target} exists already: delete it or give another --output-dir.")
    model, tokenizer = merge(adapter, base), bases.load_tokenizer(base)
    tokenizer.model_max_length = min(adapter.max_length or math.inf, bases.positions(model))
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".export-", dir=target.parent))
    try:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        if kind == "onnx":
            write_onnx(model, tokenizer, staging / ONNX_FILE)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def write_onnx(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    """The model as one ONNX file: input_ids and attention_mask of any size in, logits out."""
    found = tokenizer(["one", "a longer one"], padding=True, return_tensors="pt")
    rows = {name: found[name] for name in ("input_ids", "attention_mask")}
    shape = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
    torch.onnx.export(
        model,
        kwargs=rows,
        f=file,
        input_names=list(rows),
        output_names=["logits"],
        dynamic_shapes=dict.fromkeys(rows, shape),
        external_data=False,
        verbose=False,
    )


def read(folder: Path, base_model: str | None) -> tuple[Adapter, bases.Base]:
    """The adapter of a folder and the base it is for. Raises ArenaError."""
    base = bases.find(base_model or DEFAULT_BASE)
    return store.read(folder, base), base
