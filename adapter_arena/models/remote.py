"""Base models on the Hub: the config first, the other files only if the model is supported."""

import functools
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from httpx import HTTPError
from huggingface_hub import HfApi, ModelInfo, get_token, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from adapter_arena import network
from adapter_arena.errors import BaseModelError, one_line
from adapter_arena.files import sha256_of
from adapter_arena.models import inspect, weights

_TOKENIZER_FILES = re.compile(
    r"tokenizer[\w.]*\.(json|model)|vocab\.(txt|json)|merges\.txt|special_tokens_map\.json|added_tokens\.json"
    r"|(spiece|spm|sentencepiece\.bpe)\.model"
)
_MOST_CONFIG_BYTES = 5_000_000
_FAILURES = (HTTPError, OSError, RuntimeError, ValueError)
"""Exceptions of the client: HTTPError for error responses and the network, the others for failed transfers."""


class Found(NamedTuple):
    """A supported base model: its config and its revision."""

    config: dict
    revision: str


def find(repo_id: str) -> Found:
    """Return the config of a Hub model; nothing else is downloaded. Raises BaseModelError if it is not supported.

    No request is made if the model is in the Hub's cache.
    """
    if found := find_cached(repo_id):
        return found
    if not network.hub_reachable():
        raise BaseModelError(f"Base model {repo_id} is not on this machine and the Hub cannot be reached")
    return _find_on_hub(repo_id)


def find_cached(repo_id: str) -> Found | None:
    """Return a model that is complete in the Hub's cache, or None. Raises BaseModelError if it is not supported."""
    cached = try_to_load_from_cache(repo_id, "config.json")
    if not isinstance(cached, str) or not is_complete(Path(cached).parent):
        return None
    config = inspect.load_config(repo_id, Path(cached).read_text())
    return Found(config, Path(cached).parent.name)


def is_complete(folder: Path) -> bool:
    """Return whether a folder of the Hub's cache has the model's weights and tokenizer."""
    try:
        weights.files(folder)
    except BaseModelError:
        return False
    return any(folder.glob("tokenizer*"))


@functools.lru_cache(maxsize=64)
def _find_on_hub(repo_id: str) -> Found:
    info = _model_info(repo_id)
    names = [file.rfilename for file in info.siblings or []]
    problem = inspect.files_problem(names)
    if problem:
        raise BaseModelError(f"Base model {repo_id} {problem}.")
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    if sizes["config.json"] > _MOST_CONFIG_BYTES:
        raise BaseModelError(
            f"Base model {repo_id} has a config.json of {sizes['config.json']:,} bytes: use another one."
        )
    with tempfile.TemporaryDirectory() as folder:  # a model that is not supported leaves nothing in the Hub's cache
        path = _request(repo_id, hf_hub_download, repo_id, "config.json", revision=info.sha, local_dir=folder)
        config = inspect.load_config(repo_id, Path(path).read_text(errors="replace"))
    unused = inspect.unused_files(names)
    if unused:
        print(f"base model {repo_id}: {unused}", file=sys.stderr)
    return Found(config, info.sha)


def download(repo_id: str, revision: str | None) -> Path:
    """Download a base model's config, tokenizer and weights; return their folder. Raises BaseModelError.

    The client does not check what it downloads, so the weights' hashes are compared with the Hub's.
    """
    info = _model_info(repo_id, revision)
    names = [file.rfilename for file in info.siblings or []]
    problem = inspect.files_problem(names)
    if problem:
        raise BaseModelError(f"Base model {repo_id} {problem}.")
    wanted = ["config.json", *filter(_TOKENIZER_FILES.fullmatch, names)]
    folder = Path()
    for name in wanted:
        folder = Path(_request(repo_id, hf_hub_download, repo_id, name, revision=revision)).parent
    for name in _weight_names(repo_id, revision, names):
        path = Path(_request(repo_id, hf_hub_download, repo_id, name, revision=revision))
        _check_hash(repo_id, path, info)
    return folder


def megabytes(repo_id: str, revision: str | None) -> float:
    """Return the size of what `download` fetches, in MB of 10^6 bytes. Raises BaseModelError."""
    sizes = {file.rfilename: file.size or 0 for file in _model_info(repo_id, revision).siblings or []}
    weight_files = [weights.SINGLE]
    if weights.SINGLE not in sizes:  # shards, whose list need not be downloaded for an estimate
        weight_files = [name for name in sizes if "/" not in name and name.endswith(".safetensors")]
    others = ["config.json", *filter(_TOKENIZER_FILES.fullmatch, sizes)]
    return sum(sizes[name] for name in [*weight_files, *others]) / 1e6


def _weight_names(repo_id: str, revision: str | None, names: list[str]) -> list[str]:
    if weights.SINGLE in names:
        return [weights.SINGLE]
    index = Path(_request(repo_id, hf_hub_download, repo_id, weights.INDEX, revision=revision))
    return weights.shard_names(index.read_text())


def _check_hash(repo_id: str, path: Path, info: ModelInfo) -> None:
    """Delete a file whose hash is not the Hub's, and raise BaseModelError."""
    for file in info.siblings or []:
        if file.rfilename == path.name and file.lfs and sha256_of(path) != file.lfs.sha256:
            path.resolve().unlink()
            raise BaseModelError(
                f"Base model {repo_id}: {path.name} was damaged in transfer and is deleted; try again."
            )


def _model_info(repo_id: str, revision: str | None = None) -> ModelInfo:
    return _request(repo_id, HfApi().model_info, repo_id, revision=revision, files_metadata=True)


def _request(repo_id: str, function, *args, **options):
    """Return the result of a function of the client, called with the user's token. Raises BaseModelError."""
    try:
        return function(*args, **options, token=get_token() or False)
    except GatedRepoError as error:
        raise BaseModelError(
            f"Base model {repo_id} is gated: accept its terms at https://huggingface.co/{repo_id} and set HF_TOKEN to "
            "your token."
        ) from error
    except RepositoryNotFoundError as error:
        raise BaseModelError(
            f"Base model {repo_id} is not on the Hub, or is private: check the id, or set HF_TOKEN to a token that may "
            "read it"
        ) from error
    except _FAILURES as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else type(error).__name__
        raise BaseModelError(
            f"Base model {repo_id}: the Hub request failed ({status}: {one_line(error)[:100]}); try again."
        ) from error
