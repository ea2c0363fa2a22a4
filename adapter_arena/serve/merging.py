"""Hot adapters: copies of the model whose linear layers hold base and adapter as one weight in the compute type.

Served from 4 bits an adapter costs its own bytes, but each pass dequantises the base's weights and runs the
adapter's own products beside them. An adapter that is asked often is merged, under a budget of memory.
"""

import logging
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn import functional

from adapter_arena import settings
from adapter_arena.models import bases, methods
from adapter_arena.models.fast import fused

if TYPE_CHECKING:
    from adapter_arena.serve.served import Served

_LOG = logging.getLogger(__name__)
_TOLERANCE = 1e-3
"""Of a merged layer's output on random input, relative to its size; fp32 alone leaves 1e-6."""


def budget_mb() -> float:
    """Megabytes (10^6 bytes) that merged copies may take: ARENA_HOT_MB, 512 without it, 0 for none."""
    return settings.number("ARENA_HOT_MB")


class MergedCache:
    """The merged copies of the adapters used last; safe to ask from any thread."""

    def __init__(self, base: nn.Module, megabytes: float):
        self._budget = megabytes * 1e6
        self._kept: OrderedDict[str, tuple[Served, nn.Module, int]] = OrderedDict()
        self._base = SharedLayers.of(base)
        self._lock, self._one_at_a_time = threading.Lock(), threading.Lock()

    @property
    def megabytes(self) -> float:
        """What the copies take, without the base's own layers that they share."""
        with self._lock:
            return sum(size for _, _, size in self._kept.values()) / 1e6

    def find(self, served: "Served") -> nn.Module | None:
        """The adapter's merged model, if it has one; it is then the one used last."""
        with self._lock:
            entry = self._kept.get(served.adapter.name)
            if entry is None or entry[0] is not served:
                return None
            self._kept.move_to_end(served.adapter.name)
            return entry[1]

    def forget(self, name: str) -> None:
        """Let go of the adapter's merged model, if it has one."""
        with self._lock:
            self._kept.pop(name, None)

    def heat(self, served: "Served") -> bool:
        """Merge the adapter, and let go of those unused longest as the budget wants; False if it stays cold."""
        with self._one_at_a_time:  # what is asked here may have changed while this waited for its turn
            if self.find(served):
                return True
            if self._budget <= 0 or not served.merges_left:
                return False
            try:
                found = merged(served.model, self._base)
            except Exception as error:  # noqa: BLE001 - whatever a PEFT type does not bear, it is served cold
                _LOG.warning("adapter %s is served unmerged: %s", served.adapter.name, error)
                served.merges_left -= 1  # tried again when it was asked as often once more
                return False
            with self._lock:
                if found is None or found[1] > self._budget:
                    served.merges_left = 0
                    return False
                size = found[1]
                self._kept.pop(served.adapter.name, None)
                while self._kept and size + sum(entry[2] for entry in self._kept.values()) > self._budget:
                    self._kept.popitem(last=False)[1][0].rows = 0
                self._kept[served.adapter.name] = (served, found[0], size)
        return True


class Widened(Linear4bit):
    """A layer of the base whose weight is also held in the compute type, so that no pass dequantises it."""

    wide: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what Linear4bit does: the product in the compute type, the result in the type of `x`."""
        bias = None if self.bias is None else self.bias.to(self.wide.dtype)
        return functional.linear(x.to(self.wide.dtype), self.wide, bias).to(x.dtype)


def widen(base: nn.Module, megabytes: float) -> float:
    """Also hold the base's weights in the compute type if `megabytes` have room for them; return what they take.

    It goes before merged copies, since every adapter that is not merged runs on it; to be called before any skeleton
    is made. fp32 takes twice as much as bf16.
    """
    layers = [module for module in base.modules() if type(module) is Linear4bit]
    weights = sum(layer.in_features * layer.out_features * layer.compute_dtype.itemsize for layer in layers)
    size = weights / 1e6
    if not layers or size > megabytes:
        return 0.0
    for layer in layers:
        layer.__class__ = Widened
        wide = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(layer.compute_dtype)
        layer.register_buffer("wide", wide, persistent=False)  # skeletons share buffers
    return size


class SharedLayers(NamedTuple):
    """Dequantised layers of the base that some adapter leaves as they are, by the ids of what they are made of."""

    plain: dict[int, nn.Linear | None]
    """None until an adapter leaves that layer as it is; weights that are not in it are not the base's."""
    fused: fused.Shared

    @classmethod
    def of(cls, base: nn.Module) -> "SharedLayers":
        """Room for the base's layers."""
        return cls({id(m.weight): None for m in base.modules() if isinstance(m, Linear4bit)}, {})


@torch.inference_mode()
def merged(model: nn.Module, shared: SharedLayers) -> tuple[nn.Module, int] | None:
    """Return a copy of `model` with linear layers in the compute type for those in 4 bits, and its bytes.

    None if a layer cannot be merged.

    Works for every adapter that keeps a layer linear, whatever its type: the layer is asked what it does to
    the unit vectors.
    """
    copy = methods.forget_norms(bases.skeleton(model))
    size, done = 0, set()
    for name, module in list(copy.named_modules()):
        if isinstance(module, BaseTunerLayer) and isinstance(module.get_base_layer(), Linear4bit):
            new = _asked(module)
            if new is None:
                return None
            size += sum(p.nbytes for p in new.parameters())
        elif isinstance(module, Linear4bit) and not any(name.startswith(f"{outer}.") for outer in done):
            key = id(module.weight)
            new = shared.plain.get(key) or _dequantised(module).to(module.compute_dtype)
            if key in shared.plain:
                shared.plain[key], new.is_base = new, True
            else:
                size += sum(p.nbytes for p in new.parameters())
        else:
            continue
        done.add(name)
        parent, _, child = name.rpartition(".")
        setattr(copy.get_submodule(parent), child, new)
    plain = copy.get_base_model() if isinstance(copy, PeftModel) else copy
    if methods.virtual_tokens(copy) or (whole := fused.fuse(plain, shared.fused)) is None:
        return copy, size
    return whole, whole.nbytes


def _asked(layer: BaseTunerLayer) -> nn.Linear | None:
    """The linear layer that `layer` is with its adapter; None when it is not linear."""
    dtype = layer.get_base_layer().compute_dtype
    exact = _dequantised(layer.get_base_layer())
    outermost = layer
    while isinstance(outermost.base_layer, BaseTunerLayer):
        outermost = outermost.base_layer
    # The type is named: while transformers loads a model on another thread, everyone's default is bf16.
    like = {"device": exact.weight.device, "dtype": torch.float32}
    units = torch.eye(exact.in_features, **like)
    exact.__class__, exact.units = _Exact, units
    outermost.base_layer = exact  # of the copy, which alone is changed
    bias = layer(torch.zeros(1, exact.in_features, **like))
    weight = (layer(units) - bias).T
    probe = torch.randn(4, exact.in_features, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    probe = probe.to(exact.weight.device)
    wanted = layer(probe)
    if not (wanted - probe @ weight.T - bias).abs().max() <= _TOLERANCE * wanted.abs().max():
        return None
    return _linear(weight, bias[0]).to(dtype)


class _Exact(nn.Linear):
    """A dequantised layer of the base that knows its product with the unit vectors, most of what merging would compute."""

    units: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As Linear's."""
        if x is not self.units:
            return super().forward(x)
        return self.weight.T.clone() if self.bias is None else self.weight.T + self.bias


def _dequantised(layer: Linear4bit) -> nn.Linear:
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    return _linear(weight, layer.bias)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    with torch.device("meta"):  # its random weights would be drawn for nothing
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().float(), requires_grad=False)
    return layer
