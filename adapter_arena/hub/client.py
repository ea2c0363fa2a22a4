"""Requests to the Hugging Face Hub: retries, timeouts and errors of one line.

Every failure becomes a HubError. The user's token appears in none.
"""

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects

from adapter_arena import network
from adapter_arena.errors import HubError

PAUSES = (1.0, 4.0, 15.0)
"""Seconds between attempts. A Retry-After header takes precedence, up to the longest of these."""
RETRY_SECONDS = 20.0
"""No further attempt starts after this time: for some requests the client itself has retried for half a minute."""
TIMEOUT_SECONDS = 20.0
FAILURES = (HTTPError, OSError, RuntimeError, ValueError, EntryNotFoundError)
"""Exceptions of the client: HTTPError for error responses and the network, RuntimeError and OSError for failed LFS
and Xet transfers, ValueError for unexpected responses."""
_TEMPORARY_STATUSES = {408, 409, 412, 429, 500, 502, 503, 504}
_REASONS = {
    401: "the token is not accepted; run `hf auth login` with a valid one",
    403: "the token has no right to do this; use one with write access, or your own --namespace",
    429: "the Hub asks clients to slow down; try again in a few minutes",
}

T = TypeVar("T")


def api() -> HfApi:
    """Return a client with the user's token, if there is one. HF_ENDPOINT sets the endpoint."""
    get_session().timeout = TIMEOUT_SECONDS  # the client's default is no timeout
    return HfApi(token=get_token() or False, library_name="adapter-arena")


# The client retries some requests, but not whoami, create_repo, model_info or a commit.
def call_with_retries(failure: str, function: Callable[[], T], pauses: Sequence[float] | None = None) -> T:
    """Return `function()`, retried while the failure may be temporary.

    `failure` begins the message of the HubError that is raised in the end; the reason and the next step follow.
    """
    if pauses is None:
        pauses = PAUSES
    remaining = list(pauses)
    start = time.monotonic()
    while True:
        try:
            return function()
        except FAILURES as error:
            is_late = time.monotonic() - start > RETRY_SECONDS
            if not remaining or is_late or not _is_temporary(error):
                raise HubError(f"{failure}: {_reason(error)}") from error
            pause = _retry_after(error) or remaining[0]
            del remaining[0]
            time.sleep(min(pause, max(pauses)))


def _http_error(error: BaseException | None) -> HfHubHTTPError | None:
    """Return the Hub's error response: the client wraps some in RuntimeError or FileNotFoundError."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error


def _status_of(error: BaseException) -> int | None:
    http_error = _http_error(error)
    return http_error.response.status_code if http_error else None


def _is_temporary(error: BaseException) -> bool:
    status = _status_of(error)
    if status is not None:
        return status in _TEMPORARY_STATUSES
    return not isinstance(error, ValueError | FileNotFoundError | EntryNotFoundError)


def _retry_after(error: BaseException) -> float | None:
    """Return the seconds in the response's Retry-After header, if it has one."""
    http_error = _http_error(error)
    if http_error is None:
        return None
    value = http_error.response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def _reason(error: BaseException) -> str:
    """Return the reason and the next step, without the token."""
    status = _status_of(error)
    if isinstance(error, GatedRepoError):
        return "the repo is gated; request access on its page and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repo, or it is private and the token may not read it; check the id"
    if status in _REASONS:
        return _REASONS[status]
    if status is not None and status >= 500:
        return f"the Hub responds with status {status}; try again later"
    is_network_error = isinstance(error, HTTPError | ConnectionError) or isinstance(error.__cause__, HTTPError)
    if status is None and is_network_error:
        return "the Hub cannot be reached; check the network and try again"
    message = " ".join(str(error).split())
    return hide_token(message[:200]) + "; try again"


def hide_token(text: str) -> str:
    """Return `text` without the user's token or anything that looks like a token."""
    token = get_token()
    if token:
        text = text.replace(token, "***")
    return re.sub(r"hf_\w{6,}", "***", text)


# ---------------------------------------------------------------- rights


def check_can_push(namespace: str | None) -> str:
    """Return the namespace to push to, by default the user's own. Raises HubError if the token may not write there."""
    if not get_token():
        raise HubError("No Hub token: run `hf auth login` or set HF_TOKEN to one with write access, then push.")
    if not network.hub_reachable():
        raise HubError("The Hub cannot be reached: check the network, or train without --push and push later.")
    account = call_with_retries("The Hub token could not be checked", lambda: api().whoami())
    user = account["name"]
    writable = [user]
    for organization in account.get("orgs", []):
        writable.append(organization["name"])
    namespace = namespace or user
    if namespace not in writable:
        choices = " or ".join(writable)
        raise HubError(f"The token of {user} may not write to {namespace}: use --namespace {choices}.")
    access = account.get("auth", {}).get("accessToken", {})
    if not _has_write_access(access, namespace):
        raise HubError(
            f"The token may only read: create one with write access to {namespace} at huggingface.co/settings/tokens."
        )
    return namespace


def _has_write_access(access: dict, namespace: str) -> bool:
    """Return whether a token may write to the namespace; `access` is the Hub's description of the token."""
    role = access.get("role")
    if role != "fineGrained":
        return role != "read"
    for scope in access.get("fineGrained", {}).get("scoped", []):
        is_namespace = scope.get("entity", {}).get("name") == namespace
        if is_namespace and "repo.write" in scope.get("permissions", []):
            return True
    return False


# ---------------------------------------------------------------- commits


# Not HfApi.upload_folder: with Xet it splits an upload into several commits, and it lists the repo without a timeout.
def commit_files(
    repo_id: str, files: dict[str, Path], message: str, *, repo_type: str = "model", delete_patterns: Sequence[str] = ()
) -> str:
    """Write `files` (path in the repo -> local file) in one commit and return its id.

    Files in the repo that match `delete_patterns` and are not in `files` are deleted. Unchanged files are not sent;
    if nothing changed, the id is that of the latest commit. It is therefore safe to call it again after a failure,
    also if the commit was made and only the response was lost.
    """
    info = api().repo_info(repo_id, repo_type=repo_type, timeout=TIMEOUT_SECONDS)
    existing = [sibling.rfilename for sibling in info.siblings or []]
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for name, path in files.items():
        operations.append(CommitOperationAdd(name, path))
    for name in filter_repo_objects(existing, allow_patterns=list(delete_patterns)):
        if name not in files:
            operations.append(CommitOperationDelete(name))
    return api().create_commit(repo_id, operations, commit_message=message, repo_type=repo_type).oid


def share_lines(repo_id: str, name: str, content: bytes) -> bytes:
    """Merge lines into a file of a dataset repo and return all lines. Raises HubError.

    The repo is created, private, if it does not exist. Several apps may call this at the same time: a commit based on
    an outdated file is refused by the Hub and retried.
    """
    failure = f"Dataset {repo_id} was not updated"
    call_with_retries(failure, lambda: api().create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True))
    return call_with_retries(failure, lambda: _merge_lines(repo_id, name, content))


def _merge_lines(repo_id: str, name: str, content: bytes) -> bytes:
    commit = api().repo_info(repo_id, repo_type="dataset", timeout=TIMEOUT_SECONDS).sha
    published = _read_file(repo_id, name, commit)
    lines = {}  # a dict keeps the order
    for line in (published + b"\n" + content).splitlines():
        if line.strip():
            lines[line] = None
    merged = b"".join(line + b"\n" for line in lines)
    if merged != published:
        api().create_commit(
            repo_id,
            [CommitOperationAdd(name, merged)],
            commit_message=f"{len(lines):,} lines",
            repo_type="dataset",
            parent_commit=commit,
        )
    return merged


def _read_file(repo_id: str, name: str, commit: str) -> bytes:
    """Return the content of a file in a dataset repo, empty if there is no such file."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = api().hf_hub_download(repo_id, name, repo_type="dataset", revision=commit, local_dir=folder)
        except RemoteEntryNotFoundError:  # not its base class, which an unreachable Hub raises too
            return b""
        return Path(path).read_bytes()
