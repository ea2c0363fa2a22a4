"""Adapters on the Hub: push, discover, look up, download, remove."""

import dataclasses
import hashlib
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCardData, ModelInfo, get_token
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import git_hash

from adapter_arena import files, network, results, settings
from adapter_arena.adapters import plots, store
from adapter_arena.errors import AdapterError, HubError
from adapter_arena.hub import client
from adapter_arena.models import bases, methods

MAX_LISTED = 500
"""Number of adapters of a namespace that are offered, the most downloaded first."""
MAX_TEXT_MB = 5
"""Size limit in MB of each file other than the weights."""
TAGS = ("adapter-arena", "peft-arena")
"""Tags of full fine-tunes on the Hub: the present one and that of earlier versions."""
_CONFIGS = {store.ADAPTER_CONFIG, store.FULL_CONFIG}
_WEIGHTS = {store.ADAPTER_WEIGHTS, store.FULL_WEIGHTS}
_FILES = _CONFIGS | _WEIGHTS | {results.FILE, "README.md"} | set(plots.FILES)
"""Files that are downloaded. A repo may hold any number of others."""
_PICKLED = (".bin", ".pt", ".pth", ".pkl")


@dataclass(frozen=True)
class RemoteAdapter:
    """An adapter on the Hub at one commit. The metrics are those of its card's model-index, None if unknown."""

    repo_id: str
    revision: str
    base_model: str | None
    method: str
    dataset: str | None
    accuracy: float | None
    accuracy_ci95: list[float] | None


@dataclass(frozen=True)
class Pushed:
    """Result of a push: the repo's URL, the commit, and the tag that names the run."""

    url: str
    commit: str
    tag: str | None


# ---------------------------------------------------------------- push


def push(folder: Path, repo_id: str, private: bool = False, tag: str | None = None) -> Pushed:
    """Publish an adapter folder in one commit and tag it; a second push updates it. Raises HubError.

    The commit holds all files or is not made. It is not made twice if its response is lost.
    """
    published = _files_to_publish(folder)
    url = client.call_with_retries(
        f"Repo {repo_id} was not created",
        lambda: client.api().create_repo(repo_id, private=private or None, exist_ok=True),
    )
    commit = client.call_with_retries(
        f"{folder.name} was not uploaded to {repo_id}",
        lambda: client.commit_files(repo_id, published, tag or "update", delete_patterns=sorted(_FILES)),
    )
    if tag:
        client.call_with_retries(
            f"{repo_id} was not tagged {tag}",
            lambda: client.api().create_tag(repo_id, tag=tag, revision=commit, exist_ok=True),
        )
    return Pushed(str(url), commit, tag)


def _files_to_publish(folder: Path) -> dict[str, Path]:
    """Return the adapter's files and pictures by name. Raises HubError if one contains the user's token."""
    token = get_token()
    published = {}
    for path in sorted(folder.iterdir()):
        if path.name not in _FILES and not re.fullmatch(r"[\w-]+\.png", path.name):
            continue
        if token and token.encode() in path.read_bytes():
            raise HubError(f"{folder.name}/{path.name} contains your Hub token: remove it; nothing was uploaded.")
        published[path.name] = path
    return published


# ---------------------------------------------------------------- discover


def discover(namespace: str, base: bases.Base) -> list[RemoteAdapter]:
    """Return a Hub user's adapters for `base`, by the metadata of their cards. Raises HubError.

    A full fine-tune carries one of TAGS too: most fine-tunes of a base are not classifiers.
    """
    searches = [[f"base_model:adapter:{base.label}"]]
    for tag in TAGS:
        searches.append([f"base_model:finetune:{base.label}", tag])
    found: dict[str, RemoteAdapter] = {}
    for tags in searches:
        for model in _list_models(namespace, tags):
            if model.sha:
                found[model.id] = _remote_adapter(model)
    return list(found.values())


def _list_models(namespace: str, tags: list[str]) -> list[ModelInfo]:
    def request() -> list[ModelInfo]:
        models = client.api().list_models(
            author=namespace, filter=tags, sort="downloads", limit=MAX_LISTED, expand=["cardData", "sha", "tags"]
        )
        return list(models)

    return client.call_with_retries(f"Adapters of {namespace} were not listed", request, pauses=())


def look_up(name: str) -> RemoteAdapter:
    """Return the adapter `user/name` or `user/name@revision` at its current commit. Raises HubError."""
    path = name.strip().removeprefix("https://huggingface.co/").strip("/")
    repo_id, _, revision = path.partition("@")
    if not _is_repo_id(repo_id):
        raise HubError(f"{client.hide_token(name[:100])!r} is not a Hub id: use user/name or user/name@commit.")
    info = client.call_with_retries(
        f"Adapter {repo_id}",
        lambda: client.api().model_info(repo_id, revision=revision or None, timeout=client.TIMEOUT_SECONDS),
        pauses=(1.0,),
    )
    return _remote_adapter(info)


def _is_repo_id(repo_id: str) -> bool:
    try:
        validate_repo_id(repo_id)
    except ValueError:  # HFValidationError
        return False
    return repo_id.count("/") == 1


def _remote_adapter(info: ModelInfo) -> RemoteAdapter:
    card = info.card_data or ModelCardData()
    base_model = card.get("base_model")
    if isinstance(base_model, list) and base_model:
        base_model = base_model[0]
    known_methods = [tag for tag in info.tags or [] if tag in methods.METHODS]
    dataset = None
    scores = {}
    for result in card.eval_results or []:
        dataset = dataset or result.dataset_name
        if isinstance(result.metric_value, int | float):
            scores[result.metric_type] = result.metric_value
    interval = [scores.get("accuracy_ci95_low"), scores.get("accuracy_ci95_high")]
    return RemoteAdapter(
        repo_id=info.id,
        revision=info.sha,
        base_model=base_model,
        method=known_methods[0] if known_methods else "unknown",
        dataset=str(dataset) if dataset else None,
        accuracy=scores.get("accuracy"),
        accuracy_ci95=interval if None not in interval else None,
    )


# ---------------------------------------------------------------- download


def _downloads() -> Path:
    return files.cache_folder() / "hub"


def _repo_folder(repo_id: str) -> Path:
    """Return the folder of a repo's downloads, which holds one folder for each commit."""
    return _downloads() / repo_id.replace("/", "--")


def download(repo_id: str, revision: str) -> Path:
    """Return the adapter's folder at that commit, downloaded if it is not in the cache. Raises ArenaError.

    Only configs, safetensors, results, the card and its pictures are downloaded, and each is checked against the
    Hub's hash. The folder appears complete or not at all.
    """
    root = _repo_folder(repo_id)
    if (root / revision).is_dir():
        return root / revision
    info = client.call_with_retries(
        f"Adapter {repo_id}",
        lambda: client.api().model_info(
            repo_id, revision=revision, files_metadata=True, timeout=client.TIMEOUT_SECONDS
        ),
        pauses=(1.0,),
    )
    siblings = info.siblings or []
    problem = _problem_of(siblings)
    if problem:
        raise AdapterError(f"Adapter {repo_id} {problem}.")
    with store.saving(revision, root) as staging:
        for sibling in siblings:
            if sibling.rfilename in _FILES:
                _download_file(repo_id, revision, sibling, staging)
        shutil.rmtree(staging / ".cache", ignore_errors=True)  # the client's own
    return root / revision


def _problem_of(siblings: list[RepoSibling]) -> str | None:
    """Return why the files of a repo cannot be downloaded as an adapter, and the next step; None if they can."""
    names = {sibling.rfilename for sibling in siblings}
    if not names & _CONFIGS:
        return f"has no {store.ADAPTER_CONFIG}: it is not a PEFT adapter; check the id"
    if not names & _WEIGHTS:
        pickled = [name for name in sorted(names) if name.endswith(_PICKLED)]
        if pickled:
            return f"has only {pickled[0]}, which is pickled and never loaded: ask its author for safetensors"
        return "has no weights: ask its author for safetensors"
    total_mb = 0.0
    for sibling in siblings:
        name = sibling.rfilename
        size_mb = (sibling.size or 0) / 1e6
        if name not in _FILES:
            continue
        if name not in _WEIGHTS and size_mb > MAX_TEXT_MB:
            return (
                f"has a {name} of {size_mb:,.0f} MB, over the limit of {MAX_TEXT_MB} MB: "
                "ask its author for a smaller one"
            )
        total_mb += size_mb
    limit_mb = settings.get("ARENA_MAX_ADAPTER_MB")
    if total_mb > limit_mb:
        return (
            f"has {total_mb:,.0f} MB, over the limit of {limit_mb:,.0f} MB: raise ARENA_MAX_ADAPTER_MB if you trust it"
        )
    return None


def _download_file(repo_id: str, revision: str, sibling: RepoSibling, folder: Path) -> None:
    """Download one file into `folder`, a second time if its content does not match the Hub's hash."""
    name = sibling.rfilename
    for is_second in (False, True):
        path = client.call_with_retries(
            f"Adapter {repo_id}: {name} was not downloaded",
            lambda force=is_second: client.api().hf_hub_download(
                repo_id, name, revision=revision, local_dir=folder, force_download=force
            ),
            pauses=(1.0,),
        )
        if _has_hash_of(sibling, Path(path)):
            return
    raise AdapterError(f"Adapter {repo_id}: {name} does not match the Hub's hash, twice: please try again.")


# The client checks no hash while downloading. HfApi.verify_repo_checksums would list all files of the repo again, in
# requests without a timeout; the sizes are needed before the download, and the hashes come with them.
def _has_hash_of(sibling: RepoSibling, path: Path) -> bool:
    """Return whether a file has the content that the Hub states: SHA-256 for large files, git's hash for others."""
    if sibling.lfs:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sibling.lfs.sha256
    return git_hash(path.read_bytes()) == sibling.blob_id


def remove(repo_id: str, keep: str | None = None) -> None:
    """Remove the downloads of a repo except for the commit `keep`. They are downloaded again when needed."""
    root = _repo_folder(repo_id)
    if not root.is_dir():
        return
    for folder in list(root.iterdir()):
        if folder.name != keep:
            shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # not empty, or removed by another process
        root.rmdir()


def evict(listed: Iterable[str], most: int) -> None:
    """Remove the downloads of repos that are not in `listed`, except for the `most` that changed last."""
    listed_folders = {_repo_folder(repo_id) for repo_id in listed}
    with suppress(FileNotFoundError):  # nothing was downloaded yet, or another process that starts evicts too
        others = [folder for folder in _downloads().iterdir() if folder not in listed_folders]
        others.sort(key=lambda folder: folder.lstat().st_mtime, reverse=True)
        for folder in others[most:]:
            shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- read


def recipe_of(name: str) -> Path:
    """Return the results.json of a Hub adapter, which serves as a recipe. Raises ArenaError."""
    if not network.hub_reachable():
        raise HubError(f"The Hub cannot be reached, so the recipe of {name} cannot be fetched: use a file or a recipe.")
    remote = look_up(name)
    path = download(remote.repo_id, remote.revision) / results.FILE
    if not path.is_file():
        raise AdapterError(
            f"Adapter {remote.repo_id} has no {results.FILE}, so its run cannot be repeated: use another."
        )
    return path


def read(remote: RemoteAdapter, base: bases.Base) -> store.Adapter:
    """Download a Hub adapter and validate it for `base`. Raises ArenaError."""
    folder = download(remote.repo_id, remote.revision)
    try:
        adapter = store.read(folder, base)
    except AdapterError as error:
        # The store names the folder, and the folder's name is the commit.
        raise AdapterError(str(error).replace(remote.revision, remote.repo_id)) from error
    return dataclasses.replace(adapter, name=remote.repo_id, revision=remote.revision)
