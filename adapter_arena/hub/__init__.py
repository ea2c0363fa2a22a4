"""The only module that talks to the Hub: check a token, push, discover, download.

Whatever goes wrong there becomes a HubError of one line; the token appears in none.
"""

import dataclasses
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCardData,
    ModelInfo,
    get_session,
    get_token,
    hf_hub_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from adapter_arena import files, network, results, settings
from adapter_arena.adapters import store
from adapter_arena.errors import AdapterError, HubError
from adapter_arena.models import bases, methods

# Waits between attempts, in seconds; a Retry-After that is asked for is waited instead, up to the last one.
PAUSES = (1.0, 4.0, 15.0)
PATIENCE_SECONDS = 20.0
CALL_SECONDS = 20.0
MAX_LISTED = 500
"""Adapters of a namespace that are offered, the most downloaded ones first."""
MAX_TEXT_MB = 5
_WEIGHTS = {store.ADAPTER_WEIGHTS, store.FULL_WEIGHTS}
_FILES = {store.ADAPTER_CONFIG, store.FULL_CONFIG, results.FILE, "README.md"} | _WEIGHTS
PICTURES = {"confusion_matrix.png", "learning_curve.png", "reliability.png"}
"""Those of a card that this project writes; no others are fetched, since a repo may hold any number."""
_PASSING = {408, 409, 412, 429, 500, 502, 503, 504}
# What the client raises: HTTPError for answers and the network, RuntimeError and OSError for failed
# LFS and Xet transfers, ValueError for answers that are not what was expected.
FAILURES = (HTTPError, OSError, RuntimeError, ValueError, EntryNotFoundError)

T = TypeVar("T")


@dataclass(frozen=True)
class Remote:
    """An adapter on the Hub, pinned to a commit; metrics are those of its card's model-index, None when unknown."""

    repo_id: str
    revision: str
    base_model: str | None
    method: str
    dataset: str | None
    accuracy: float | None
    accuracy_ci95: list[float] | None


@dataclass(frozen=True)
class Pushed:
    """What a push left: the repo's URL, the commit, and the tag that names the run."""

    url: str
    commit: str
    tag: str | None


def api() -> HfApi:
    """The client, with the user's token if there is one; the endpoint is HF_ENDPOINT's."""
    get_session().timeout = CALL_SECONDS  # the client's own default is to wait for ever
    return HfApi(token=get_token() or False, library_name="adapter-arena")


def call(what: str, do: Callable[[], T], pauses: Iterable[float] | None = None) -> T:
    """`do()`, tried again while the failure may pass. Raises HubError: `what`, the reason, the next step."""
    waits = list(PAUSES if pauses is None else pauses)
    start = time.monotonic()
    for attempt in range(len(waits) + 1):
        try:
            return do()
        except FAILURES as error:
            # For some requests the client itself has tried for half a minute by now.
            late = time.monotonic() - start > PATIENCE_SECONDS
            if late or attempt == len(waits) or not _may_pass(error):
                raise HubError(f"{what}: {_reason(error)}") from error
            time.sleep(min(_retry_after(error) or waits[attempt], max(waits)))
    raise AssertionError("unreachable")


def _answer(error: BaseException | None) -> HfHubHTTPError | None:
    """The Hub's answer behind a failure: the client wraps some in RuntimeError or FileNotFoundError."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    answer = _answer(error)
    return answer.response.status_code if answer else None


def _may_pass(error: BaseException) -> bool:
    status = _status(error)
    return status in _PASSING if status else not isinstance(error, ValueError | FileNotFoundError | EntryNotFoundError)


def _retry_after(error: BaseException) -> float | None:
    answer = _answer(error)
    asked = answer.response.headers.get("Retry-After", "") if answer else ""
    return float(asked) if asked.isdigit() else None


def _reason(error: BaseException) -> str:
    """Why, in words a user can act on, without the token."""
    known = {
        401: "the token is not accepted; run `hf auth login` with a valid one",
        403: "the token has no right to do this; use one with write access, or your own --namespace",
        429: "the Hub asks to slow down; try again in a few minutes",
    }
    status = _status(error)
    if isinstance(error, GatedRepoError):
        return "the repo is gated; ask for access on its page and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repo, or it is private and the token may not read it; check the id"
    if status in known:
        return known[status]
    if status and status >= 500:
        return f"the Hub answers {status}; try again later"
    if status is None and (isinstance(error, HTTPError | ConnectionError) or isinstance(error.__cause__, HTTPError)):
        return "the Hub cannot be reached; check the network and try again"
    return hide_token(" ".join(str(error).split())[:200]) + "; try again"


def hide_token(text: str) -> str:
    """`text` without the user's token or anything that looks like one."""
    token = get_token()
    text = text.replace(token, "***") if token else text
    return re.sub(r"hf_\w{6,}", "***", text)


# ---------------------------------------------------------------- push


def check_can_push(namespace: str | None) -> str:
    """The namespace a push goes to, after asking the Hub whether the token may write there. Raises HubError."""
    if not get_token():
        raise HubError("No Hub token: run `hf auth login` or set HF_TOKEN to one with write access, then push.")
    if not network.hub_reachable():
        raise HubError("The Hub cannot be reached: check the network, or train without --push and push later.")
    me = call("The Hub token was checked", lambda: api().whoami())
    mine = [me["name"], *(org["name"] for org in me.get("orgs", []))]
    namespace = namespace or me["name"]
    if namespace not in mine:
        raise HubError(
            f"The token is {me['name']}'s and may not write to {namespace}: use --namespace {' or '.join(mine)}."
        )
    access = me.get("auth", {}).get("accessToken", {})
    if access.get("role") == "read" or not _fine_grained_write(access, namespace):
        raise HubError(
            f"The token may only read: make one with write access to {namespace} at huggingface.co/settings/tokens."
        )
    return namespace


def _fine_grained_write(access: dict, namespace: str) -> bool:
    """False when a fine-grained token has no right to write repos of that namespace."""
    if access.get("role") != "fineGrained":
        return True
    scopes = access.get("fineGrained", {}).get("scoped", [])
    return any(
        scope.get("entity", {}).get("name") == namespace and "repo.write" in scope.get("permissions", [])
        for scope in scopes
    )


def push(folder: Path, repo_id: str, private: bool = False, tag: str | None = None) -> Pushed:
    """Publish an adapter folder in one commit, and tag it; a second push updates. Raises HubError.

    Nothing is half published: the commit holds all files or is not there. If a commit's reply is
    lost, the repo is compared with the folder before anything is sent again.
    """
    files = _publishable(folder)
    url = call(
        f"Repo {repo_id} was not made", lambda: api().create_repo(repo_id, private=private or None, exist_ok=True)
    )
    what = f"{folder.name} was not uploaded to {repo_id}"
    commit = call(what, lambda: commit_files(repo_id, files, tag or "update", ours=_is_ours))
    if tag:
        call(
            f"{repo_id} was not tagged {tag}",
            lambda: api().create_tag(repo_id, tag=tag, revision=commit, exist_ok=True),
        )
    return Pushed(str(url), commit, tag)


def _is_ours(name: str) -> bool:
    return name in _FILES or bool(re.fullmatch(r"[\w-]+\.png", name))


def _publishable(folder: Path) -> dict[str, Path]:
    """The files of the folder that are published, by name. Raises HubError when a token stands in one."""
    files = {path.name: path for path in sorted(folder.iterdir()) if _is_ours(path.name)}
    token = get_token()
    for name, path in files.items():
        if token and token.encode() in path.read_bytes():
            raise HubError(f"{folder.name}/{name} contains your Hub token: take it out, nothing was uploaded.")
    return files


def commit_files(
    repo_id: str,
    files: dict[str, Path],
    message: str,
    repo_type: str = "model",
    ours: Callable[[str], bool] | None = None,
) -> str:
    """One commit that makes the repo hold `files` (path in the repo -> file); the present commit when it already does.

    Files there for which `ours` is true and that are not in `files` are deleted. To be run again
    after a failure: a commit whose reply was lost is found made.
    """
    info = api().repo_info(repo_id, repo_type=repo_type, files_metadata=True, timeout=CALL_SECONDS)
    there = {sibling.rfilename: sibling for sibling in info.siblings or []}
    stale = [name for name in there if name not in files and ours and ours(name)]
    changed = {name: path for name, path in files.items() if name not in there or not _same(path, there[name])}
    if not stale and not changed:
        return info.sha
    operations = [CommitOperationAdd(name, path) for name, path in changed.items()]
    operations += [CommitOperationDelete(name) for name in stale]
    return (
        api()
        .create_commit(repo_id, operations, commit_message=message, repo_type=repo_type, parent_commit=info.sha)
        .oid
    )


def _same(path: Path, sibling) -> bool:
    """Whether the file has the content that the Hub says its own has."""
    content = path.read_bytes()
    if sibling.lfs:
        return sibling.lfs.sha256 == hashlib.sha256(content).hexdigest()
    return sibling.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # git's own


def share_lines(repo_id: str, name: str, content: bytes) -> bytes:
    """Add lines to a file of a dataset repo (made private if it is not there); returns all lines of both. Raises HubError.

    Several apps may do so at once: each sends what it has again, so that a line lost to a race comes back.
    """
    what = f"Dataset {repo_id} was not updated"
    call(what, lambda: api().create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True))

    def share() -> bytes:
        with tempfile.TemporaryDirectory() as place:
            try:
                token = get_token() or False
                there = Path(
                    hf_hub_download(repo_id, name, repo_type="dataset", local_dir=place, token=token)
                ).read_bytes()
            except EntryNotFoundError:
                there = b""
            lines = dict.fromkeys(line for line in (there + b"\n" + content).splitlines() if line.strip())
            merged = b"".join(line + b"\n" for line in lines)
            path = Path(place) / "merged"
            path.write_bytes(merged)
            if merged != there:
                commit_files(repo_id, {name: path}, f"{len(lines):,} lines", "dataset")
            return merged

    return call(what, share)


# ---------------------------------------------------------------- discover


def discover(namespace: str, base: bases.Base) -> list[Remote]:
    """The adapters of a Hub user for `base`, by its cards' metadata; at most MAX_LISTED. Raises HubError."""
    found: dict[str, Remote] = {}
    for relation in ("adapter", "finetune"):  # `full` leaves a fine-tuned model
        filters = [f"base_model:{relation}:{base.label}"] + ["peft-arena"] * (relation == "finetune")
        models = call(
            f"Adapters of {namespace} were not listed",
            lambda filters=filters: list(
                api().list_models(
                    author=namespace,
                    filter=filters,
                    sort="downloads",
                    limit=MAX_LISTED,
                    expand=["cardData", "sha", "tags"],
                )
            ),
            pauses=(),
        )
        found |= {model.id: _remote(model) for model in models if model.sha}
    return list(found.values())


def look_up(name: str) -> Remote:
    """The adapter `user/name` or `user/name@revision` as it is now, pinned to its commit. Raises HubError."""
    repo_id, _, revision = name.strip().removeprefix("https://huggingface.co/").strip("/").partition("@")
    try:
        validate_repo_id(repo_id)
        valid = repo_id.count("/") == 1
    except ValueError:  # HFValidationError
        valid = False
    if not valid:
        raise HubError(f"{hide_token(name[:100])!r} is no Hub id: write user/name, or user/name@commit.")
    info = call(
        f"Adapter {repo_id}",
        lambda: api().model_info(repo_id, revision=revision or None, timeout=CALL_SECONDS),
        pauses=(1.0,),
    )
    return _remote(info)


def _remote(info: ModelInfo) -> Remote:
    card = info.card_data or ModelCardData()
    scores = {r.metric_type: r.metric_value for r in card.eval_results or [] if isinstance(r.metric_value, int | float)}
    dataset = next((r.dataset_name for r in card.eval_results or []), None)
    interval = [scores.get(f"accuracy_ci95_{end}") for end in ("low", "high")]
    base = card.get("base_model")
    return Remote(
        repo_id=info.id,
        revision=info.sha,
        base_model=base[0] if isinstance(base, list) and base else base,
        method=next((tag for tag in info.tags or [] if tag in methods.METHODS), "unknown"),
        dataset=str(dataset) if dataset else None,
        accuracy=scores.get("accuracy"),
        accuracy_ci95=interval if None not in interval else None,
    )


# ---------------------------------------------------------------- download


def _root() -> Path:
    return files.cache_folder() / "hub"


def _place(repo_id: str) -> Path:
    """Where what is fetched of a repo is kept, a folder for each commit."""
    return _root() / repo_id.replace("/", "--")


def download(repo_id: str, revision: str) -> Path:
    """The adapter's folder at that commit, from the cache or fetched, checked and kept. Raises ArenaError.

    Only configs, safetensors, results, card and its pictures are fetched, each checked against the
    hash that the Hub states, which its client does not do. The folder appears whole or not at all.
    """
    root = _place(repo_id)
    if (root / revision).is_dir():
        return root / revision
    what = f"Adapter {repo_id}"
    info = call(
        what,
        lambda: api().model_info(repo_id, revision=revision, files_metadata=True, timeout=CALL_SECONDS),
        pauses=(1.0,),
    )
    siblings = [sibling for sibling in info.siblings or [] if sibling.rfilename in _FILES | PICTURES]
    _check_listing(repo_id, [s.rfilename for s in info.siblings or []], siblings)
    with store.saving(revision, root) as staging:
        for sibling in siblings:
            _fetch(repo_id, revision, sibling, staging)
        shutil.rmtree(staging / ".cache", ignore_errors=True)
    return root / revision


def forget(repo_id: str, keep: str | None = None) -> None:
    """Remove what was fetched of a repo, but for the commit `keep`; whoever asks for it again fetches it again."""
    root = _place(repo_id)
    for folder in list(root.iterdir()) if root.is_dir() else []:
        if folder.name != keep:
            shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # the one that is kept stands there, or nothing does
        root.rmdir()


def tidy(known: Iterable[str], most: int) -> None:
    """Of the repos not in `known`, which earlier processes fetched, keep the `most` that changed last."""
    places = {_place(repo_id) for repo_id in known}
    with suppress(FileNotFoundError):  # nothing was fetched yet, or another process that starts removes them too
        others = [path for path in _root().iterdir() if path not in places]
        for path in sorted(others, key=lambda path: path.lstat().st_mtime, reverse=True)[most:]:
            shutil.rmtree(path, ignore_errors=True)


def _check_listing(repo_id: str, names: list[str], siblings: list) -> None:
    if not {name for name in names if name in (store.ADAPTER_CONFIG, store.FULL_CONFIG)}:
        raise AdapterError(f"Adapter {repo_id} has no {store.ADAPTER_CONFIG}: it is no PEFT adapter; check the id.")
    if not _WEIGHTS & set(names):
        pickled = next((name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))), None)
        why = f"only {pickled}, which is pickled and never loaded" if pickled else "no weights"
        raise AdapterError(f"Adapter {repo_id} has {why}: ask its author for safetensors.")
    for sibling in siblings:
        if sibling.rfilename not in _WEIGHTS and (sibling.size or 0) > MAX_TEXT_MB * 1e6:
            raise AdapterError(
                f"Adapter {repo_id}: {sibling.rfilename} has {sibling.size / 1e6:,.0f} MB, over the limit of {MAX_TEXT_MB} MB: "
                "ask its author for a smaller one."
            )
    megabytes, limit = sum(sibling.size or 0 for sibling in siblings) / 1e6, settings.number("ARENA_MAX_ADAPTER_MB")
    if megabytes > limit:
        raise AdapterError(
            f"Adapter {repo_id} has {megabytes:,.0f} MB, over the limit of {limit:,.0f} MB: "
            "raise ARENA_MAX_ADAPTER_MB if you trust it."
        )


def _fetch(repo_id: str, revision: str, sibling, folder: Path) -> None:
    """One file into `folder`, its content compared with the Hub's hash; fetched once more when it differs."""
    name = sibling.rfilename
    for again in (False, True):
        path = call(
            f"Adapter {repo_id}: {name} was not fetched",
            lambda again=again: hf_hub_download(
                repo_id, name, revision=revision, local_dir=folder, force_download=again, token=get_token() or False
            ),
            pauses=(1.0,),
        )
        if _same(Path(path), sibling):
            return
    raise AdapterError(
        f"Adapter {repo_id}: {name} is not what the Hub's hash says, twice: it was thrown away; try again."
    )


def recipe_of(name: str) -> Path:
    """The results.json of a Hub adapter, which repeats its run. Raises ArenaError."""
    if not network.hub_reachable():
        raise HubError(
            f"The Hub cannot be reached, so the recipe of {name} cannot be fetched: name a file or a recipe."
        )
    remote = look_up(name)
    path = download(remote.repo_id, remote.revision) / results.FILE
    if not path.is_file():
        raise AdapterError(
            f"Adapter {remote.repo_id} has no {results.FILE}, so its run cannot be repeated: name another."
        )
    return path


def read(remote: Remote, base: bases.Base) -> store.Adapter:
    """Fetch, validate and name a Hub adapter. Raises ArenaError."""
    folder = download(remote.repo_id, remote.revision)
    try:
        adapter = store.read(folder, base)
    except AdapterError as error:
        raise AdapterError(str(error).replace(remote.revision, remote.repo_id)) from error
    return dataclasses.replace(adapter, name=remote.repo_id, revision=remote.revision)
