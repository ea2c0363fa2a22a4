"""What the user's token may do, according to the Hub's own description of it (the response to whoami)."""

from huggingface_hub import get_token

from adapter_arena import network
from adapter_arena.errors import HubError, shortened_list
from adapter_arena.hub import client

_WRITE = "repo.write"
"""The permission of a fine-grained token to create, change and delete repos (of an account) or one repo."""
_MEMBER_ROLES_WITHOUT_WRITE = {"read", "no_access"}
_TOKENS_PAGE = "huggingface.co/settings/tokens"


def account() -> dict:
    """Return the Hub's description of the user and the token. Raises HubError if there is no valid token."""
    problem = None
    if not get_token():
        problem = "No Hub token: run `hf auth login` or set HF_TOKEN to one with write access, then push."
    elif not network.hub_reachable():
        problem = "The Hub cannot be reached: check the network, or train without --push and push later."
    if problem:
        raise HubError(problem)
    return client.call_with_retries("The Hub token could not be checked", lambda: client.api().whoami())


def write_problem(account: dict, repo_id: str, exists: bool, repo_type: str = "model") -> str | None:
    """Return why the token may not write to the repo, or None if it may or if the Hub does not say.

    `exists` tells whether the token can see the repo: a token that is limited to one repo cannot create it.
    """
    access = (account.get("auth") or {}).get("accessToken")
    if not access:  # OAuth and tokens of CI systems are not described: the Hub decides when the repo is written
        return None
    if access.get("role") == "read":
        return _read_only(repo_id)
    fine_grained = access.get("fineGrained")
    if not fine_grained or _WRITE in fine_grained.get("global", []):
        return _membership_problem(account, repo_id)
    return _scope_problem(account, fine_grained.get("scoped", []), repo_id, exists, repo_type)


def _read_only(repo_id: str) -> str:
    namespace = repo_id.partition("/")[0]
    return f"The token may only read: create one with write access to {namespace} at {_TOKENS_PAGE}."


def _membership_problem(account: dict, repo_id: str) -> str | None:
    """Return why the user, whose token has all of the user's rights, may not write to the repo."""
    namespace = repo_id.partition("/")[0]
    writable = [account["name"]]
    for organization in account.get("orgs", []):
        role = organization.get("roleInOrg")
        # A contributor writes only to repos that they created. Whether they created this one is not in the response.
        if role not in _MEMBER_ROLES_WITHOUT_WRITE:
            writable.append(organization["name"])
    if namespace in writable:
        return None
    return f"The token of {account['name']} may not write to {namespace}: use --namespace {' or '.join(writable)}."


def _scope_problem(account: dict, scopes: list[dict], repo_id: str, exists: bool, repo_type: str) -> str | None:
    """Return why a fine-grained token with these scopes may not write to the repo."""
    namespaces = []
    repos = []
    for scope in scopes:
        entity = scope.get("entity", {})
        if _WRITE not in scope.get("permissions", []):
            continue
        if entity.get("type") in ("user", "org"):
            namespaces.append(entity.get("name"))
        elif entity.get("type") == repo_type:
            repos.append(entity.get("name"))
    namespace = repo_id.partition("/")[0]
    if namespace in namespaces or (repo_id in repos and exists):
        return None
    if repo_id in repos:
        return (
            f"The token may write to {repo_id} but cannot see it: allow it to read that repo too at {_TOKENS_PAGE}, "
            "or check that the repo exists."
        )
    if not namespaces and not repos:
        return _read_only(repo_id)
    choices = [f"--namespace {name}" for name in namespaces]
    choices += [f"--repo-id {name}" for name in repos]
    return (
        f"The token of {account['name']} may write to {shortened_list(namespaces + repos)}, not to {repo_id}: "
        f"use {' or '.join(choices[:3])}, or a token with write access to {namespace}."
    )
