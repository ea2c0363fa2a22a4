"""A small Hugging Face Hub on loopback, for tests: the unmodified huggingface_hub client talks to it.

    with HubServer() as hub:
        api = HfApi(endpoint=hub.url, token="hf_write")
        hub.fail(r"POST .*/commit/", Fault(lose_reply=True))

It keeps everything in memory, has one branch (`main`) and tags, stores large files by basic LFS, and answers 404 to
whatever it does not know. The client sends large files by Xet unless HF_HUB_DISABLE_XET=1 is set before it is imported,
so tests that upload need that variable.
"""

import base64
import hashlib
import itertools
import json
import re
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import yaml  # not of the standard library, but huggingface_hub itself requires it

LARGE = 10 * 1024 * 1024
LFS_SUFFIXES = (".safetensors", ".png", ".bin")
BAD_TOKEN = "Invalid credentials in Authorization header"  # the client tells this 401 from the others by these words
FRONT_MATTER = re.compile(r"\s*---\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|$)", re.DOTALL)
LISTED = ("_id", "id", "createdAt", "downloads", "library_name", "likes", "modelId", "pipeline_tag", "private", "tags")
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
_number = itertools.count(1)  # of commits and jobs: tells apart what one millisecond made


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _list(value: Any) -> list:
    """A card's field as a list: authors write one value bare."""
    return [] if value is None else value if isinstance(value, list) else [value]


@dataclass
class Account:
    """Whose token it is; `role` is "write", "read", "fine-grained write" or "fine-grained read"."""

    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()

    def may_read(self, namespace: str) -> bool:
        """Whether private repositories of `namespace` are visible to it."""
        return namespace in (self.name, *self.orgs)

    def may_write(self, namespace: str) -> bool:
        """Whether it may create and change repositories of `namespace`."""
        return self.role.endswith("write") and self.may_read(namespace)


@dataclass
class Fault:
    """What goes wrong with a request. Several kinds together are fine, such as a delay and then a status."""

    status: int | None = None  # answered instead of carrying the request out
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None  # of that answer, as JSON; an "error" in it is sent as X-Error-Message too, as the Hub does
    cut: int | None = None  # the connection drops after this many bytes: of the upload, or of the reply without one
    reset: bool = False  # drops are resets (RST), which the client sees as another error than an end (FIN)
    lose_reply: bool = False  # the request is carried out and the connection closed instead of an answer
    flip: bool = False  # one byte of the upload, or of the reply to a GET, is another; the length stays right
    delay: float = 0.0  # seconds before the request is looked at
    times: int | None = 1  # how many requests it strikes; None for every one


@dataclass(frozen=True)
class File:
    """One version of a file; large ones are what git calls a pointer to the content."""

    data: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        """The content's hash, which names it in large-file storage."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def blob(self) -> bytes:
        """What git stores: the content, or the pointer to it."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        return pointer.encode() if self.lfs else self.data

    @cached_property
    def git_oid(self) -> str:
        """The git hash of the blob."""
        return hashlib.sha1(b"blob %d\0" % len(self.blob) + self.blob).hexdigest()

    @property
    def etag(self) -> str:
        """What the client compares its own file with."""
        return self.sha256 if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    sha: str
    title: str
    message: str
    author: str
    date: str
    files: dict[str, File]
    number: int


@dataclass
class Repo:
    """A repository; `commits` are of the branch main, oldest first, and each holds all the files."""

    kind: str  # "model", "space" or "dataset"
    id: str
    private: bool = False
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)  # stored large contents, by sha256
    expected: set[str] = field(default_factory=set)  # contents whose upload was asked for
    downloads: int = 0
    likes: int = 0
    sdk: str | None = None
    hardware: str = "cpu-basic"
    sleep_time: int | None = None
    secrets: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """Whose it is."""
        return self.id.split("/")[0]

    @property
    def path(self) -> str:
        """Where it is below the endpoint."""
        return self.id if self.kind == "model" else f"{self.kind}s/{self.id}"

    @property
    def runtime(self) -> dict[str, Any]:
        """How a space runs."""
        hardware = {"current": self.hardware, "requested": self.hardware}
        return {"stage": "RUNNING", "hardware": hardware, "gcTimeout": self.sleep_time}

    @property
    def head(self) -> Commit:
        """The newest commit of main."""
        return self.commits[-1]

    @property
    def files(self) -> dict[str, bytes]:
        """The contents on main, by path."""
        return {path: file.data for path, file in self.head.files.items()}

    def at(self, revision: str) -> Commit:
        """The commit that a branch, tag or (abbreviated) commit name means."""
        wanted = self.head.sha if revision == "main" else self.tags.get(revision, revision)
        for commit in self.commits:
            if len(wanted) >= 7 and commit.sha.startswith(wanted):
                return commit
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def commit(self, files: dict[str, File], title: str, message: str = "", author: str = "system") -> Commit:
        """Adds a commit to main."""
        number = next(_number)
        # Of the contents too: a cache that outlives the process would else give out another commit's files.
        content = [self.kind, self.id, number, title, sorted((path, file.etag) for path, file in files.items())]
        sha = hashlib.sha1(repr(content).encode()).hexdigest()
        self.commits.append(Commit(sha, title, message, author, _now(), files, number))
        return self.head


@dataclass
class Job:
    """A job that was asked for, with the client's whole request in `spec`; nothing is run."""

    id: str
    namespace: str
    spec: dict[str, Any]
    created: str = field(default_factory=_now)
    looked_at: int = 0  # times its status was asked for, which is what moves it along

    def shown(self, stages: list[str]) -> dict[str, Any]:
        """What the Hub says of it: of secrets the names only."""
        keys = ("dockerImage", "spaceId", "command", "arguments", "environment", "flavor", "labels", "volumes")
        stage = stages[min(self.looked_at, len(stages) - 1)]
        about = {"id": self.id, "createdAt": self.created, "status": {"stage": stage, "message": None}}
        owner = {"id": self.namespace, "name": self.namespace, "type": "user"}
        secrets = dict.fromkeys(self.spec.get("secrets", {}), "")
        return {key: self.spec.get(key) for key in keys} | about | {"owner": owner, "secrets": secrets}


class HubError(Exception):
    """An answer that is an error, with the X-Error-Code from which the client chooses its exception."""

    def __init__(self, status: int, message: str, code: str = "", **more: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.more = status, message, code, more


@dataclass
class Reply:
    """An answer."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> "Reply":
        """An answer in JSON; a card's dates become text."""
        kind = {"Content-Type": "application/json; charset=utf-8"}
        return cls(json.dumps(content, default=str).encode(), status, kind | (headers or {}))

    @classmethod
    def error(cls, status: int, content: Any, headers: dict[str, str]) -> "Reply":
        """An error as the Hub writes it: its message is in a header too, since HEAD has no body."""
        text = content.get("error") if isinstance(content, dict) else None
        shown = {"X-Error-Message": text} if isinstance(text, str) else {}
        return cls.json(content, status, shown | headers)


@dataclass
class Ask:
    """A request, with the named parts of its path."""

    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    account: Account | None
    parts: dict[str, str]

    def json(self) -> dict[str, Any]:
        """The body, read as JSON."""
        return json.loads(self.body or b"{}")

    def one(self, name: str, default: str = "") -> str:
        """A query parameter's last value."""
        return self.query.get(name, [default])[-1]

    def flag(self, name: str) -> bool:
        """Whether a query parameter says yes."""
        return self.one(name).lower() in ("1", "true")

    @property
    def kind(self) -> str:
        """The repository type in the path: it is a plural there, and absent for models where files are served."""
        return self.parts.get("kind", "").removesuffix("s") or "model"


class HubServer:
    """The Hub. Start and stop it as a context manager; its state may be read and changed while it runs."""

    def __init__(self, port: int = 0, page_size: int = 100) -> None:
        self.port = port
        self.page_size = page_size
        self.accounts = {
            "hf_write": Account("alice"),
            "hf_read": Account("alice", "read"),
            "hf_bob": Account("bob"),
        }
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[str] = []
        self.commits_made: Counter[tuple[str, str]] = Counter()  # by key of `repos`: commits that a client sent
        self.jobs: dict[str, Job] = {}
        self.job_stages = ["RUNNING", "COMPLETED"]  # what each look at a job finds; the last one stays
        self.job_logs = ["hello from the job"]
        self._faults: list[tuple[re.Pattern[str], Fault]] = []
        self._listener: _Listener | None = None
        self._lock = threading.RLock()
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self.back()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.gone()

    @property
    def url(self) -> str:
        """The endpoint to give to the client."""
        return f"http://127.0.0.1:{self.port}"

    def back(self) -> None:
        """Listens (again); nothing is forgotten in between."""
        if self._listener is None:
            self._stopping.clear()
            self._listener = _Listener(self)
            self.port = self._listener.server_address[1]
            threading.Thread(target=self._listener.serve_forever, args=(0.01,), daemon=True).start()

    def gone(self) -> None:
        """Stops listening and drops every connection, so that the client is refused."""
        if self._listener is not None:
            self._stopping.set()
            self._listener.stop()
            self._listener = None

    def add_repo(
        self,
        repo_id: str,
        files: dict[str, bytes],
        repo_type: str = "model",
        private: bool = False,
        lfs: tuple[str, ...] = LFS_SUFFIXES,
    ) -> str:
        """Adds a repository, or a commit with exactly these files to one that is there; gives the commit's hash.

        `lfs` are the endings of the names that are stored as large files.
        """
        with self._lock:
            repo = self.repos.setdefault((repo_type, repo_id), Repo(repo_type, repo_id))
            repo.private = private
            made = {path: File(data, path.endswith(lfs)) for path, data in files.items()}
            repo.lfs |= {file.sha256: file.data for file in made.values() if file.lfs}
            return repo.commit(made, "Add files").sha

    def delete_repo(self, repo_id: str, repo_type: str = "model") -> None:
        """Forgets a repository."""
        with self._lock:
            del self.repos[repo_type, repo_id]

    def fail(self, route: str, fault: Fault) -> None:
        """Arms a fault for requests whose "METHOD /path" contains a match of `route`; the first armed strikes first."""
        with self._lock:
            self._faults.append((re.compile(route), replace(fault)))  # a copy: `times` counts down

    def clear(self) -> None:
        """Disarms every fault."""
        with self._lock:
            self._faults.clear()

    def arriving(self, request: str) -> Fault:
        """Notes a request and gives the fault that strikes it, which may be none."""
        with self._lock:
            # The client asks for this once a process, whichever test comes first: noise in a list of requests.
            if not request.endswith("/api/agent-harnesses"):
                self.requests.append(request)
            for route, fault in self._faults:
                if fault.times != 0 and route.search(request):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return Fault()

    def wait(self, seconds: float) -> None:
        """Sleeps, but not beyond the end of the server."""
        self._stopping.wait(seconds)

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        """Carries a request out."""
        address = urlsplit(target)
        try:
            for route, handler in ROUTES:
                if found := route.fullmatch(f"{method} {address.path}"):
                    parts = {name: unquote(part) for name, part in found.groupdict().items() if part is not None}
                    account = self._account(headers.get("authorization", ""))
                    ask = Ask(address.path, parse_qs(address.query), headers, body, account, parts)
                    with self._lock:
                        reply = handler(self, ask)
                    return reply if isinstance(reply, Reply) else Reply.json(reply)
            raise HubError(404, f"This test Hub has no {method} {address.path}")
        except HubError as error:
            code = {"X-Error-Code": error.code} if error.code else {}
            return Reply.error(error.status, {"error": error.message} | error.more, code)

    def _account(self, authorization: str) -> Account | None:
        token = authorization.removeprefix("Bearer ")
        if token and token not in self.accounts:
            raise HubError(401, BAD_TOKEN)
        return self.accounts.get(token)

    def repo(self, ask: Ask, write: bool = False) -> Repo:
        """The repository in the path, if the account may see it, and change it where that is asked."""
        repo, account = self.repos.get((ask.kind, ask.parts["id"])), ask.account
        if repo is None or (repo.private and not (account and account.may_read(repo.namespace))):
            # As the Hub does: it does not say whether it is there, and asks the anonymous to log in.
            if account is None:
                raise HubError(401, "Invalid username or password.", "RepoNotFound")
            raise HubError(404, "Repository not found", "RepoNotFound")
        if write:
            self.check_write(account, repo.namespace, "RepoNotFound")
        return repo

    def check_write(self, account: Account | None, namespace: str, code: str = "") -> None:
        """Refuses who may not write in a namespace.

        `code`: over https the client takes an anonymous 401 on a repository's path for a repository that is not found;
        over http, which this is, it does so only where the code says it.
        """
        if account is None:
            raise HubError(401, "Invalid username or password.", code)
        if not account.may_write(namespace):
            raise HubError(403, f'You don\'t have the rights to write under the namespace "{namespace}"')

    def page(self, ask: Ask, rows: list, size: int | None = None) -> Reply:
        """The part of `rows` that the cursor asks for, with a link to the next."""
        start, size = int(ask.one("cursor", "0")), size or self.page_size
        reply = Reply.json(rows[start : start + size])
        if start + size < len(rows):
            query = urlencode(ask.query | {"cursor": [str(start + size)]}, doseq=True)
            reply.headers["Link"] = f'<{self.url}{ask.path}?{query}>; rel="next"'
        return reply


# Cards


@cache  # a listing asks for every card, page by page
def metadata(readme: bytes) -> tuple[dict[str, Any], str]:
    """A card's front matter, and what is wrong with its YAML if that could not be read."""
    found = FRONT_MATTER.match(readme.decode(errors="replace"))
    try:
        content = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        return {}, f"YAML metadata cannot be read: {error}"
    if content is None or isinstance(content, dict):
        return content or {}, ""
    return {}, "YAML metadata must be a mapping"


def card_errors(readme: bytes, kind: str) -> list[str]:
    """What the Hub would refuse a card for."""
    card, error = metadata(readme)
    errors = [error] if error else []
    for name in _list(card.get("license")):
        if not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9.-]*", name)):
            errors.append(f'"license" must be one of the known licenses, not {name!r}')
    for name in _list(card.get("base_model")):
        if not (isinstance(name, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)):
            errors.append(f'"base_model" with value {name!r} is not valid. Use a model id from https://hf.co/models.')
    if kind == "space":
        errors += [
            f'"{key}" must be one of {COLOURS}'
            for key in ("colorFrom", "colorTo")
            if card.get(key, "red") not in COLOURS
        ]
        if len(str(card.get("short_description", ""))) > 60:
            errors.append('"short_description" length must be less than or equal to 60 characters long')
    return errors + list(_index_errors(card.get("model-index", [])))


def _index_errors(index: Any) -> Iterator[str]:
    if not isinstance(index, list):
        yield '"model-index" must be an array'
        return
    for number, model in enumerate(index):
        at = f"model-index[{number}]"
        yield from _missing(model, at, ("name", "results"))
        results = model.get("results") if isinstance(model, dict) else None
        for place, result in enumerate(_list(results)):
            where = f"{at}.results[{place}]"
            yield from _missing(result, where, ("task", "dataset", "metrics"))
            if isinstance(result, dict):
                yield from _missing(result.get("task"), f"{where}.task", ("type",))
                yield from _missing(result.get("dataset"), f"{where}.dataset", ("name", "type"))
                for row, metric in enumerate(_list(result.get("metrics"))):
                    yield from _missing(metric, f"{where}.metrics[{row}]", ("type", "value"))


def _missing(content: Any, at: str, keys: tuple[str, ...]) -> Iterator[str]:
    there = content if isinstance(content, dict) else {}
    yield from (f'"{at}.{key}" is required' for key in keys if there.get(key) in (None, [], {}, ""))


def tags_of(card: dict[str, Any], files: dict[str, File]) -> list[str]:
    """The tags by which a repository is found; the Hub, too, works out the relation to the base model if not told."""
    relation = card.get("base_model_relation") or ("adapter" if "adapter_config.json" in files else "finetune")
    tags = [str(tag) for tag in _list(card.get("tags"))]
    tags += [str(card[key]) for key in ("library_name", "pipeline_tag") if card.get(key)]
    tags += ["safetensors"] if any(path.endswith(".safetensors") for path in files) else []
    for base in _list(card.get("base_model")):
        tags += [f"base_model:{base}", f"base_model:{relation}:{base}"]
    tags += [f"dataset:{name}" for name in _list(card.get("datasets"))]
    tags += [f"license:{name}" for name in _list(card.get("license"))]
    return list(dict.fromkeys(tags))


# Handlers: each answers one of the ROUTES at the end


def whoami(hub: HubServer, ask: Ask) -> dict:
    """Who the token's owner is, and what the token may do."""
    if ask.account is None:
        raise HubError(401, "Invalid username or password.")
    account = ask.account
    token: dict[str, Any] = {"displayName": "test", "role": account.role, "createdAt": _now()}
    if account.role.startswith("fine-grained"):
        may = ["repo.content.read", "repo.write"] if account.role.endswith("write") else ["repo.content.read"]
        scope = {"entity": {"type": "user", "name": account.name}, "permissions": may}
        token |= {"role": "fineGrained", "fineGrained": {"global": [], "scoped": [scope]}}
    orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in account.orgs]
    user = {"type": "user", "id": account.name, "name": account.name, "fullname": account.name.title(), "isPro": False}
    return user | {"orgs": orgs, "auth": {"type": "access_token", "accessToken": token}}


def create_repo(hub: HubServer, ask: Ask) -> dict:
    """Makes a repository, with the commit that the Hub begins each with."""
    wish = ask.json()
    kind, namespace = wish.get("type", "model"), wish.get("organization") or (ask.account.name if ask.account else "")
    hub.check_write(ask.account, namespace)
    repo_id = f"{namespace}/{wish['name']}"
    repo = Repo(kind, repo_id, private=wish.get("private") is True or wish.get("visibility") == "private")
    url = f"{hub.url}/{repo.path}"
    if (kind, repo_id) in hub.repos:
        raise HubError(409, f"You already created this {kind} repo", url=url)
    if kind == "space" and not wish.get("sdk"):
        raise HubError(400, '"sdk" is required')
    repo.sdk, repo.sleep_time = wish.get("sdk"), wish.get("sleepTimeSeconds")
    repo.hardware = wish.get("hardware", repo.hardware)
    repo.secrets = {row["key"]: row["value"] for row in wish.get("secrets", [])}
    repo.variables = {row["key"]: row["value"] for row in wish.get("variables", [])}
    attributes = "".join(f"*{end} filter=lfs diff=lfs merge=lfs -text\n" for end in LFS_SUFFIXES)
    repo.commit({".gitattributes": File(attributes.encode())}, "initial commit")
    hub.repos[kind, repo_id] = repo
    return {"url": url, "name": repo_id, "id": repo_id}


def delete_repo(hub: HubServer, ask: Ask) -> dict:
    """Forgets a repository."""
    wish = ask.json()
    ask.parts = {"kind": wish.get("type", "model"), "id": f"{wish['organization']}/{wish['name']}"}
    repo = hub.repo(ask, write=True)
    del hub.repos[repo.kind, repo.id]
    return {}


def preupload(hub: HubServer, ask: Ask) -> dict:
    """How each file is to be sent, and the hash of what is at its path: the client leaves out what has not changed."""
    files = hub.repo(ask, write=True).at(ask.parts["rev"]).files
    rows = []
    for file in ask.json()["files"]:
        large = file["path"].endswith(LFS_SUFFIXES) or file["size"] > LARGE
        row = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        rows.append(row | ({"oid": files[file["path"]].etag} if file["path"] in files else {}))
    return {"files": rows}


def lfs_batch(hub: HubServer, ask: Ask) -> dict:
    """Where to put each large content; nowhere if it is stored."""
    repo = hub.repo(ask, write=True)
    at, rows = f"{hub.url}/{repo.path}.git/info/lfs", []
    for wish in ask.json()["objects"]:
        row = {"oid": wish["oid"], "size": wish["size"], "authenticated": True}
        if wish["oid"] not in repo.lfs:
            repo.expected.add(wish["oid"])
            row["actions"] = {"upload": {"href": f"{at}/upload/{row['oid']}"}, "verify": {"href": f"{at}/verify"}}
        rows.append(row)
    return {"transfer": "basic", "objects": rows}


def lfs_upload(hub: HubServer, ask: Ask) -> dict:
    """Takes a large content. No token comes with it: having been told where to put it is the permission."""
    repo, oid = hub.repos.get((ask.kind, ask.parts["id"])), ask.parts["oid"]
    if repo is None or oid not in repo.expected:
        raise HubError(403, "No upload of this content was asked for")
    if hashlib.sha256(ask.body).hexdigest() != oid:
        raise HubError(422, "The content does not have the announced sha256")
    repo.lfs[oid] = ask.body
    return {}


def lfs_verify(hub: HubServer, ask: Ask) -> dict:
    """Whether a large content arrived."""
    wish = ask.json()
    if len(hub.repo(ask, write=True).lfs.get(wish["oid"], b"")) != wish["size"]:
        raise HubError(422, "The content is not stored with that size")
    return {}


def commit(hub: HubServer, ask: Ask) -> dict:
    """Makes one commit of all the operations, or refuses them all."""
    repo = hub.repo(ask, write=True)
    if ask.parts["rev"] != "main" or ask.flag("create_pr"):
        raise HubError(404, "This test Hub takes commits to main only", "RevisionNotFound")
    header, *operations = [json.loads(line) for line in ask.body.splitlines() if line.strip()]
    header = header["value"]
    if not repo.head.sha.startswith(header.get("parentCommit", "")):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    files = dict(repo.head.files)
    for operation in operations:
        _apply(repo, files, operation["key"], operation["value"])
    if "README.md" in files and (errors := card_errors(files["README.md"].data, repo.kind)):
        raise HubError(400, "Invalid metadata in README.md", errors=[{"message": text} for text in errors])
    author = ask.account.name if ask.account else ""
    made = repo.commit(files, header["summary"], header.get("description", ""), author)
    hub.commits_made[repo.kind, repo.id] += 1
    return {"success": True, "commitOid": made.sha, "commitUrl": f"{hub.url}/{repo.path}/commit/{made.sha}"}


def _apply(repo: Repo, files: dict[str, File], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if key == "file":
        files[path] = File(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in repo.lfs:
            raise HubError(400, f"{path}: an LFS pointer pointed to a file that does not exist")
        files[path] = File(repo.lfs[value["oid"]], lfs=True)
    elif key in ("deletedFile", "deletedFolder"):
        gone = [name for name in files if name == path or name.startswith(path.rstrip("/") + "/")]
        if not gone:
            raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        for name in gone:
            del files[name]
    else:
        raise HubError(400, f"Unknown operation {key}")


def tag(hub: HubServer, ask: Ask) -> dict:
    """Names a commit."""
    repo, name = hub.repo(ask, write=True), ask.json()["tag"]
    if name in repo.tags:
        raise HubError(409, "Tag reference exists already")
    repo.tags[name] = repo.at(ask.parts["rev"]).sha
    return {}


def refs(hub: HubServer, ask: Ask) -> dict:
    """The branch and the tags."""
    repo = hub.repo(ask)
    tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": sha} for name, sha in repo.tags.items()]
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head.sha}
    return {"branches": [main], "converts": [], "tags": tags, "pullRequests": []}


def commits(hub: HubServer, ask: Ask) -> Reply:
    """The history up to a revision, newest first."""
    repo = hub.repo(ask)
    last = repo.at(ask.parts["rev"]).number
    keys = ("title", "message", "date")
    rows = [
        {"id": made.sha, "authors": [{"user": made.author}]} | {key: getattr(made, key) for key in keys}
        for made in reversed(repo.commits)
        if made.number <= last
    ]
    return hub.page(ask, rows)


def info(repo: Repo, made: Commit, blobs: bool = False) -> dict[str, Any]:
    """All that this Hub says of a repository."""
    card, _ = metadata(made.files["README.md"].data if "README.md" in made.files else b"")
    siblings = []
    for path, file in sorted(made.files.items()):
        row: dict[str, Any] = {"rfilename": path}
        if blobs:
            row |= {"size": len(file.data), "blobId": file.git_oid}
            if file.lfs:
                row["lfs"] = {"sha256": file.sha256, "size": len(file.data), "pointerSize": len(file.blob)}
        siblings.append(row)
    about = {
        "_id": hashlib.sha1(f"{repo.kind} {repo.id}".encode()).hexdigest()[:24],
        "id": repo.id, "author": repo.namespace, "private": repo.private, "gated": False, "disabled": False,
        "downloads": repo.downloads, "likes": repo.likes, "sha": made.sha, "lastModified": made.date,
        "createdAt": repo.commits[0].date, "tags": tags_of(card, made.files), "cardData": card, "siblings": siblings,
        "usedStorage": sum(len(file.data) for file in made.files.values()),
    }  # fmt: skip
    if repo.kind == "model":
        about |= {"modelId": repo.id, "model-index": card.get("model-index")}
        about |= {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}
    if repo.kind == "space":
        about |= {"sdk": repo.sdk, "runtime": repo.runtime}
    return about


def _chosen(about: dict[str, Any], ask: Ask, default: tuple[str, ...] | None) -> dict[str, Any]:
    wanted = ask.query.get("expand", []) + ask.query.get("expand[]", [])
    if not wanted:
        return about if default is None else {key: about[key] for key in default if key in about}
    # What a repository has not got is left out, but a name that is unknown here would pass tests by its absence.
    optional = {"library_name", "pipeline_tag", "model-index"}
    if unknown := set(wanted) - set(about) - optional:
        raise HubError(400, f"This test Hub cannot expand {', '.join(sorted(unknown))}")
    return {key: about[key] for key in ("_id", "id", *wanted) if key in about}


SORTS: dict[str, Callable[[Repo], int]] = {
    "lastModified": lambda repo: repo.head.number,  # not by date: several commits fit into a millisecond
    "createdAt": lambda repo: repo.commits[0].number,
    "downloads": lambda repo: repo.downloads,
    "likes": lambda repo: repo.likes,
}


def list_repos(hub: HubServer, ask: Ask) -> Reply:
    """The repositories that the account may see and the query asks for."""
    found = []
    for repo in hub.repos.values():
        seen = not repo.private or (ask.account is not None and ask.account.may_read(repo.namespace))
        if repo.kind == ask.kind and seen:
            about = info(repo, repo.head)
            if (
                ask.one("author", repo.namespace) == repo.namespace
                and ask.one("search").lower() in repo.id.lower()
                and set(ask.query.get("filter", [])) <= set(about["tags"])
                and ask.one("pipeline_tag") in ("", about.get("pipeline_tag"))
            ):
                found.append((repo, about))
    if by := SORTS.get(ask.one("sort")):
        found.sort(key=lambda pair: by(pair[0]), reverse=True)
    default = None if ask.flag("full") else (*LISTED, "cardData") if ask.flag("cardData") else LISTED
    rows = [_chosen(about, ask, default) for _, about in found]
    return hub.page(ask, rows, min(int(ask.one("limit", "0")) or hub.page_size, hub.page_size))


def repo_info(hub: HubServer, ask: Ask) -> dict:
    """One repository at a revision."""
    repo = hub.repo(ask)
    return _chosen(info(repo, repo.at(ask.parts.get("rev", "main")), ask.flag("blobs")), ask, None)


def _entry(repo: Repo, made: Commit, path: str, expand: bool) -> dict[str, Any]:
    file = made.files.get(path)
    if file is None:
        row: dict[str, Any] = {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
    else:
        row = {"type": "file", "oid": file.git_oid, "size": len(file.data)}
        if file.lfs:
            row["lfs"] = {"oid": file.sha256, "size": len(file.data), "pointerSize": len(file.blob)}
    if expand:
        row["lastCommit"] = {"id": made.sha, "title": made.title, "date": made.date}
        for older in repo.commits:  # the first that has this very file: `commit` carries what is unchanged along
            if file is not None and older.files.get(path) is file:
                row["lastCommit"] = {"id": older.sha, "title": older.title, "date": older.date}
                break
    return row | {"path": path}


def _folders(paths: list[str]) -> set[str]:
    return {"/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1)}


def tree(hub: HubServer, ask: Ask) -> Reply:
    """The files and folders of a folder."""
    repo = hub.repo(ask)
    made, folder = repo.at(ask.parts["rev"]), ask.parts.get("path", "").strip("/")
    folders = _folders(list(made.files))
    if folder and folder not in folders:
        raise HubError(404, f"{folder} does not exist on {ask.parts['rev']}", "EntryNotFound")
    inside = [path for path in folders | set(made.files) if path.startswith(f"{folder}/" if folder else "")]
    if not ask.flag("recursive"):
        inside = [path for path in inside if path.rpartition("/")[0] == folder]
    return hub.page(ask, [_entry(repo, made, path, ask.flag("expand")) for path in sorted(inside)])


def paths_info(hub: HubServer, ask: Ask) -> list[dict]:
    """The files and folders that the body, which is a form, names; what does not exist is left out."""
    repo = hub.repo(ask)
    made, form = repo.at(ask.parts["rev"]), parse_qs(ask.body.decode())
    there = _folders(list(made.files)) | set(made.files)
    expand = form.get("expand", [""])[0].lower() == "true"
    return [_entry(repo, made, path, expand) for path in form.get("paths", []) if path in there]


def resolve(hub: HubServer, ask: Ask) -> Reply:
    """A file's content, or the part of it that a Range asks for. The Hub redirects large files; this serves them."""
    made, path = hub.repo(ask).at(ask.parts["rev"]), ask.parts["path"]
    headers = {"X-Repo-Commit": made.sha, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if path not in made.files:
        # With the commit in the header, the client remembers that the file is not there.
        error = {"error": f"Entry not found: {path}"}
        return Reply.error(404, error, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": made.sha})
    file = made.files[path]
    headers["ETag"] = f'"{file.etag}"'
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data))}
    if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", ask.headers.get("range", "")):
        start, last = int(wanted[1]), min(int(wanted[2] or len(file.data)), len(file.data) - 1)
        if start > last:
            return Reply(status=416, headers=headers | {"Content-Range": f"bytes */{len(file.data)}"})
        headers["Content-Range"] = f"bytes {start}-{last}/{len(file.data)}"
        return Reply(file.data[start : last + 1], 206, headers)
    return Reply(file.data, 200, headers)


def validate_yaml(hub: HubServer, ask: Ask) -> Reply:
    """Whether the Hub would take a card."""
    wish = ask.json()
    readme, kind = wish["content"].encode(), wish.get("repoType", "model")
    errors = card_errors(readme, kind)
    warnings = [] if errors or metadata(readme)[0] else ["empty or missing yaml metadata in repo card"]
    said = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return Reply.json(said, 400 if errors else 200)


def runtime(hub: HubServer, ask: Ask) -> dict:
    """How a space runs."""
    return hub.repo(ask).runtime


def space_secrets(hub: HubServer, ask: Ask) -> dict:
    """Takes a space's secret, and gives the names of all, never the values."""
    repo = hub.repo(ask, write=True)
    if ask.body:
        repo.secrets[ask.json()["key"]] = ask.json()["value"]
    return {key: {} for key in repo.secrets}


def space_variables(hub: HubServer, ask: Ask) -> dict:
    """Takes a space's variable, and gives all."""
    repo = hub.repo(ask, write=True)
    if ask.body:
        repo.variables[ask.json()["key"]] = ask.json()["value"]
    return {key: {"value": value} for key, value in repo.variables.items()}


def space_hardware(hub: HubServer, ask: Ask) -> dict:
    """Takes the hardware that a space is to run on."""
    repo = hub.repo(ask, write=True)
    repo.hardware, repo.sleep_time = ask.json()["flavor"], ask.json().get("sleepTimeSeconds", repo.sleep_time)
    return repo.runtime


def run_job(hub: HubServer, ask: Ask) -> dict:
    """Records a job."""
    hub.check_write(ask.account, ask.parts["namespace"])
    job = Job(f"{next(_number):024x}", ask.parts["namespace"], ask.json())
    hub.jobs[job.id] = job
    return job.shown(hub.job_stages)


def _job(hub: HubServer, ask: Ask) -> Job:
    job = hub.jobs.get(ask.parts["job"])
    if job is None or ask.account is None or not ask.account.may_read(job.namespace):
        raise HubError(404, "Job not found")
    return job


def job_info(hub: HubServer, ask: Ask) -> dict:
    """A job as it stands at this look at it."""
    job = _job(hub, ask)
    shown = job.shown(hub.job_stages)
    job.looked_at += 1
    return shown


def job_logs(hub: HubServer, ask: Ask) -> Reply:
    """A job's lines so far, as server-sent events."""
    created, lines = _job(hub, ask).created, hub.job_logs[-int(ask.one("tail", "0")) :]
    events = [f"data: {json.dumps({'timestamp': created, 'data': line})}\n\n" for line in lines]
    return Reply("".join(events).encode(), 200, {"Content-Type": "text/event-stream"})


_ID = r"(?P<id>[^/]+/[^/]+)"
_REV = r"(?P<rev>[^/]+)"
_REPO = rf"/api/(?P<kind>models|spaces|datasets)/{_ID}"
_SPACE = rf"/api/(?P<kind>spaces)/{_ID}"
_FILES = r"/(?:(?P<kind>spaces|datasets)/)?(?P<id>[^/]+/[^/]+?)"
_JOBS = r"/api/jobs/(?P<namespace>[^/]+)"

ROUTES: list[tuple[re.Pattern[str], Callable[[HubServer, Ask], Any]]] = [
    (re.compile(pattern), handler)
    for pattern, handler in (
        (r"GET /api/whoami-v2", whoami),
        (r"POST /api/repos/create", create_repo),
        (r"DELETE /api/repos/delete", delete_repo),
        (r"POST /api/validate-yaml", validate_yaml),
        (rf"POST {_REPO}/preupload/{_REV}", preupload),
        (rf"POST {_FILES}\.git/info/lfs/objects/batch", lfs_batch),
        (rf"PUT {_FILES}\.git/info/lfs/upload/(?P<oid>\w+)", lfs_upload),
        (rf"POST {_FILES}\.git/info/lfs/verify", lfs_verify),
        (rf"POST {_REPO}/commit/{_REV}", commit),
        (rf"POST {_REPO}/tag/{_REV}", tag),
        (rf"GET {_REPO}/refs", refs),
        (rf"GET {_REPO}/commits/{_REV}", commits),
        (r"GET /api/(?P<kind>models|spaces|datasets)", list_repos),
        (rf"GET {_REPO}(?:/revision/{_REV})?", repo_info),
        (rf"GET {_REPO}/tree/{_REV}(?:/(?P<path>.+))?", tree),
        (rf"POST {_REPO}/paths-info/{_REV}", paths_info),
        (rf"(?:GET|HEAD) {_FILES}/resolve/{_REV}/(?P<path>.+)", resolve),
        (rf"GET {_SPACE}/runtime", runtime),
        (rf"(?:GET|POST) {_SPACE}/secrets", space_secrets),
        (rf"(?:GET|POST) {_SPACE}/variables", space_variables),
        (rf"POST {_SPACE}/hardware", space_hardware),
        (rf"POST {_JOBS}", run_job),
        (rf"GET {_JOBS}/(?P<job>[^/]+)", job_info),
        (rf"GET {_JOBS}/(?P<job>[^/]+)/logs", job_logs),
    )
]


# Connections


class _Listener(ThreadingHTTPServer):
    """Listens for a Hub and keeps hold of the connections, which a Hub that is gone has to drop."""

    daemon_threads = True
    request_queue_size = 64  # the client downloads with 8 threads, and a connection too many is tried again after 1 s

    def __init__(self, hub: HubServer) -> None:
        super().__init__(("127.0.0.1", hub.port), _Connection)
        self.hub = hub
        self.open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is no news
            super().handle_error(request, client_address)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # its other end was quicker
                continue


class _Connection(BaseHTTPRequestHandler):
    """Reads requests, lets faults strike them, and sends the Hub's answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes; without this a reply takes 40 ms
    server: _Listener

    def serve(self) -> None:
        hub, path = self.server.hub, urlsplit(self.path).path
        fault = hub.arriving(f"{self.command} {path}")
        hub.wait(fault.delay)
        uploads = "Transfer-Encoding" in self.headers or int(self.headers.get("Content-Length", 0)) > 0
        if uploads and fault.cut is not None:
            self.receive(fault.cut)
            return self.drop(fault)
        body = self.receive()
        if uploads and fault.flip:
            body = _flipped(body)
        if fault.status is not None:
            content = fault.body if fault.body is not None else {"error": HTTPStatus(fault.status).phrase}
            reply = Reply.error(fault.status, content, fault.headers)
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = hub.answer(self.command, self.path, headers, body)
        if fault.lose_reply:
            return self.drop(fault)
        self.send(reply, fault, uploads)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = serve

    def receive(self, limit: int | None = None) -> bytes:
        """The request's body, or about the first `limit` bytes of it."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            length = int(self.headers.get("Content-Length", 0))
            return self.rfile.read(length if limit is None else min(limit, length))
        body = b""
        while limit is None or len(body) < limit:
            size = int(self.rfile.readline() or b"0", 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                break
        return body

    def send(self, reply: Reply, fault: Fault, uploads: bool) -> None:
        body = _flipped(reply.body) if fault.flip and not uploads and self.command == "GET" else reply.body
        self.send_response(reply.status)
        for name, value in ({"Content-Length": str(len(body))} | reply.headers).items():
            self.send_header(name, value.encode("ascii", "replace").decode())
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if fault.cut is None else body[: fault.cut])
        if fault.cut is not None:
            self.drop(fault)

    def drop(self, fault: Fault) -> None:
        """Ends the connection."""
        self.close_connection = True
        if fault.reset:
            # Closing at once with no time to linger sends a reset, and so does closing with an upload half read.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: a test's output is not a server's log."""


def _flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes(byte ^ 1 for byte in body[middle : middle + 1]) + body[middle + 1 :]
