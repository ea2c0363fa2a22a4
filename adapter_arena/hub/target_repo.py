"""The repo that an adapter is pushed to: what is in it already, and what of it this project wrote."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelInfo

from adapter_arena import results
from adapter_arena.adapters import plots, store
from adapter_arena.errors import AdapterError, shortened_list
from adapter_arena.hub import client
from adapter_arena.hub.adapters import TAGS
from adapter_arena.hub.downloads import FILES, has_hash_of

CARD = "README.md"
_MODEL_SUFFIXES = (
    ".bin", ".ckpt", ".gguf", ".h5", ".joblib", ".keras", ".msgpack", ".onnx", ".pb", ".pkl", ".pt", ".pth",
    ".safetensors", ".skops", ".tflite",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A repo that an adapter can be pushed to, as far as could be checked."""

    repo_id: str
    private: bool = False
    overwrite: bool = False
    note: str | None = None
    """What the user should know before the push, in one line."""


def problem_of(
    info: ModelInfo, target: Target, last: results.Results | None, published: Mapping[str, Path] | None
) -> str | None:
    """Return why nothing may be pushed to the existing repo, and the next step.

    `last` are the results of the last push to it. `published` are the files of this push by their name in the repo;
    None before the training.
    """
    repo_id = target.repo_id
    settings_page = f"{client.api().endpoint}/{repo_id}/settings"
    if info.id != repo_id:
        return f"{repo_id} is called {info.id} on the Hub: use --repo-id {info.id}."
    if target.private and not info.private:
        return (
            f"{repo_id} is public, which --private does not change: make it private at {settings_page}, name another "
            "repo with --repo-id, or leave --private out."
        )
    if not _is_ours(info):
        other_models = [name for name in _names(info) if _is_model_file(name)]
        if other_models:
            return (
                f"{repo_id} holds another model ({shortened_list(other_models[:3])}), which this project did not "
                "push: name another repo with --repo-id."
            )
    if target.overwrite:
        return None
    next_step = "name another repo with --repo-id, or add --overwrite to replace what is there."
    if _is_ours(info):
        return f"{CARD} of {repo_id} was edited after the last push: {next_step}" if _is_edited(info, last) else None
    taken = _changed_files(info, published)
    return f"{repo_id} has {shortened_list(taken)}, which this project did not write: {next_step}" if taken else None


def _names(info: ModelInfo) -> list[str]:
    return sorted(sibling.rfilename for sibling in info.siblings or [])


def _is_ours(info: ModelInfo) -> bool:
    """Return whether this project pushed to the repo before: its card has the project's tag."""
    return bool(set(info.tags or []) & set(TAGS))


def _is_model_file(name: str) -> bool:
    return name.endswith(_MODEL_SUFFIXES) and name != store.ADAPTER_WEIGHTS


def _changed_files(info: ModelInfo, published: Mapping[str, Path] | None) -> list[str]:
    """Return the files in the repo that a push would replace with another content."""
    changed = []
    for sibling in info.siblings or []:
        name = sibling.rfilename
        if published is None:
            is_changed = name in FILES
        else:
            is_changed = name in published and not has_hash_of(sibling, published[name])
        if is_changed:
            changed.append(name)
    return sorted(changed)


def last_results(info: ModelInfo) -> results.Results | None:
    """Return the results of the last push to the repo; None if there are none that can be read."""
    if results.FILE not in _names(info):
        return None
    with tempfile.TemporaryDirectory() as folder:
        client.call_with_retries(
            f"{results.FILE} of {info.id} was not read",
            lambda: client.api().hf_hub_download(info.id, results.FILE, revision=info.sha, local_dir=folder),
        )
        try:
            return results.read(Path(folder))
        except AdapterError:
            return None


def _is_edited(info: ModelInfo, last: results.Results | None) -> bool:
    """Return whether the card on the Hub is not the one of the last push. Earlier versions did not record that one."""
    if last is None or last.card_id is None:
        return False
    for sibling in info.siblings or []:
        if sibling.rfilename == CARD:
            return sibling.blob_id != last.card_id
    return False


def outdated_files(info: ModelInfo, last: results.Results | None, published: Mapping[str, Path]) -> list[str]:
    """Return the files of the last push that this one does not replace: pictures, or weights of another kind."""
    if last is None or not _is_ours(info):
        return []
    written = set(plots.names(last))
    if last.method == "full":
        written |= {store.FULL_CONFIG, store.FULL_WEIGHTS}
    else:
        written |= {store.ADAPTER_CONFIG, store.ADAPTER_WEIGHTS}
    return [name for name in _names(info) if name in written and name not in published]
