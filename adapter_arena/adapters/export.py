"""Export an adapter as a plain model for other engines: the base dequantised, the adapter merged into it."""

import importlib.util
import math
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from adapter_arena import tasks
from adapter_arena.adapters import fit, store
from adapter_arena.adapters.store import Adapter
from adapter_arena.errors import AdapterError, RecipeError, unknown
from adapter_arena.models import bases, loading, servable, templates

FORMATS = ("merged", "onnx")
ONNX_FILE = "model.onnx"
SERVING_COMMANDS = {
    "text-embeddings-inference": "text-embeddings-router --model-id {folder} --port 8080  # POST /predict",
    "vLLM": "vllm serve {folder} --runner pooling  # POST /classify",
    "Inference Endpoints": "hf upload USER/NAME {folder}, then deploy that model as text-classification",
}
"""How other engines serve an exported folder."""
PAIR_CALLS = {
    "transformers": 'pipeline("text-classification", "{folder}")({{"text": "first", "text_pair": "second"}})',
    "text-embeddings-inference": 'curl 127.0.0.1:8080/predict -H \'content-type: application/json\' -d \'{{"inputs": [["first", "second"]]}}\'',
}
"""How a pair of texts is sent to an exported folder."""
_ONNX_PACKAGES = ("onnx", "onnxscript")


def write(adapter: Adapter, base: bases.Base, target: Path, format_name: str = "merged") -> Path:
    """Write the adapter as a `transformers` folder to `target`, completely or not at all, and return `target`.

    The format `onnx` adds the same model as model.onnx. Raises RecipeError for an unknown format, missing packages or
    an existing target, and AdapterError for an adapter that cannot be merged.
    """
    problem = _export_problem(target, format_name)
    if problem:
        raise RecipeError(problem)
    model = merge(adapter, base)
    tokenizer = loading.load_tokenizer(base)
    tokenizer.model_max_length = min(adapter.max_length or math.inf, loading.position_limit(model))
    with store.saving(target.name, target.parent) as staging:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        if format_name == "onnx":
            write_onnx(model, tokenizer, staging / ONNX_FILE, bool(adapter.takes_pairs))
    return target


def _export_problem(target: Path, format_name: str) -> str | None:
    """Return why nothing can be exported to `target` in this format, or None if it can."""
    if format_name not in FORMATS:
        return unknown("format", format_name, FORMATS)
    if target.exists():
        return f"{target} exists already: delete or rename it."
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if format_name == "onnx" and missing:
        return f"--format onnx needs {' and '.join(missing)}: pip install {' '.join(missing)}."
    return None


@torch.no_grad()
def merge(adapter: Adapter, base: bases.Base) -> PreTrainedModel:
    """Return the plain fp32 model that answers like the adapter on the 4-bit base.

    The adapter's temperature, or the scale of a regression, is part of the last layer. Raises AdapterError for types that cannot be merged.
    """
    labels = adapter.labels
    if adapter.is_full:
        model = _dequantised(fit.load_full(adapter.fit, adapter.folder, base))
    else:
        base_model = loading.load_model(base, num_labels=len(labels), dtype=torch.float32)
        peft_model = fit.attach(_dequantised(base_model), adapter.fit, adapter.folder)
        if servable.virtual_tokens(peft_model):
            peft_type = peft_model.active_peft_config.peft_type.value
            raise AdapterError(
                f"Adapter {adapter.name}: {peft_type} puts tokens before the text and cannot be merged: "
                "serve it with python app.py."
            )
        model = merge_and_unwrap(peft_model)
    _rescale(model.get_submodule(base.architecture.logits), adapter)
    model.config.problem_type = tasks.TASKS[adapter.task].problem_type
    if adapter.task == tasks.MULTI_LABEL:
        model.config.thresholds = dict(
            zip(labels, adapter.thresholds)
        )  # for the caller: transformers has no such field
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    return model.eval()


def _rescale(last_layer: torch.nn.Linear, adapter: Adapter) -> None:
    """Fold the adapter's temperature, or the scale of a regression, into the last layer. Raises AdapterError."""
    factor = 1 / adapter.temperature
    if adapter.scale is not None:
        factor = adapter.scale.std
        if last_layer.bias is None:
            raise AdapterError(
                f"Adapter {adapter.name}: the base's head has no bias, which would be the mean of the numbers: "
                "serve it with python app.py."
            )
    last_layer.weight *= factor
    if last_layer.bias is not None:
        last_layer.bias *= factor
    if adapter.scale is not None:
        last_layer.bias += adapter.scale.mean


def _dequantised(model: PreTrainedModel) -> PreTrainedModel:
    """Return a new fp32 model with the dequantised weights; a quantised one can be neither merged nor saved in fp32."""
    values = model.config.to_dict()
    values.pop("quantization_config", None)
    config = type(model.config).from_dict(values)  # with the attention that transformers chooses for the model
    plain = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    weights = model.dequantize(dtype=torch.float32).float().state_dict()
    for name, module in plain.named_modules():
        if isinstance(module, Conv1D):  # of GPT-2; in 4 bits it is a Linear, whose weight is the transposed one
            weights[f"{name}.weight"] = weights[f"{name}.weight"].T.contiguous()
    plain.load_state_dict(weights)
    return plain


def merge_and_unwrap(model: PeftModel) -> PreTrainedModel:
    """Return the base model with the adapter merged into it and the adapter's head instead of its own."""
    for name, module in list(model.named_modules()):
        # In LN tuning, merge_and_unload leaves these wrappers in the model.
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, child = name.rpartition(".")
            trained_head = module.modules_to_save[module.active_adapters[0]]
            setattr(model.get_submodule(parent), child, trained_head)
    return model.merge_and_unload()


def write_onnx(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, file: Path, takes_pairs: bool = False
) -> None:
    """Write the model as one ONNX file with inputs input_ids and attention_mask, of any size, and output logits.

    For pairs there is the input token_type_ids too, if the model has token types.
    """
    example = tokenizer(["one", "a longer one"], padding=True, return_tensors="pt", return_token_type_ids=True)
    names = ["input_ids", "attention_mask"]
    if takes_pairs and templates.reads_token_types(model, tokenizer):
        names.append("token_type_ids")
    inputs = {name: example[name] for name in names}
    dimensions = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
    torch.onnx.export(
        model,
        kwargs=inputs,
        f=file,
        input_names=list(inputs),
        output_names=["logits"],
        dynamic_shapes=dict.fromkeys(inputs, dimensions),
        external_data=False,
        verbose=False,
    )
