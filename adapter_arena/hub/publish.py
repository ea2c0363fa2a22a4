"""Publish an adapter folder as a model repo, without touching what others or the user put there."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData, get_token
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import git_hash

from adapter_arena.adapters import store
from adapter_arena.errors import HubError
from adapter_arena.hub import client, rights, target_repo
from adapter_arena.hub.downloads import FILES, WEIGHTS
from adapter_arena.hub.target_repo import CARD, Target

_MAX_CARD_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class PushOptions:
    """What the user says about a push."""

    namespace: str | None = None
    """User or organisation; the token's own if not set."""
    repo_id: str | None = None
    """`user/name`, or a name; the name of the adapter if not set."""
    private: bool = False
    overwrite: bool = False
    """Whether files may be replaced that this project did not write."""


@dataclass(frozen=True)
class Pushed:
    """Result of a push: the repo's URL, the commit, and whether the repo is private."""

    url: str
    commit: str
    private: bool


# ---------------------------------------------------------------- checks before a training


def check_target(
    name: str, options: PushOptions, card: ModelCardData | None = None, folder: Path | None = None
) -> Target:
    """Return the repo to push the adapter `name` to. Raises HubError if the push would be refused later.

    Checked are the repo id, what the token may do, the repo's visibility and the files in it, and as much of the
    card's metadata as is known. `folder` is that of the adapter, if it is trained already.
    """
    published = _files_to_publish(folder) if folder else None
    account = rights.account()
    repo_id = _repo_id(name, options, account["name"])
    info = client.find_repo(repo_id)
    target = Target(repo_id, options.private, options.overwrite)
    problem = rights.write_problem(account, repo_id, exists=info is not None)
    if problem is None and info is not None:
        problem = target_repo.problem_of(info, target, target_repo.last_results(info), published)
    if problem:
        raise HubError(problem)
    if card is not None:
        _check_metadata(card)
    if info is not None and info.private and not options.private:
        note = f"{repo_id} is private and stays private: its visibility can be changed in its settings on the Hub."
        return dataclasses.replace(target, note=note)
    return target


def _repo_id(name: str, options: PushOptions, user: str) -> str:
    """Return the id of the repo. Raises HubError for an id that the Hub does not accept."""
    repo_id = (options.repo_id or name).removeprefix("https://huggingface.co/").strip("/ ")
    owner, slash, _ = repo_id.partition("/")
    if not slash:
        repo_id = f"{options.namespace or user}/{repo_id}"
    elif options.namespace not in (None, owner):
        raise HubError(f"--repo-id {repo_id} is not in --namespace {options.namespace}: leave --namespace out.")
    try:
        validate_repo_id(repo_id)
    except ValueError as error:  # HFValidationError
        raise HubError(
            f"{client.hide_token(repo_id)[:120]!r} is not a valid repo id (letters a-z, digits, '-', '_' and '.', no "
            f"'--' or '..', at most 96 characters): name one with --repo-id {_suggestion(repo_id)}."
        ) from error
    return repo_id


def _suggestion(repo_id: str) -> str:
    """Return a valid repo id that resembles `repo_id`."""
    owner, _, name = repo_id.partition("/")
    words = re.findall(r"[A-Za-z0-9_]+", name.removesuffix(".git"))
    return f"{owner}/{'-'.join(words)[:60].strip('-') or 'my-adapter'}"


def _check_metadata(card: ModelCardData) -> None:
    """Raise HubError if the Hub does not accept the metadata."""

    def problem_of_card() -> str | None:
        try:
            ModelCard(f"---\n{card.to_yaml()}\n---\n").validate()
        except ValueError as error:
            return str(error)
        return None

    problem = client.call_with_retries("The card's metadata could not be checked", problem_of_card)
    if problem:
        reason = client.hide_token(" ".join(problem.split()))[:300]
        raise HubError(f"The Hub refuses the card's metadata: {reason}. Correct the flag that sets it.")


# ---------------------------------------------------------------- push


def git_id(path: Path) -> str:
    """Return the id by which git, and so the Hub, knows the content of a file."""
    return git_hash(path.read_bytes())


def push(folder: Path, target: Target, tag: str | None = None) -> Pushed:
    """Publish an adapter folder in one commit and tag it; a second push updates it. Raises HubError.

    The commit holds all files or is not made. It is not made twice if its response is lost. If it is not made, a repo
    that was created for it is deleted again.
    """
    published = _files_to_publish(folder)
    repo_id = target.repo_id
    is_new = client.find_repo(repo_id) is None and client.create_repo(repo_id, target.private)
    try:
        pushed = client.call_with_retries(
            f"{folder.name} was not uploaded to {repo_id}", lambda: _commit(target, published, tag or "update")
        )
    except HubError as error:
        message = str(error)
        if is_new:
            message = f"{message.rstrip('.')}. {_after_failure(repo_id)}".strip()
        raise HubError(message) from error
    except KeyboardInterrupt:
        if is_new:
            _after_failure(repo_id)
        raise
    if tag:
        client.call_with_retries(
            f"{repo_id} was not tagged {tag}",
            lambda: client.api().create_tag(repo_id, tag=tag, revision=pushed.commit, exist_ok=True),
        )
    return pushed


def _commit(target: Target, published: Mapping[str, Path], message: str) -> Pushed:
    """Make the commit on top of the present one. Raises HubError if the repo has changed so that it may not be."""
    info = client.repo_info(target.repo_id)
    last = target_repo.last_results(info)
    problem = target_repo.problem_of(info, target, last, published)
    if problem:
        raise HubError(problem)
    commit = client.commit_files(info, published, message, target_repo.outdated_files(info, last, published))
    return Pushed(f"{client.api().endpoint}/{target.repo_id}", commit, bool(info.private))


def _after_failure(repo_id: str) -> str:
    """Delete the repo that was created for a failed push if it is still empty; return a sentence about it."""
    try:
        is_deleted = client.delete_empty_repo(repo_id)
    except HubError:
        return f"The new repo {repo_id} may be empty: delete it at {client.api().endpoint}/{repo_id}/settings."
    return f"The new repo {repo_id} was deleted again." if is_deleted else ""


def _files_to_publish(folder: Path) -> dict[str, Path]:
    """Return the adapter's files and the pictures of its card by name.

    Raises HubError if one contains the user's token.
    """
    token = get_token()
    pictures = _pictures_of_card(folder / CARD)
    published = {}
    for path in sorted(folder.iterdir()):
        if path.name not in FILES and path.name not in pictures:
            continue
        if token and token.encode() in path.read_bytes():
            raise HubError(f"{folder.name}/{path.name} contains your Hub token: remove it; nothing was uploaded.")
        published[path.name] = path
    if not published.keys() & WEIGHTS:
        raise HubError(f"{folder} has no {store.ADAPTER_WEIGHTS} (or {store.FULL_WEIGHTS}): name an adapter folder.")
    return published


def _pictures_of_card(card: Path) -> set[str]:
    """Return the names of the pictures that a card shows. Other pictures in the folder are the user's own."""
    if not card.is_file():
        return set()
    with card.open(encoding="utf-8", errors="replace") as file:
        return set(re.findall(r"\]\(([\w-]+\.png)\)", file.read(_MAX_CARD_CHARACTERS)))
