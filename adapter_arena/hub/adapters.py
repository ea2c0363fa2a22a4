"""Adapters on the Hub: discover, look up, read."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCardData, ModelInfo
from huggingface_hub.utils import validate_repo_id

from adapter_arena import network, results
from adapter_arena.adapters import store
from adapter_arena.errors import AdapterError, HubError
from adapter_arena.hub import client, downloads
from adapter_arena.models import bases, methods

MAX_LISTED = 500
"""Number of adapters of a namespace that are offered, the most downloaded first."""
TAGS = ("adapter-arena", "peft-arena")
"""Tags of full fine-tunes on the Hub: the present one and that of earlier versions."""


@dataclass(frozen=True)
class RemoteAdapter:
    """An adapter on the Hub at one commit. The metrics are those of its card's model-index, None if unknown."""

    repo_id: str
    """`user/name`, or `user/name/folder` for an adapter in a folder of the repo."""
    revision: str
    base_model: str | None
    method: str
    dataset: str | None
    accuracy: float | None
    accuracy_ci95: list[float] | None


# ---------------------------------------------------------------- discover


def discover(namespace: str, base: bases.Base, other_bases: bool = False) -> list[RemoteAdapter]:
    """Return a Hub user's adapters for `base`, by the metadata of their cards. Raises HubError.

    A full fine-tune carries one of TAGS too: most fine-tunes of a base are not classifiers. With `other_bases`,
    everything with one of TAGS is returned, those for `base` first.
    """
    searches = [[f"base_model:adapter:{base.label}"]]
    for tag in TAGS:
        searches.append([f"base_model:finetune:{base.label}", tag])
    if other_bases:
        searches.extend([tag] for tag in TAGS)
    found: dict[str, RemoteAdapter] = {}
    for tags in searches:
        query = {"author": namespace, "filter": tags, "sort": "downloads", "limit": MAX_LISTED}
        models = client.call_with_retries(
            f"Adapters of {namespace} were not listed",
            lambda query=query: list(client.api().list_models(**query, expand=["cardData", "sha", "tags"])),
            pauses=(),
        )
        for model in models:
            if model.sha:
                found.setdefault(model.id, _remote_adapter(model))
    return list(found.values())


def look_up(name: str) -> RemoteAdapter:
    """Return the adapter `user/name[/folder][@revision]` at its current commit. Raises HubError."""
    path, revision = _split_revision(name)
    repo_id, folder = downloads.split_folder(path)
    problem = None
    if not _is_repo_id(repo_id) or not downloads.is_folder(folder):
        problem = (
            f"{client.hide_token(name[:100])!r} is not a Hub id: use user/name, user/name@commit or user/name/folder."
        )
    elif not network.hub_reachable():
        problem = f"The Hub cannot be reached, so {path} cannot be fetched: check the network, or use a local one."
    if problem:
        raise HubError(problem)
    remote = _remote_adapter(downloads.model_info(repo_id, revision))
    if not folder:
        return remote
    # The metrics are those of the repo's own card.
    return dataclasses.replace(remote, repo_id=f"{remote.repo_id}/{folder}", accuracy=None, accuracy_ci95=None)


def _split_revision(name: str) -> tuple[str, str | None]:
    """Return the path and the revision of `user/name@revision`, or of the address of a page on the Hub."""
    path = name.strip().removeprefix("https://huggingface.co/").strip("/")
    for page in ("/tree/", "/blob/"):
        repo_id, is_page, rest = path.partition(page)
        if is_page:
            revision, _, folder = rest.partition("/")
            return f"{repo_id}/{folder}".strip("/"), revision
    path, _, revision = path.partition("@")
    return path.strip("/"), revision or None


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


# ---------------------------------------------------------------- read


def recipe_of(name: str) -> Path:
    """Return the results.json of a Hub adapter, which serves as a recipe. Raises ArenaError."""
    remote = look_up(name)
    path = downloads.download(remote.repo_id, remote.revision) / results.FILE
    if not path.is_file():
        raise AdapterError(
            f"Adapter {remote.repo_id} has no {results.FILE}, so its run cannot be repeated: use another."
        )
    return path


def read(remote: RemoteAdapter, base: bases.Base) -> store.Adapter:
    """Download a Hub adapter and validate it for `base`. Raises ArenaError."""
    folder = downloads.download(remote.repo_id, remote.revision)
    try:
        adapter = store.read(folder, base)
    except AdapterError as error:
        # The store names the folder, and the folder's name is the commit.
        raise AdapterError(str(error).replace(remote.revision, remote.repo_id)) from error
    return dataclasses.replace(adapter, name=remote.repo_id, revision=remote.revision)
