"""Which tensor of a file is which tensor of the model, if the file names them differently.

Tools wrap models (`module.`, `_orig_mod.`), leave the adapter's name in the tensors' names (`lora_A.default.weight`),
or train on the encoder alone (`base_model.model.encoder…` instead of `base_model.model.bert.encoder…`). A name is only
translated if its path inside the encoder or head and its shape are those of exactly one tensor of the model.
"""

import difflib
import itertools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

HEADS = ("classifier", "score", "classification_head", "cls", "head", "fc", "out_proj")
"""Names that classification heads have in transformers and in people's own models."""
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_PREFIXES = ("base_model", "model")
_OLD_NAMES = {"gamma": "weight", "beta": "bias"}
"""Of normalisation layers, from the first BERT checkpoints."""
_UNUSED = ("original_module", "position_ids", "token_type_ids", "ranknum")
"""Parts of names of tensors that the model does not read: a trained head's untrained original, and constants."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """How the tensors of a file map to those of the model."""

    names: dict[str, str] = field(default_factory=dict)
    """The model's name by the file's."""
    renamed: int = 0
    unused: list[str] = field(default_factory=list)
    """Tensors of the file that no model reads."""
    repeated: dict[str, str] = field(default_factory=dict)
    """Tensors of the file that must be equal to another one of it, by name: PEFT saves some biases of heads twice."""
    unknown: list[str] = field(default_factory=list)
    """Tensors of the file without a place in the model."""
    missing: list[str] = field(default_factory=list)
    """Tensors of the model that the file does not have."""


@dataclass(frozen=True)
class Reader:
    """Reads the names in the files of one kind of adapter."""

    prefixes: tuple[str, ...] = ()
    """How the names of the adapter's own parameters begin, such as `lora_`; none for a full model."""
    encoder: str = ""
    """Name of the encoder in the model, such as `bert`."""
    logits: str = "classifier"
    """The last layer of the model's head."""

    def adapter_names(self, names: list[str]) -> set[str]:
        """Return the adapter names that are part of the tensors' names."""
        found = set()
        for name in names:
            parts = name.split(".")
            for part, following in itertools.pairwise(parts):
                if self._is_own(part) and following not in ("weight", "bias"):
                    found.add(following)
        return found

    def _is_own(self, part: str) -> bool:
        return bool(self.prefixes) and part.startswith(self.prefixes)

    def plain(self, name: str, adapter_names: set[str]) -> str:
        """Return the name without wrappers and the adapter's name."""
        parts = [part for part in name.split(".") if part not in _WRAPPERS]
        while parts and parts[0] == "module":
            parts = parts[1:]
        kept: list[str] = []
        previous = ""
        for part in parts:
            is_adapter_name = part in adapter_names and (self._is_own(previous) or previous == "modules_to_save")
            if not is_adapter_name and part not in ("modules_to_save", "base_layer"):
                kept.append(part)
            previous = part
        if kept[-2:] == ["lora_magnitude_vector", "weight"]:
            kept = kept[:-1]
        if kept and "norm" in "".join(kept[-2:-1]).lower():
            kept[-1] = _OLD_NAMES.get(kept[-1], kept[-1])
        return ".".join(kept)

    def match(self, have: Shapes, want: Shapes) -> Layout:
        """Return how the tensors of a file, `have`, map to those of the model, `want`."""
        unused = [name for name in have if not set(_UNUSED).isdisjoint(name.split("."))]
        adapter_names = self.adapter_names(list(have)) | {"default"}
        want = {name: shape for name, shape in want.items() if not _is_repeated(name)}
        by_plain = {self.plain(name, {"default"}): name for name in want}
        places = defaultdict(list)
        others = {}
        for name, shape in have.items():
            if name in unused:
                continue
            plain = self.plain(name, adapter_names)
            target = by_plain.get(plain)
            if target is not None and want[target] == shape:
                places[target].append(name)
            else:
                others[name] = plain
        free = {plain: name for plain, name in by_plain.items() if name not in places}
        for name, plain in others.items():
            fitting = [
                target for path, target in free.items() if want[target] == have[name] and self._same(plain, path)
            ]
            if len(fitting) == 1:
                places[fitting[0]].append(name)
        names = {}
        repeated = {}
        for target, sources in places.items():
            if len(sources) == 1:
                names[sources[0]] = target
            elif target in sources:
                names[target] = target
                repeated |= {source: target for source in sources if source != target}
        placed = {*names, *unused, *repeated}
        return Layout(
            names=names,
            renamed=sum(source != target for source, target in names.items()),
            unused=unused,
            repeated=repeated,
            unknown=[name for name in have if name not in placed],
            missing=[name for name in want if name not in names.values()],
        )

    def adapted_modules(self, names: list[str]) -> list[str]:
        """Return the paths inside the encoder of the modules that the adapter's own tensors belong to."""
        modules = set()
        adapter_names = self.adapter_names(names)
        for name in names:
            parts = self.plain(name, adapter_names).split(".")
            own = [index for index, part in enumerate(parts) if self._is_own(part)]
            if own and own[0] > 1:
                modules.add(self.inside(".".join(parts[: own[0]])))
        return sorted(modules)

    def _same(self, name: str, path: str) -> bool:
        """Return whether a plain name of the file certainly is the model's tensor with the plain name `path`."""
        inside = self.inside(path)
        if f".{name}".endswith(f".{inside}"):
            before = name.removesuffix(inside).rstrip(".")
            return not any(map(self._contradicts, before.split(".")))
        root, _, rest = inside.partition(".")
        if root != self.logits.partition(".")[0]:
            return False
        return any(f".{name}".endswith(f".{head}.{rest}") for head in HEADS if head != root)

    def inside(self, path: str) -> str:
        """Return the path of a tensor inside the encoder, or inside the classifier with its head."""
        parts = path.split(".")
        while len(parts) > 1 and parts[0] in (*_PREFIXES, self.encoder):
            parts = parts[1:]
        return ".".join(parts)

    def _contradicts(self, part: str) -> bool:
        """Return whether a part in front of the path is a number, as of a list of models, or names another encoder."""
        if part.isdigit():
            return True
        return part != self.encoder and (part in CONFIG_MAPPING_NAMES or f"{part}-v2" in CONFIG_MAPPING_NAMES)

    def outputs(self, shapes: Shapes) -> int | None:
        """Return the number of outputs of the head; None if the file has no head."""
        adapter_names = self.adapter_names(list(shapes)) | {"default"}
        candidates = {}
        for name, shape in shapes.items():
            plain = self.plain(name, adapter_names)
            module, _, last = plain.rpartition(".")
            is_own = any(map(self._is_own, plain.split(".")))
            if last == "weight" and len(shape) == 2 and not is_own and "original_module" not in name:
                candidates[module] = shape[0]
        for head in (self.logits, *HEADS):
            for module, outputs in candidates.items():
                if f".{module}".endswith(f".{head}") and not _has_number(module):
                    return outputs
        return None


def _is_repeated(name: str) -> bool:
    """Return whether PEFT saves the tensor under another name too, or does not read it."""
    return not {"original_module", "modules_to_save"}.isdisjoint(name.split("."))


def _has_number(module: str) -> bool:
    """Return whether the module is inside a list, as the layers of an encoder are."""
    return any(part.isdigit() for part in module.split("."))


def nearest(name: str, names: list[str]) -> str | None:
    """Return the name that is most like `name`."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    return close[0] if close else None
