"""Whether the tensors of a folder are those of a model on the base, and building that model from them."""

import dataclasses
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from adapter_arena.adapters import documents, layout, weights
from adapter_arena.adapters.layout import Layout, Reader
from adapter_arena.adapters.weights import Weights
from adapter_arena.errors import AdapterError, one_line
from adapter_arena.models import bases, servable, wrapping
from adapter_arena.models import weights as base_weights
from adapter_arena.models.wrapping import Tensors

MAX_OUTPUTS = 10_000
_EMBEDDINGS = (
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
)
_LAYER_NUMBER = re.compile(r"\.\d+")
_OF_4_BITS = re.compile(r"\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__\w+)$")


@dataclass(frozen=True)
class Fit:
    """How the files of a folder become a model; it is decided once, when the folder is read."""

    config: dict = field(default_factory=dict)
    """The fields with which PEFT builds the adapter; empty for a full model."""
    names: dict[str, str] = field(default_factory=dict)
    """The name in the model of each tensor of the files that is loaded."""
    outputs: int = 0


def shape_of_embeddings(files: Weights) -> tuple[int, ...] | None:
    """Return the shape of the word embeddings, (vocabulary, hidden size); None if the files have none."""
    for name, tensor in files.tensors.items():
        if name.endswith(_EMBEDDINGS):
            return tensor.shape
    return None


def outputs_of(name: str, config: dict, files: Weights, base: bases.Base) -> int:
    """Return the number of outputs of the head. Raises AdapterError if there is none, or of another kind."""
    reader = _reader(config, base)
    outputs = reader.outputs(files.shapes)
    problem = None
    if outputs is None:
        problem = (
            f"has no trained classification head ({reader.logits}), so its answers would be random: "
            'save it with task_type="SEQ_CLS" or modules_to_save'
        )
    elif outputs > MAX_OUTPUTS:
        problem = f"has a head of {outputs:,} outputs, over the limit of {MAX_OUTPUTS:,}: use another adapter"
    if problem:
        raise AdapterError(f"Adapter {name} {problem}.")
    return outputs


def adapter(name: str, config: dict, files: Weights, base: bases.Base, outputs: int) -> tuple[Fit, list[str]]:
    """Return how the tensors of a PEFT adapter fit the base, and notes. Raises AdapterError if one does not.

    Its config may name modules of a model that had other names. Then the modules are those of its tensors.
    """
    fields, ignored = servable.peft_config(config)
    notes = [ignored] if ignored else []
    if problem := servable.vocabulary_problem(shape_of_embeddings(files), base):
        raise AdapterError(f"Adapter {name} {problem}.")
    reader = _reader(config, base)
    try:
        want = wrapping.tensors_of_adapter(fields, base, outputs)
    except Exception as error:
        fields = _targets_by_tensors(reader, fields, files, base)
        if fields is None:
            raise _does_not_fit(name, base, error) from error
        try:
            want = wrapping.tensors_of_adapter(fields, base, outputs)
        except Exception:  # noqa: BLE001 - the first reason is the one about the user's config
            raise _does_not_fit(name, base, error) from error
    found = reader.match(files.shapes, _shapes(want))
    found, copies = _without_copies_of_the_base(found, files, base)
    if copies:
        notes.append(f"{copies} tensors are unchanged copies of {base.label} and are not loaded")
    problem = (
        _problem(found, files, want, base) or _anchored_pattern(config, found) or _random_head(reader, found, base)
    )
    if problem:
        raise AdapterError(f"Adapter {name} {problem}.")
    return Fit(fields, found.names, outputs), notes + _notes(found)


def _does_not_fit(name: str, base: bases.Base, error: Exception) -> AdapterError:
    return AdapterError(f"Adapter {name} does not fit {base.label} ({one_line(error)}): use another adapter.")


def _targets_by_tensors(reader: Reader, fields: dict, files: Weights, base: bases.Base) -> dict | None:
    """Return the fields with the modules of the tensors as targets; None if a layer lacks a module that others have."""
    modules = reader.adapted_modules(list(files.tensors))
    if not modules or "target_modules" not in fields:
        return None
    kinds = {_LAYER_NUMBER.sub(".#", module) for module in modules}
    for module, _ in wrapping.empty_model(base, 2).named_modules():
        path = reader.inside(module)
        if _LAYER_NUMBER.sub(".#", path) in kinds and path not in modules:
            return None
    own = {"target_modules": modules, "exclude_modules": None, "layers_to_transform": None, "layers_pattern": None}
    return fields | {key: value for key, value in own.items() if key in fields}


def full(name: str, config: dict, files: Weights, base: bases.Base, outputs: int) -> tuple[Fit, list[str]]:
    """Return how the tensors of a full model fit the base's architecture, and notes. Raises AdapterError if one does not."""
    want = wrapping.tensors_of_model(base, outputs)
    in_4_bits = bool(config.get("quantization_config"))
    have = _unpacked(files, want) if in_4_bits else files.shapes
    found = _reader(config, base).match(have, _shapes(want))
    if problem := _problem(found, files, want, base, in_4_bits):
        raise AdapterError(f"Adapter {name} {problem}.")
    return Fit({}, found.names, outputs), _notes(found)


def _reader(config: dict, base: bases.Base) -> Reader:
    prefixes = wrapping.prefixes(config["peft_type"]) if "peft_type" in config else ()
    return Reader(prefixes, wrapping.encoder(base), base.architecture.logits)


def _unpacked(files: Weights, want: Tensors) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model in 4 bits, without the tensors that describe the packing."""
    shapes = {}
    for tensor_name, tensor in files.tensors.items():
        if _OF_4_BITS.search(tensor_name):
            continue
        is_packed = tensor.dtype == "U8" and tensor_name in want
        shapes[tensor_name] = tuple(want[tensor_name].shape) if is_packed else tensor.shape
    return shapes


def _without_copies_of_the_base(found: Layout, files: Weights, base: bases.Base) -> tuple[Layout, int]:
    """Return the layout without unknown tensors that equal the base's own, and their number."""
    if not found.unknown:
        return found, 0
    reader = Reader(encoder=wrapping.encoder(base))
    own = _names_of_base(base)
    copies = []
    with safe_open(bases.locate(base) / weights.FULL, "pt") as tensors:
        for name in found.unknown:
            original = own.get(reader.inside(reader.plain(name, {"default"})))
            if original is None or tuple(tensors.get_slice(original).get_shape()) != files.tensors[name].shape:
                continue
            copied = files.load({name: name})[name]
            if torch.equal(copied, tensors.get_tensor(original).to(copied.dtype)):
                copies.append(name)
    unknown = [name for name in found.unknown if name not in copies]
    return dataclasses.replace(found, unknown=unknown), len(copies)


def _problem(found: Layout, files: Weights, want: Tensors, base: bases.Base, in_4_bits: bool = False) -> str | None:
    """Return what is wrong if a tensor has no place, is missing or has values that are not numbers; None if all fit."""
    if found.unknown:
        return _unknown(found, files, want, base)
    if found.missing:
        return (
            f"lacks {len(found.missing)} of {len(want)} tensors of the model, the first is {found.missing[0]:.100}: "
            "save it again"
        )
    for name, other in found.repeated.items():
        pair = files.load({name: name, other: other})
        if not torch.equal(pair[name], pair[other]):
            return f"has two different tensors for one place, {name:.100} and {other:.100}: save it again"
    return _invalid_values(found, files, want, in_4_bits)


def _anchored_pattern(config: dict, found: Layout) -> str | None:
    """Return the problem of patterns of full module names if the modules have other names in the model."""
    patterns = config.get("alpha_pattern")
    if found.renamed and isinstance(patterns, dict) and any(key.startswith("^") for key in patterns):
        return "has an alpha_pattern with ^ for modules of other names than the base's: write it for the base's modules"
    return None


def _random_head(reader: Reader, found: Layout, base: bases.Base) -> str | None:
    """Return the problem of a part of the head that neither the base nor the adapter has, so that it stays random."""
    known = set(_names_of_base(base))
    known.update(reader.inside(reader.plain(target, {"default"})) for target in found.names.values())
    for name in wrapping.empty_model(base, 2).state_dict():
        module = name.rpartition(".")[0]
        if re.fullmatch(base.architecture.outside_encoder, module) and reader.inside(name) not in known:
            return (
                f"does not have {name:.100}, and neither has {base.label}, so its answers would be random: "
                "train it again with that layer in modules_to_save"
            )
    return None


@functools.lru_cache(maxsize=4)
def _names_of_base(base: bases.Base) -> dict[str, str]:
    """Return the names of the tensors in the base model's files by their path inside the encoder."""
    reader = Reader(encoder=wrapping.encoder(base))
    found = {}
    for path in base_weights.files(bases.locate(base)):
        with safe_open(path, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                found[reader.inside(reader.plain(name, set()))] = name
    return found


def _notes(found: Layout) -> list[str]:
    if not found.renamed:
        return []
    return [
        f"{found.renamed} of {len(found.names)} tensors are named differently; each fits one place by path and shape"
    ]


def _unknown(found: Layout, files: Weights, want: Tensors, base: bases.Base) -> str:
    total = len(found.names) + len(found.unknown)
    first = found.unknown[0]
    reason = f"{len(found.names)} of {total} tensors match"
    plain = {name.replace(".default", ""): name for name in want}
    if first in plain:
        reason += (
            f"; {first:.100} has the shape {_shape(files.tensors[first].shape)}, not {_shape(want[plain[first]].shape)}"
        )
    else:
        nearest = layout.nearest(first, found.missing or list(want))
        reason += f"; {first:.100} has no place in {base.label}, the nearest is {nearest:.100}"
    return f"does not fit {base.label}: {reason}; use an adapter of this base"


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _invalid_values(found: Layout, files: Weights, want: Tensors, in_4_bits: bool) -> str | None:
    numbers = {}
    for name, target in found.names.items():
        tensor = files.tensors[name]
        if tensor.is_float:
            numbers[name] = name
        elif want[target].is_floating_point() and not (in_4_bits and tensor.dtype == "U8"):
            return (
                f"has the tensor {name:.100} of type {tensor.dtype}, which is not a floating-point type: save it again"
            )
    invalid = weights.first_invalid(files.load(numbers))
    if invalid:
        return f"has NaN or infinite values in {invalid:.100}: its training diverged; train it again"
    return None


def attach(model: PreTrainedModel, fitted: Fit, folder: Path) -> PeftModel:
    """Return the model with the adapter of a folder that was read. Raises AdapterError, or what PEFT raises."""
    files = weights.read(folder, weights.ADAPTER)
    peft_model = wrapping.wrap(model, dict(fitted.config))
    wrapping.assign(peft_model, files.load(fitted.names))
    return peft_model.eval()


def load_full(fitted: Fit, folder: Path, base: bases.Base, **options) -> PreTrainedModel:
    """Return the full model of `base` in a folder that was read; `options` override its config."""
    config = documents.read_json(folder / "config.json")
    if config.get("quantization_config"):
        return AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=fitted.outputs, local_files_only=True, use_safetensors=True, **options
        )
    model_config = AutoConfig.for_model(**config)
    model_config.num_labels = fitted.outputs
    tensors = weights.read(folder, weights.FULL).load(fitted.names)
    # Not all numbers of fp16 are numbers of bf16.
    has_halves = any(tensor.dtype == torch.float16 for tensor in tensors.values())
    dtype = torch.bfloat16 if model_config.dtype == torch.bfloat16 and not has_halves else torch.float32
    model_class = type(wrapping.empty_model(base, fitted.outputs))
    return model_class.from_pretrained(None, config=model_config, state_dict=tensors, dtype=dtype, **options)
