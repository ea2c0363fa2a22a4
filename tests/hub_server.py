"""A small Hugging Face Hub on the loopback interface, for tests: the unmodified huggingface_hub client talks to it.

    with HubServer() as hub:
        api = HfApi(endpoint=hub.url, token="hf_write")
        hub.fail(r"POST .*/commit/", Fault(lose_reply=True))

It keeps everything in memory, has one branch (`main`) and tags, stores large files by basic LFS, and answers 404 to
unknown requests. The client uploads large files by Xet unless HF_HUB_DISABLE_XET=1 is set before it is imported.
"""

import base64
import hashlib
import itertools
import json
import re
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import yaml
from huggingface_hub.utils.sha import git_hash

LFS_SUFFIXES = (".safetensors", ".png", ".bin")
PAGE_SIZE = 100
_commit_numbers = itertools.count(1)


# ---------------------------------------------------------------- state


@dataclass
class Account:
    """The owner of a token, and what the token may do."""

    name: str
    role: str = "write"
    """Of the token: "write", "read" or "fineGrained"."""
    orgs: tuple[str, ...] = ()
    scopes: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """Permissions of a fine-grained token by type and name of what they are for: ("model", "alice/x"), ("user", "alice")."""
    org_role: str = "write"
    """Role of the user in the organisations: "admin", "write", "contributor", "read"."""
    expired: bool = False
    is_described: bool = True
    """Whether whoami describes the token; that of a CI system has no description."""

    def may_read(self, repo: "Repo") -> bool:
        if self.role == "fineGrained":
            return self._has("repo.content.read", repo.namespace, repo)
        return repo.namespace in (self.name, *self.orgs)

    def may_write(self, namespace: str, repo: "Repo | None" = None) -> bool:
        """Return whether the token may change a repo or, without one, create one in the namespace."""
        if self.role == "fineGrained":
            return self._has("repo.write", namespace, repo)
        is_member = namespace in self.orgs and self.org_role != "read"
        return self.role == "write" and (namespace == self.name or is_member)

    def _has(self, permission: str, namespace: str, repo: "Repo | None") -> bool:
        places = [("user", namespace), ("org", namespace)]
        if repo:
            places.append((repo.kind, repo.id))
        return any(permission in self.scopes.get(place, ()) for place in places)


@dataclass
class Fault:
    """A failure of requests."""

    status: int | None = None
    """Error status, sent without carrying out the request."""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Bytes after which the connection is closed: of the upload, or of the response to other requests."""
    lose_reply: bool = False
    """Carry out the request and close the connection instead of sending the response."""
    flip: bool = False
    """Change one byte of the response to a GET; its length stays correct."""
    times: int | None = 1
    """Number of requests that fail; None for all."""


@dataclass(frozen=True)
class File:
    """One version of a file."""

    data: bytes
    is_lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        """Hash of the content, which names it in large-file storage."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def git_oid(self) -> str:
        """Git's hash of the content."""
        return git_hash(self.data)

    @property
    def etag(self) -> str:
        """Hash with which the client compares its own file."""
        return self.sha256 if self.is_lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    """A state of a repository: all files by path."""

    sha: str
    files: dict[str, File]


@dataclass
class Repo:
    """A repository; `commits` are those of the branch main, oldest first."""

    kind: str  # "model", "space" or "dataset"
    id: str
    private: bool = False
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)  # large contents by sha256
    secrets: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    @property
    def path(self) -> str:
        """Its path below the endpoint."""
        return self.id if self.kind == "model" else f"{self.kind}s/{self.id}"

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    @property
    def files(self) -> dict[str, bytes]:
        """The contents on main by path."""
        return {path: file.data for path, file in self.head.files.items()}

    def at(self, revision: str) -> Commit:
        """Return the commit of a branch, tag or commit id."""
        sha = self.head.sha if revision == "main" else self.tags.get(revision, revision)
        for commit in self.commits:
            if commit.sha == sha:
                return commit
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def commit(self, files: dict[str, File]) -> Commit:
        # The contents are part of the id: otherwise a cache that outlives the process returns files of another commit.
        etags = sorted((path, file.etag) for path, file in files.items())
        content = repr([self.kind, self.id, next(_commit_numbers), etags])
        self.commits.append(Commit(hashlib.sha1(content.encode()).hexdigest(), files))
        return self.head


class HubError(Exception):
    """An error response, with the X-Error-Code by which the client chooses its exception."""

    def __init__(self, status: int, message: str, code: str = "", **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.details = details


@dataclass
class Reply:
    """A response."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, content: Any, status: int = 200) -> "Reply":
        """Return a response in JSON; dates in a card become text."""
        body = json.dumps(content, default=str).encode()
        return cls(body, status, {"Content-Type": "application/json; charset=utf-8"})

    @classmethod
    def error(cls, error: HubError) -> "Reply":
        """Return an error as the Hub sends it: the message is a header too, since HEAD has no body."""
        reply = cls.json({"error": error.message} | error.details, error.status)
        reply.headers["X-Error-Message"] = error.message
        if error.code:
            reply.headers["X-Error-Code"] = error.code
        return reply


@dataclass
class Request:
    """A request, with the named parts of its path."""

    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    account: Account | None
    parts: dict[str, str]

    def json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")

    def one(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[-1]

    @property
    def kind(self) -> str:
        """The repository type: a plural in the path, and absent for files of models."""
        return self.parts.get("kind", "").removesuffix("s") or "model"


class HubServer:
    """The Hub, started and stopped as a context manager. Its state may be read and changed while it runs."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.accounts = {
            "hf_write": Account("alice"),
            "hf_read": Account("alice", "read"),
            "hf_bob": Account("bob"),
        }
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[str] = []
        self._faults: list[tuple[re.Pattern[str], Fault]] = []
        self._listener: _Listener | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, again after a stop; the state is unchanged."""
        if self._listener is None:
            self._listener = _Listener(self)
            self.port = self._listener.server_address[1]
            threading.Thread(target=self._listener.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.stop()
            self._listener = None

    def add_repo(self, repo_id: str, files: dict[str, bytes], repo_type: str = "model", private: bool = False) -> str:
        """Add a repository, or a commit with exactly these files to an existing one; return the commit's id."""
        with self._lock:
            repo = self.repos.setdefault((repo_type, repo_id), Repo(repo_type, repo_id))
            repo.private = private
            committed = {}
            for path, data in files.items():
                file = File(data, path.endswith(LFS_SUFFIXES))
                committed[path] = file
                if file.is_lfs:
                    repo.lfs[file.sha256] = data
            return repo.commit(committed).sha

    def delete_repo(self, repo_id: str, repo_type: str = "model") -> None:
        with self._lock:
            del self.repos[repo_type, repo_id]

    def fail(self, route: str, fault: Fault) -> None:
        """Let requests fail whose "METHOD /path" contains a match of `route`; the first matching fault applies."""
        with self._lock:
            self._faults.append((re.compile(route), replace(fault)))  # a copy: `times` counts down

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def fault_of(self, request: str) -> Fault:
        """Record a request and return its fault, by default one without effect."""
        with self._lock:
            # The client sends this once in a process, whichever test comes first.
            if not request.endswith("/api/agent-harnesses"):
                self.requests.append(request)
            for route, fault in self._faults:
                if fault.times != 0 and route.search(request):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return Fault()

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        address = urlsplit(target)
        try:
            account = self._account(headers.get("authorization", ""))
            for pattern, handler in ROUTES:
                match = pattern.fullmatch(f"{method} {address.path}")
                if match:
                    parts = {name: unquote(part) for name, part in match.groupdict("").items()}
                    request = Request(address.path, parse_qs(address.query), headers, body, account, parts)
                    with self._lock:
                        result = handler(self, request)
                    return result if isinstance(result, Reply) else Reply.json(result)
            raise HubError(404, f"This test Hub has no {method} {address.path}")
        except HubError as error:
            return Reply.error(error)

    def _account(self, authorization: str) -> Account | None:
        token = authorization.removeprefix("Bearer ")
        if token and token not in self.accounts:
            raise HubError(401, "Invalid credentials in Authorization header")  # the client recognises these words
        account = self.accounts.get(token)
        if account and account.expired:
            raise HubError(401, 'User Access Token "test" is expired')
        return account

    def repo(self, request: Request, write: bool = False) -> Repo:
        """Return the repository in the path, if the account may see it and, with `write`, change it."""
        repo = self.repos.get((request.kind, request.parts["id"]))
        account = request.account
        if repo is None or (repo.private and not (account and account.may_read(repo))):
            # Like the Hub, it does not reveal whether the repository exists.
            if account is None:
                raise HubError(401, "Invalid username or password.", "RepoNotFound")
            raise HubError(404, "Repository not found", "RepoNotFound")
        if write:
            check_write(account, repo.namespace, repo)
        return repo


def check_write(account: Account | None, namespace: str, repo: Repo | None = None) -> None:
    """Raise HubError if the account may not change the repo or, without one, not create one in the namespace."""
    if account is None:
        raise HubError(401, "Invalid username or password.", "RepoNotFound")
    if not account.may_write(namespace, repo):
        raise HubError(403, f'You don\'t have the rights to write under the namespace "{namespace}"')


# ---------------------------------------------------------------- cards


@cache  # a listing reads every card, for every page
def metadata(readme: bytes) -> dict[str, Any]:
    """Return a card's metadata. Raises HubError if it is not YAML."""
    front = re.match(r"\s*---\r?\n(.*?)\r?\n---", readme.decode(errors="replace"), re.DOTALL)
    try:
        return yaml.safe_load(front[1]) if front else {}
    except yaml.YAMLError as error:
        raise HubError(400, "Invalid metadata in README.md", errors=[{"message": str(error)}]) from error


def check_card(readme: bytes) -> None:
    """Raise HubError for metadata that the Hub refuses."""
    card = metadata(readme)
    errors = []
    if not re.fullmatch(r"[a-z][a-z0-9.-]*", card.get("license", "other")):
        errors.append('"license" must be one of the known licenses')
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", card.get("base_model", "any")):
        errors.append('"base_model" is not valid. Use a model id from https://hf.co/models.')
    if not re.fullmatch(r"[a-z]{2,3}(-[a-z]{2,4})?|code|multilingual", card.get("language", "en")):
        errors.append(
            f'"language" with value "{card["language"]}" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code'
        )
    if len(card.get("short_description", "")) > 60:
        errors.append('"short_description" length must be less than or equal to 60 characters long')
    if errors:
        raise HubError(400, "Invalid metadata in README.md", errors=[{"message": text} for text in errors])


def about(repo: Repo, commit: Commit) -> dict[str, Any]:
    """Return the Hub's description of a repository."""
    readme = commit.files.get("README.md")
    card = metadata(readme.data) if readme else {}
    siblings = []
    for path, file in sorted(commit.files.items()):
        size = len(file.data)
        sibling: dict[str, Any] = {"rfilename": path, "size": size, "blobId": file.git_oid}
        if file.is_lfs:
            sibling["lfs"] = {"sha256": file.sha256, "size": size, "pointerSize": 130}
        siblings.append(sibling)
    return {
        "id": repo.id,
        "author": repo.namespace,
        "private": repo.private,
        "sha": commit.sha,
        "tags": tags_of(card),
        "cardData": card,
        "siblings": siblings,
    }


def tags_of(card: dict[str, Any]) -> list[str]:
    """Return the tags by which a repository is found."""
    tags = [str(tag) for tag in card.get("tags", [])]
    if "base_model" in card:
        relation = card.get("base_model_relation", "adapter")
        tags.append(f"base_model:{relation}:{card['base_model']}")
    return tags


# ---------------------------------------------------------------- handlers

Handler = Callable[[HubServer, Request], Any]
ROUTES: list[tuple[re.Pattern[str], Handler]] = []

_ID = r"(?P<id>[^/]+/[^/]+)"
_REV = r"(?P<rev>[^/]+)"
_REPO = rf"/api/(?P<kind>models|spaces|datasets)/{_ID}"
_FILES = r"/(?:(?P<kind>spaces|datasets)/)?(?P<id>[^/]+/[^/]+?)"


def route(pattern: str) -> Callable[[Handler], Handler]:
    """Register a handler of requests, by a pattern of "METHOD /path"."""

    def register(handler: Handler) -> Handler:
        ROUTES.append((re.compile(pattern), handler))
        return handler

    return register


@route(r"GET /api/whoami-v2")
def whoami(hub: HubServer, request: Request) -> dict:
    """Describe the token's owner and rights."""
    account = request.account
    if account is None:
        raise HubError(401, "Invalid username or password.")
    orgs = [{"type": "org", "name": name, "roleInOrg": account.org_role} for name in account.orgs]
    answer = {"type": "user", "name": account.name, "orgs": orgs, "auth": {"type": "access_token"}}
    if not account.is_described:
        return answer
    token: dict[str, Any] = {"displayName": "test", "role": account.role, "createdAt": "2026-07-23T10:27:03.276Z"}
    if account.role == "fineGrained":
        scoped = []
        for (kind, name), permissions in account.scopes.items():
            scoped.append({"entity": {"_id": "6a61ec", "type": kind, "name": name}, "permissions": list(permissions)})
        # Never "repo.write" in `global`: those permissions are for discussions and posts anywhere.
        token["fineGrained"] = {"canReadGatedRepos": True, "global": ["discussion.write"], "scoped": scoped}
    answer["auth"]["accessToken"] = token
    return answer


@route(r"POST /api/repos/create")
def create_repo(hub: HubServer, request: Request) -> dict:
    """Create a repository with the commit that every new one has."""
    body = request.json()
    kind = body.get("type", "model")
    namespace = body.get("organization") or (request.account.name if request.account else "")
    check_write(request.account, namespace)
    if not re.fullmatch(r"(?!.*(--|\.\.))[A-Za-z0-9_]([\w.-]{0,94}[A-Za-z0-9_])?", body["name"], re.ASCII):
        raise HubError(400, "Invalid repo name")
    repo_id = f"{namespace}/{body['name']}"
    is_private = body.get("private") is True or body.get("visibility") == "private"
    repo = Repo(kind, repo_id, is_private)
    url = f"{hub.url}/{repo.path}"
    if (kind, repo_id) in hub.repos:
        raise HubError(409, f"You already created this {kind} repo", url=url)
    repo.commit({".gitattributes": File(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")})
    hub.repos[kind, repo_id] = repo
    return {"url": url, "name": repo_id, "id": repo_id}


@route(r"DELETE /api/repos/delete")
def delete_repo(hub: HubServer, request: Request) -> dict:
    body = request.json()
    request.parts["id"] = f"{body['organization']}/{body['name']}"
    repo = hub.repo(request, write=True)
    del hub.repos[repo.kind, repo.id]
    return {}


@route(rf"GET {_REPO}/commits/{_REV}")
def commits(hub: HubServer, request: Request) -> list[dict]:
    """List the commits of a revision, the latest first."""
    repo = hub.repo(request)
    rows = []
    for commit in reversed(repo.commits[: repo.commits.index(repo.at(request.parts["rev"])) + 1]):
        rows.append({"id": commit.sha, "title": "", "message": "", "date": "2026-11-21T03:45:12.000Z", "authors": []})
    return rows


@route(r"POST /api/validate-yaml")
def validate_yaml(hub: HubServer, request: Request) -> dict | Reply:
    """Check a card; the client reads the problem as text, or before a commit as JSON."""
    try:
        check_card(request.json()["content"].encode())
    except HubError as error:
        if request.headers.get("accept") != "text/plain":
            raise
        lines = [row["message"] for row in error.details["errors"]]
        return Reply("\n".join(lines).encode(), error.status, {"Content-Type": "text/plain"})
    return {"errors": [], "warnings": []}


@route(rf"POST {_REPO}/preupload/{_REV}")
def preupload(hub: HubServer, request: Request) -> dict:
    """Return how to send each file, and the hash of the present one: the client leaves out unchanged files."""
    existing = hub.repo(request, write=True).at(request.parts["rev"]).files
    rows = []
    for file in request.json()["files"]:
        path = file["path"]
        mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
        row = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        if path in existing:
            row["oid"] = existing[path].etag
        rows.append(row)
    return {"files": rows}


@route(rf"POST {_FILES}\.git/info/lfs/objects/batch")
def lfs_batch(hub: HubServer, request: Request) -> dict:
    """Return where to upload each large content that is not stored yet."""
    repo = hub.repo(request, write=True)
    rows = []
    for content in request.json()["objects"]:
        row = {"oid": content["oid"], "size": content["size"], "authenticated": True}
        if content["oid"] not in repo.lfs:
            row["actions"] = {"upload": {"href": f"{hub.url}/{repo.path}.git/info/lfs/upload/{content['oid']}"}}
        rows.append(row)
    return {"transfer": "basic", "objects": rows}


@route(rf"PUT {_FILES}\.git/info/lfs/upload/(?P<oid>\w+)")
def lfs_upload(hub: HubServer, request: Request) -> dict:
    """Store a large content. The client sends no token with it."""
    repo = hub.repos[request.kind, request.parts["id"]]
    if hashlib.sha256(request.body).hexdigest() != request.parts["oid"]:
        raise HubError(422, "The content does not have the announced sha256")
    repo.lfs[request.parts["oid"]] = request.body
    return {}


@route(rf"POST {_REPO}/commit/{_REV}")
def commit(hub: HubServer, request: Request) -> dict:
    """Make one commit of all operations, or refuse them all."""
    repo = hub.repo(request, write=True)
    header, *operations = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    if not repo.head.sha.startswith(header["value"].get("parentCommit", "")):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    files = dict(repo.head.files)
    for operation in operations:
        value = operation["value"]
        path = value["path"]
        if operation["key"] == "file":
            files[path] = File(base64.b64decode(value["content"]))
        elif operation["key"] == "lfsFile":
            files[path] = File(repo.lfs[value["oid"]], is_lfs=True)
        elif operation["key"] == "deletedFile" and path in files:
            del files[path]
        else:
            raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
    if "README.md" in files:
        check_card(files["README.md"].data)
    sha = repo.commit(files).sha
    return {"success": True, "commitOid": sha, "commitUrl": f"{hub.url}/{repo.path}/commit/{sha}"}


@route(rf"POST {_REPO}/tag/{_REV}")
def tag(hub: HubServer, request: Request) -> dict:
    repo = hub.repo(request, write=True)
    name = request.json()["tag"]
    if name in repo.tags:
        raise HubError(409, "Tag reference exists already")
    repo.tags[name] = repo.at(request.parts["rev"]).sha
    return {}


@route(r"GET /api/(?P<kind>models|spaces|datasets)")
def list_repos(hub: HubServer, request: Request) -> Reply:
    """Return a page of the visible repositories that match the query, with a link to the next page."""
    wanted_tags = set(request.query.get("filter", []))
    fields = ("id", *request.query.get("expand", []))
    rows = []
    for repo in hub.repos.values():
        is_visible = not repo.private or (request.account and request.account.may_read(repo))
        if repo.kind == request.kind and is_visible and repo.namespace == request.one("author", repo.namespace):
            facts = about(repo, repo.head)
            if wanted_tags <= set(facts["tags"]):
                rows.append({field: facts[field] for field in fields})
    start = int(request.one("cursor", "0"))
    end = start + min(int(request.one("limit", str(PAGE_SIZE))), PAGE_SIZE)
    reply = Reply.json(rows[start:end])
    if end < len(rows):
        query = urlencode(request.query | {"cursor": [str(end)]}, doseq=True)
        reply.headers["Link"] = f'<{hub.url}{request.path}?{query}>; rel="next"'
    return reply


@route(rf"GET {_REPO}(?:/revision/{_REV})?")
def repo_info(hub: HubServer, request: Request) -> dict:
    """Describe a repository at a revision."""
    repo = hub.repo(request)
    return about(repo, repo.at(request.parts["rev"] or "main"))


@route(rf"(?:GET|HEAD) {_FILES}/resolve/{_REV}/(?P<path>.+)")
def resolve(hub: HubServer, request: Request) -> Reply:
    """Return a file's content, or the part of it in the Range header."""
    commit = hub.repo(request).at(request.parts["rev"])
    path = request.parts["path"]
    if path not in commit.files:
        raise HubError(404, f"Entry not found: {path}", "EntryNotFound")
    file = commit.files[path]
    headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes", "ETag": f'"{file.etag}"'}
    if file.is_lfs:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data))}
    part = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    if not part:
        return Reply(file.data, 200, headers)
    start = int(part[1])
    headers["Content-Range"] = f"bytes {start}-{len(file.data) - 1}/{len(file.data)}"
    return Reply(file.data[start:], 206, headers)


@route(rf"POST {_REPO}/(?P<setting>secrets|variables)")
def space_values(hub: HubServer, request: Request) -> dict:
    """Set a secret or a variable of a Space."""
    repo = hub.repo(request, write=True)
    values = repo.secrets if request.parts["setting"] == "secrets" else repo.variables
    values[request.json()["key"]] = request.json()["value"]
    return {}


# ---------------------------------------------------------------- connections


class _Listener(ThreadingHTTPServer):
    """Listens for a Hub and knows its connections, so that it can close them."""

    daemon_threads = True
    request_queue_size = 64  # the client downloads with 8 threads, and retries a refused connection after 1 s

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
        if not isinstance(sys.exception(), OSError):  # the client closed the connection
            super().handle_error(request, client_address)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # already closed by the client
                continue


class _Connection(BaseHTTPRequestHandler):
    """Reads requests, applies faults, and sends the Hub's responses."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes; without this a response takes 40 ms
    server: _Listener

    def serve(self) -> None:
        fault = self.server.hub.fault_of(f"{self.command} {urlsplit(self.path).path}")
        if fault.cut is not None and self.command != "GET":
            self._receive(fault.cut)
            self.close_connection = True
            return
        body = self._receive()
        if fault.status is not None:
            reply = Reply.error(HubError(fault.status, HTTPStatus(fault.status).phrase))
            reply.headers |= fault.headers
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = self.server.hub.answer(self.command, self.path, headers, body)
        if fault.lose_reply:
            self.close_connection = True
            return
        self._send(reply, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def _receive(self, limit: int = sys.maxsize) -> bytes:
        """Return the request's body, or the first `limit` bytes of it."""
        length = int(self.headers.get("Content-Length", 0))
        return self.rfile.read(min(limit, length))

    def _send(self, reply: Reply, fault: Fault) -> None:
        body = bytearray(reply.body)
        if fault.flip and self.command == "GET":
            body[len(body) // 2] ^= 1
        self.send_response(reply.status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in reply.headers.items():
            self.send_header(name, value.encode("ascii", "replace").decode())
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: fault.cut])
        if fault.cut is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        return
