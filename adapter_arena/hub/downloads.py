"""Downloads of adapters from the Hub, in the cache folder."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import ModelInfo
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils.sha import git_hash

from adapter_arena import files, results, settings
from adapter_arena.adapters import documents, plots, store
from adapter_arena.errors import AdapterError, shortened_list
from adapter_arena.hub import client

MAX_TEXT_MB = 5
"""Size limit in MB of each file other than the weights."""
_CONFIGS = {store.ADAPTER_CONFIG, store.FULL_CONFIG}
WEIGHTS = {store.ADAPTER_WEIGHTS, store.FULL_WEIGHTS}
FILES = _CONFIGS | WEIGHTS | {results.FILE, "README.md"} | set(plots.FILES)
"""Files that are downloaded. A repo may hold any number of others."""
_PICKLED = (".bin", ".pt", ".pth", ".pkl")


def model_info(repo_id: str, revision: str | None, files_metadata: bool = False) -> ModelInfo:
    options = {"revision": revision, "files_metadata": files_metadata, "timeout": client.TIMEOUT_SECONDS}
    return client.call_with_retries(
        f"Adapter {repo_id}", lambda: client.api().model_info(repo_id, **options), pauses=(1.0,)
    )


def split_folder(path: str) -> tuple[str, str]:
    """Return the repo and the folder in it of `user/name/folder`; the folder is empty for `user/name`."""
    parts = path.split("/")
    return "/".join(parts[:2]), "/".join(parts[2:])


def is_folder(folder: str) -> bool:
    """Return whether this is a path below the repo's root, or empty."""
    if not folder:
        return True
    return "\\" not in folder and not any(part.startswith(".") or not part for part in folder.split("/"))


def _downloads() -> Path:
    return files.cache_folder() / "hub"


def _repo_folder(repo_id: str) -> Path:
    """Return the folder of a repo's downloads, or of a folder of it, which holds one folder for each commit."""
    repo_id, folder = split_folder(repo_id)
    name = repo_id.replace("/", "--")
    if folder:
        name += f"--{quote(folder, safe='')}"
    return _downloads() / name


def download(repo_id: str, revision: str) -> Path:
    """Return the adapter's folder at that commit, downloaded if it is not in the cache. Raises ArenaError.

    `repo_id` may name a folder of the repo (see RemoteAdapter). Only configs, safetensors, results, the card and its
    pictures are downloaded, and each is checked against the Hub's hash. The folder appears complete or not at all.
    """
    root = _repo_folder(repo_id)
    if (root / revision).is_dir():
        return root / revision
    name, _ = split_folder(repo_id)
    wanted = _wanted_files(repo_id, revision)
    with store.saving(revision, root) as staging, tempfile.TemporaryDirectory(dir=staging) as place:
        for file, sibling in wanted.items():
            path = _download_file(name, revision, sibling, Path(place))
            path.replace(staging / file)
    return root / revision


@dataclass(frozen=True)
class Preview:
    """An adapter on the Hub of which only the config was read."""

    config: dict
    """Its adapter_config.json, or the config.json of a full fine-tune."""
    is_full: bool
    megabytes: float
    """Size of its download in MB of 10^6 bytes; 0 if it is in the cache."""


def preview(repo_id: str, revision: str) -> Preview:
    """Return what `download` would fetch; only the config is downloaded. Raises ArenaError."""
    name, _ = split_folder(repo_id)
    wanted = _wanted_files(repo_id, revision)
    is_full = store.ADAPTER_CONFIG not in wanted
    megabytes = sum(sibling.size or 0 for sibling in wanted.values()) / 1e6
    if (_repo_folder(repo_id) / revision).is_dir():
        megabytes = 0.0
    config = wanted[store.FULL_CONFIG if is_full else store.ADAPTER_CONFIG]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / name.rpartition("/")[2]  # errors name the folder of the file
        folder.mkdir()
        path = _download_file(name, revision, config, folder)
        content = documents.read_json(path)
    return Preview(content, is_full, megabytes)


def _wanted_files(repo_id: str, revision: str) -> dict[str, RepoSibling]:
    """Return the files of an adapter that are downloaded, by name. Raises ArenaError if it cannot be served."""
    name, folder = split_folder(repo_id)
    siblings = model_info(name, revision, files_metadata=True).siblings or []
    in_folder = _files_in(siblings, folder)
    problem = _missing_file(in_folder, name, siblings) or _size_problem(in_folder)
    if problem:
        raise AdapterError(f"Adapter {repo_id} {problem}.")
    return {file: sibling for file, sibling in in_folder.items() if file in FILES}


def _files_in(siblings: list[RepoSibling], folder: str) -> dict[str, RepoSibling]:
    """Return the files directly in a folder of the repo (empty: its root) by their name."""
    found = {}
    for sibling in siblings:
        parent, _, name = sibling.rfilename.rpartition("/")
        if parent == folder:
            found[name] = sibling
    return found


def _missing_file(files: dict[str, RepoSibling], repo_id: str, siblings: list[RepoSibling]) -> str | None:
    """Return which file of an adapter is not in `files`, and the next step; None if there are all."""
    folders = _folders_with_adapters(siblings)
    problem = None
    next_step = "ask its author for safetensors"
    if not files.keys() & _CONFIGS:
        problem = f"has no {store.ADAPTER_CONFIG}"
        next_step = "it is not a PEFT adapter; check the id"
    elif not files.keys() & WEIGHTS:
        pickled = [name for name in sorted(files) if name.endswith(_PICKLED)]
        if pickled:
            return f"has only {pickled[0]}, which is pickled and never loaded: {next_step}"
        problem = "has no weights"
    if problem is None:
        return None
    if folders and folders[0] == "":
        next_step = f"use {repo_id}"
    elif folders:
        problem += f", but adapters in {shortened_list(folders)}"
        next_step = f"name one as {repo_id}/{folders[0]}"
    return f"{problem}: {next_step}"


def _folders_with_adapters(siblings: list[RepoSibling]) -> list[str]:
    """Return the folders of a repo that have a config and weights; the root is the empty string and comes first."""
    parents = {sibling.rfilename.rpartition("/")[0] for sibling in siblings}
    folders = []
    for parent in sorted(parents):
        names = _files_in(siblings, parent).keys()
        if is_folder(parent) and names & _CONFIGS and names & WEIGHTS:
            folders.append(parent)
    return folders


def _size_problem(files: dict[str, RepoSibling]) -> str | None:
    """Return which of the files are too large to be downloaded, and the next step; None if none are."""
    total_mb = 0.0
    for name, sibling in files.items():
        size_mb = (sibling.size or 0) / 1e6
        if name not in FILES:
            continue
        if name not in WEIGHTS and size_mb > MAX_TEXT_MB:
            return f"has a {name} of {size_mb:,.0f} MB, over the limit of {MAX_TEXT_MB} MB: ask its author for a smaller one"
        total_mb += size_mb
    limit_mb = settings.get("ARENA_MAX_ADAPTER_MB")
    if total_mb > limit_mb:
        return (
            f"has {total_mb:,.0f} MB, over the limit of {limit_mb:,.0f} MB: raise ARENA_MAX_ADAPTER_MB if you trust it"
        )
    return None


def _download_file(repo_id: str, revision: str, sibling: RepoSibling, folder: Path) -> Path:
    """Download one file below `folder` and return its path; a second time if its content has not the Hub's hash."""
    name = sibling.rfilename
    for is_second in (False, True):
        path = client.call_with_retries(
            f"Adapter {repo_id}: {name} was not downloaded",
            lambda force=is_second: client.api().hf_hub_download(
                repo_id, name, revision=revision, local_dir=folder, force_download=force
            ),
            pauses=(1.0,),
        )
        if has_hash_of(sibling, Path(path)):
            return Path(path)
    raise AdapterError(f"Adapter {repo_id}: {name} does not match the Hub's hash, twice: please try again.")


# The client checks no hash while downloading. HfApi.verify_repo_checksums would list all files of the repo again, in
# requests without a timeout; the sizes are needed before the download, and the hashes come with them.
def has_hash_of(sibling: RepoSibling, path: Path) -> bool:
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
