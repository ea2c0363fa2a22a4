"""Requests to the Hugging Face Hub: retries, timeouts and errors of one line.

Every failure becomes a HubError. The user's token appears in none.
"""

import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from httpx import Response
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    SpaceInfo,
    get_session,
    get_token,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

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
    403: "the token has no right to do this; use one with write access, or another --namespace or --repo-id",
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
    pauses = PAUSES if pauses is None else pauses
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


def _response_of(error: BaseException | None) -> Response | None:
    """Return the Hub's response if it caused the error: the client wraps some in RuntimeError or FileNotFoundError."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error.response if error else None


def _is_temporary(error: BaseException) -> bool:
    response = _response_of(error)
    if response is not None:
        return response.status_code in _TEMPORARY_STATUSES
    return not isinstance(error, ValueError | FileNotFoundError | EntryNotFoundError)


def _retry_after(error: BaseException) -> float | None:
    """Return the seconds in the response's Retry-After header, if it has one."""
    response = _response_of(error)
    value = "" if response is None else response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def _reason(error: BaseException) -> str:
    """Return the reason and the next step, without the token."""
    response = _response_of(error)
    status = None if response is None else response.status_code
    if isinstance(error, GatedRepoError):
        return "the repo is gated; request access on its page and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repo, or it is private and the token may not read it; check the id"
    if status == 401 and "expired" in response.text:
        return "the token has expired; create a new one at huggingface.co/settings/tokens and run `hf auth login`"
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


# ---------------------------------------------------------------- commits


def find_repo(repo_id: str, repo_type: str = "model") -> ModelInfo | SpaceInfo | None:
    """Return the repo with the sizes and hashes of its files; None if there is none that the token may read.

    Raises HubError.
    """

    def find() -> ModelInfo | SpaceInfo | None:
        try:
            return repo_info(repo_id, repo_type)
        except RepositoryNotFoundError:
            return None

    return call_with_retries(f"Repo {repo_id} was not checked", find)


def repo_info(repo_id: str, repo_type: str = "model") -> ModelInfo | SpaceInfo:
    """Return the repo with the sizes and hashes of its files. Raises the client's exceptions."""
    return api().repo_info(repo_id, repo_type=repo_type, files_metadata=True, timeout=TIMEOUT_SECONDS)


# Not HfApi.upload_folder: with Xet it splits an upload into several commits, and it lists the repo without a timeout.
def commit_files(
    info: ModelInfo | SpaceInfo, files: Mapping[str, Path], message: str, deleted: Iterable[str] = ()
) -> str:
    """Write `files` (path in the repo -> local file) in one commit on top of `info.sha` and return its id.

    The files `deleted` are deleted. Unchanged files are not sent; if nothing changed, the id is that of the latest
    commit. The Hub refuses the commit if another one was made since `info` was read: read it again and retry. That is
    safe after every failure, also if the commit was made and only the response was lost.
    """
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for name, path in files.items():
        operations.append(CommitOperationAdd(name, path))
    for name in deleted:
        operations.append(CommitOperationDelete(name))
    repo_type = "space" if isinstance(info, SpaceInfo) else "model"
    commit = api().create_commit(
        info.id, operations, commit_message=message, repo_type=repo_type, parent_commit=info.sha
    )
    return commit.oid


def create_repo(repo_id: str, private: bool) -> bool:
    """Create a model repo; return False if it exists already. Raises HubError."""

    def create() -> bool:
        try:
            api().create_repo(repo_id, private=private or None)
        except HfHubHTTPError as error:
            if error.response.status_code == 409:
                return False
            raise
        return True

    return call_with_retries(f"Repo {repo_id} was not created", create)


def delete_empty_repo(repo_id: str) -> bool:
    """Delete a model repo that has no commit but the one that creates it; return whether it was. Raises HubError."""

    def delete() -> bool:
        if len(api().list_repo_commits(repo_id)) != 1:
            return False
        api().delete_repo(repo_id)
        return True

    return call_with_retries(f"Repo {repo_id} was not deleted", delete, pauses=())


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
