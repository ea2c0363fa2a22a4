"""Which modules of a model each method adapts, derived from its config and its module tree.

The module tree is built on the meta device, so neither weights nor memory are needed.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from adapter_arena.errors import BaseModelError

_PROJECTION = r"(to_|w)?{}(_?(proj|lin|linear|layer|attn|b_proj|head))?"
_QUERY = re.compile(_PROJECTION.format("(q|query)"), re.IGNORECASE)
_KEY = re.compile(_PROJECTION.format("(k|key)"), re.IGNORECASE)
_VALUE = re.compile(_PROJECTION.format("(v|value)"), re.IGNORECASE)
_FUSED = re.compile(r"w?qkv(_?proj)?|query_key_value|c_attn|att_proj|in_proj|kv_b_proj|kv_proj|qk_proj", re.IGNORECASE)
"""One layer for several of query, key and value."""
_LAST_TOKEN = ("ctrl", "modernbert-decoder")
"""Decoders whose last layer is named `classifier`, as an encoder's is; others name it `score`."""


_TOKENS_ONLY = ("esmc", "longformer")
"""Models that need token ids besides embeddings, as the heads of all encoder-decoders do."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_MOST_STACKED = 0.5
"""Largest share of weights in parameters of more than two dimensions, relative to those in linear layers."""


@dataclass(frozen=True)
class Architecture:
    """Which modules of a base model each method adapts, and which modules are its head.

    Names are suffixes of module names. The head (everything above the encoder) is trained and saved in full by every
    method and is not quantised.
    """

    attention: tuple[str, ...]
    all_linear: tuple[str, ...]
    ia3: tuple[str, ...]
    ia3_feedforward: tuple[str, ...]
    head: tuple[str, ...]
    norms: tuple[str, ...] = ("LayerNorm",)
    logits: str = "classifier"
    """The last layer of the head."""
    autocast: bool = True
    """Whether it runs under bf16 autocast; if not, it computes in fp32 on every machine."""
    pools_last_token: bool = False
    """Whether the head reads the last token of a text that is not padding, as a decoder's does."""
    is_encoder_decoder: bool = False
    embedding_size: int | None = None
    """Width of the token embeddings that prompt tuning adds to; None if the model cannot read embeddings."""

    def targets(self, spec: str) -> list[str]:
        """Return module names for `attention`, `all-linear`, `ia3`, `norms` or a comma-separated list."""
        groups = {"attention": self.attention, "all-linear": self.all_linear, "ia3": self.ia3, "norms": self.norms}
        if spec in groups:
            return list(groups[spec])
        names = (name.strip() for name in spec.split(","))
        return [name for name in names if name]

    @property
    def outside_encoder(self) -> str:
        """A regular expression for the modules of the head, which no method may wrap."""
        return outside_encoder(self.head)


def outside_encoder(head: Iterable[str]) -> str:
    """Return a regular expression for the modules of a head."""
    return rf"(.*\.)?({'|'.join(head)})(\..*)?"


def derive(model: PreTrainedModel, autocast: bool = True) -> Architecture:
    """Return the architecture of a classifier, also one on the meta device. Raises BaseModelError.

    The message completes the sentence "Base model x …".
    """
    tree = _Tree(model)
    linear = tree.encoder_modules(nn.Linear, Conv1D)
    query = [name for name in linear if _matches(_QUERY, name)]
    key = [name for name in linear if _matches(_KEY, name)]
    value = [name for name in linear if _matches(_VALUE, name)]
    fused = [name for name in linear if _matches(_FUSED, name)]
    feedforward = _feedforward_outputs(model, linear, attention={*query, *key, *value, *fused})
    return Architecture(
        attention=tree.suffixes([*query, *value, *fused] or linear),
        all_linear=tree.suffixes(linear),
        ia3=tree.suffixes([*key, *value, *fused, *feedforward] or linear),
        ia3_feedforward=tree.suffixes(feedforward),
        head=tree.head,
        norms=tree.suffixes(tree.norms()),
        logits=tree.logits,
        pools_last_token=tree.logits == "score" or model.config.model_type in _LAST_TOKEN,
        autocast=autocast,
        is_encoder_decoder=bool(model.config.is_encoder_decoder),
        embedding_size=_embedding_size(model),
    )


def _matches(pattern: re.Pattern, name: str) -> bool:
    return pattern.fullmatch(name.rpartition(".")[2]) is not None


def _feedforward_outputs(model: PreTrainedModel, linear: dict[str, nn.Module], attention: set[str]) -> list[str]:
    """Return the last layers of the feed-forward blocks: they narrow to the model's width, outside the attention."""
    width = model.config.get_text_config().hidden_size
    attention_parents = {name.rpartition(".")[0] for name in attention}
    outputs = []
    for name, module in linear.items():
        features_in, features_out = _sizes(module)
        parent = name.rpartition(".")[0]
        if features_out == width and features_in > width and name not in attention and parent not in attention_parents:
            outputs.append(name)
    return outputs


def is_quantisable(module: nn.Module) -> bool:
    """Return whether bitsandbytes can store the layer in 4 bits; it leaves subclasses of Linear as they are."""
    return type(module) is nn.Linear or isinstance(module, Conv1D)


def _sizes(module: nn.Module) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of a linear layer."""
    if isinstance(module, Conv1D):
        return tuple(module.weight.shape)
    return module.in_features, module.out_features


class _Tree:
    """The modules of a classifier, with its head told apart from its encoder."""

    def __init__(self, model: PreTrainedModel):
        self._modules = dict(model.named_modules())
        self._labels = model.config.num_labels
        prefix = model.base_model_prefix
        self._encoder = getattr(model, prefix, None)
        if self._encoder is None:
            raise BaseModelError("keeps its classification head inside its encoder, which is not supported")
        heads = [name for name, child in model.named_children() if name != prefix and _has_parameters(child)]
        self._pooler = None
        for name, child in self._encoder.named_children():
            if name == "pooler" and _has_parameters(child):
                self._pooler = f"{prefix}.{name}"
        self.head = ("pooler", *heads) if self._pooler and "pooler" not in heads else tuple(heads)
        self._encoder_names = {
            name for name in self._modules if name.startswith(f"{prefix}.") and not self._is_pooler(name)
        }
        for name in self._encoder_names:
            if name.endswith(self.head):
                raise BaseModelError(f"has a module {name} in its encoder, named like its head, which is not supported")
        self.logits = self._last_layer()
        self._refuse_unquantised()

    def _is_pooler(self, name: str) -> bool:
        return self._pooler is not None and f"{name}.".startswith(f"{self._pooler}.")

    def _last_layer(self) -> str:
        """Return the name of the only linear layer of the head with one output for each label."""
        found = []
        for name, module in self._modules.items():
            is_head = name and name not in self._encoder_names and not self._is_pooler(name)
            if is_head and isinstance(module, nn.Linear) and module.out_features == self._labels:
                found.append(name)
        if len(found) != 1:
            raise BaseModelError(f"has {len(found)} layers with one output for each label, where one is needed")
        return found[0]

    def _refuse_unquantised(self) -> None:
        """Raise BaseModelError if too many of the encoder's weights are not in layers that 4 bits can store."""
        quantised = 0
        stacked: dict[str, int] = {}
        for name, module in self.encoder_modules(nn.Module).items():
            for parameter_name, parameter in module.named_parameters(recurse=False):
                if is_quantisable(module) and parameter.ndim == 2:
                    quantised += parameter.numel()
                elif parameter.ndim > 2 and not isinstance(module, _CONVOLUTIONS):
                    stacked[f"{name}.{parameter_name}"] = parameter.numel()
        if sum(stacked.values()) > _MOST_STACKED * quantised:
            raise BaseModelError(
                f"keeps several layers in one parameter ({next(iter(stacked), '')}), as a mixture of experts does, which "
                "cannot be stored in 4 bits"
            )
        if not quantised:
            raise BaseModelError("has no linear layers of PyTorch's own class, the only ones that 4 bits can store")

    def encoder_modules(self, *kinds: type[nn.Module]) -> dict[str, nn.Module]:
        """Return the encoder's modules of these classes by name."""
        found = {}
        for name, module in self._modules.items():
            if name in self._encoder_names and isinstance(module, kinds):
                found[name] = module
        return found

    def norms(self) -> list[str]:
        """Return the names of the encoder's normalisation layers."""
        found = []
        for name, module in self._modules.items():
            is_norm = "norm" in type(module).__name__.lower() and _has_parameters(module)
            if name in self._encoder_names and is_norm and not any(module.children()):
                found.append(name)
        return found

    def suffixes(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Return the shortest suffixes of module names that name `wanted` and no other module with parameters.

        If no suffix without a layer's number tells a module from others, the longest one is used: PEFT has no other
        way of naming them, and its own table for BERT adapts the attention's `output.dense` with the
        feed-forward's too.
        """
        wanted = set(wanted)
        others = [name for name, module in self._modules.items() if name not in wanted and _has_own_parameters(module)]
        found: dict[str, None] = {}
        for name in sorted(wanted, key=list(self._modules).index):
            if not any(f".{name}".endswith(f".{suffix}") for suffix in found):
                found[_suffix(name, others)] = None
        return tuple(found)


def _suffix(name: str, others: list[str]) -> str:
    """Return the shortest suffix of `name`, of complete parts, that no other name ends with."""
    parts = name.split(".")
    suffix = parts.pop()
    if suffix.isdigit() and parts:  # a layer of a ModuleList or Sequential
        suffix = f"{parts.pop()}.{suffix}"
    while any(f".{other}".endswith(f".{suffix}") for other in others):
        if not parts or parts[-1].isdigit():
            break
        suffix = f"{parts.pop()}.{suffix}"
    return suffix


def _embedding_size(model: PreTrainedModel) -> int | None:
    if model.config.is_encoder_decoder or model.config.model_type in _TOKENS_ONLY:
        return None
    try:
        embeddings = model.get_input_embeddings()
    except NotImplementedError:  # CANINE hashes characters
        return None
    return embeddings.embedding_dim if isinstance(embeddings, nn.Embedding) else None


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _has_own_parameters(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None
