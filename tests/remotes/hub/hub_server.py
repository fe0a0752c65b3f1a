"""A server that speaks the part of the Hugging Face Hub's HTTP API that huggingface_hub uses.

Repositories are in memory: commits that hold a tree of paths, branches and tags that point at
commits, and large files by their sha256 behind a redirect to another host name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_testing"
_REPO = r"([\w.-]+/[\w.-]+)"
_LARGE = (".safetensors", ".bin", ".gguf")


@dataclass(frozen=True)
class Entry:
    """A file of a commit: its bytes, and whether it is kept as a large file."""

    data: bytes
    large: bool = False

    @property
    def oid(self) -> str:
        """git's name of the blob; of a large file that of its pointer."""
        data = self.data
        if self.large:
            data = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize %d\n" % (
                self.sha256.encode(),
                len(self.data),
            )
        return hashlib.sha1(b"blob %d\0%b" % (len(data), data)).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class Repository:
    """branches, tags: name -> commit. commits: sha -> its files by path."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)

    def commit(self, branch: str, tree: dict[str, Entry], parent: str | None) -> str:
        text = json.dumps([parent, len(self.commits), sorted((p, e.oid) for p, e in tree.items())])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha], self.parents[sha] = tree, parent
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        if revision in self.commits:
            return revision
        return self.branches.get(revision) or self.tags.get(revision)

    def reachable(self) -> Iterator[str]:
        """The commits that a branch or a tag leads to."""
        seen: set[str] = set()
        for start in (*self.branches.values(), *self.tags.values()):
            sha: str | None = start
            while sha is not None and sha not in seen:
                seen.add(sha)
                yield sha
                sha = self.parents[sha]


@dataclass
class Fault:
    """An answer in place of the right one, for so many requests that match. A status of 0: no
    answer at all."""

    method: str
    path: str
    status: int
    times: int = 1
    body: bytes = b'{"error": "out of order"}'


class HubServer:
    """The state that tests look at."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        # Large files break off after so many bytes, for so many requests.
        self.break_after: int | None = None
        self.breaks = 0
        self.knows_ranges = True
        self.tokens_at_storage: list[str | None] = []
        self.before_commit: Any = None
        self.lock = threading.RLock()
        self.url = ""
        self.stopped = threading.Event()

    def put(self, repository: str, files: dict[str, bytes], *, private: bool = False) -> str:
        """A commit on `main` as somebody else makes it; returns its sha."""
        with self.lock:
            repo = self.repositories.setdefault(repository, Repository(private))
            head = repo.branches.get("main")
            tree = dict(repo.commits[head]) if head else {}
            for path, data in files.items():
                tree[path] = Entry(data, path.endswith(_LARGE))
                if tree[path].large:
                    self.large[tree[path].sha256] = data
            return repo.commit("main", tree, head)


class _Answer(Exception):
    def __init__(
        self, status: int, body: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status)
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        self.headers = {"Content-Type": "application/json", **(headers or {})}


def _error(status: int, message: str, code: str = "") -> _Answer:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return _Answer(status, {"error": message}, headers)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: HubServer

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
            fault = self._fault(path)
        try:
            if fault is not None and fault.status == 0:
                self.close_connection = True
                self.hub.stopped.wait(30)
                return
            if fault is not None:
                raise _Answer(fault.status, fault.body)
            for pattern, methods, action in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in methods:
                    if action is _storage:
                        _storage(self, *match.groups(), body=body, query=query)
                        return
                    with self.hub.lock:
                        action(self, *match.groups(), body=body, query=query)
            raise _error(404, f"no route for {self.command} {path}")
        except _Answer as answer:
            self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _fault(self, path: str) -> Fault | None:
        for fault in self.hub.faults:
            if fault.times and fault.method == self.command and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def _send(self, answer: _Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def check_token(self) -> None:
        if self.token is None:
            raise _error(401, "Invalid username or password.")
        if self.token != TOKEN:
            raise _error(401, "Invalid credentials in Authorization header")

    def repository(self, name: str, *, write: bool = False) -> Repository:
        if self.token not in (None, TOKEN):
            self.check_token()
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self.token != TOKEN):
            raise _error(401 if self.token is None else 404, "Repository not found", "RepoNotFound")
        if write:
            self.check_token()
        return found

    def tree(self, name: str, revision: str) -> tuple[str, dict[str, Entry]]:
        repo = self.repository(name)
        sha = repo.resolve(revision)
        if sha is None:
            raise _error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, repo.commits[sha]


def _create(handler: _Handler, *, body: bytes, **_: Any) -> None:
    handler.check_token()
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    if asked["organization"] == "forbidden":
        raise _error(403, 'You don\'t have the rights to create a model under "forbidden"')
    url = f"{handler.hub.url}/{name}"
    if name in handler.hub.repositories:
        raise _Answer(409, {"error": "You already created this model repo", "url": url})
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    repo = handler.hub.repositories[name] = Repository(private)
    repo.commit("main", {".gitattributes": Entry(b"*.safetensors filter=lfs\n")}, None)
    raise _Answer(200, {"url": url, "name": name, "id": "1"})


def _refs(handler: _Handler, name: str, **_: Any) -> None:
    repo = handler.repository(name)

    def refs(kind: str, found: dict[str, str]) -> list[dict[str, str]]:
        return [
            {"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": sha} for n, sha in found.items()
        ]

    answer = {"branches": refs("heads", repo.branches), "tags": refs("tags", repo.tags)}
    raise _Answer(200, {**answer, "converts": []})


def _tag(handler: _Handler, name: str, revision: str, *, body: bytes, **_: Any) -> None:
    repo = handler.repository(name, write=True)
    if handler.command == "DELETE":
        if repo.tags.pop(revision, None) is None:
            raise _error(404, f"no tag {revision}", "RevisionNotFound")
        raise _Answer(200)
    tag, sha = json.loads(body)["tag"], repo.resolve(revision)
    if sha is None:
        raise _error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    if tag in repo.tags:
        raise _error(409, f"Tag refs/tags/{tag} already exists")
    repo.tags[tag] = sha
    raise _Answer(200)


def _branch(handler: _Handler, name: str, branch: str, *, body: bytes, **_: Any) -> None:
    repo = handler.repository(name, write=True)
    if handler.command == "DELETE":
        if branch == "main" or repo.branches.pop(branch, None) is None:
            raise _error(404, f"no branch {branch}", "RevisionNotFound")
        # What neither a branch nor a tag leads to is gone.
        repo.commits = {sha: repo.commits[sha] for sha in repo.reachable()}
        raise _Answer(200)
    if branch in repo.branches:
        raise _error(409, f"Reference refs/heads/{branch} already exists")
    start = repo.resolve(json.loads(body).get("startingPoint", "main"))
    assert start is not None
    repo.branches[branch] = start
    raise _Answer(200)


def _preupload(handler: _Handler, name: str, revision: str, *, body: bytes, **_: Any) -> None:
    handler.repository(name, write=True)
    _, tree = handler.tree(name, revision)
    files = []
    for asked in json.loads(body)["files"]:
        there = tree.get(asked["path"])
        files.append(
            {
                "path": asked["path"],
                "uploadMode": "lfs" if asked["path"].endswith(_LARGE) else "regular",
                "shouldIgnore": False,
                "oid": (there.sha256 if there.large else there.oid) if there else None,
            }
        )
    raise _Answer(200, {"files": files})


def _batch(handler: _Handler, name: str, *, body: bytes, **_: Any) -> None:
    handler.repository(name, write=True)
    objects = []
    for asked in json.loads(body)["objects"]:
        answer = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] not in handler.hub.large:
            href = f"{handler.hub.url}/storage/{asked['oid']}"
            answer["actions"] = {"upload": {"href": href}}
        objects.append(answer)
    raise _Answer(200, {"transfer": "basic", "objects": objects})


def _storage(handler: _Handler, oid: str, *, body: bytes, **_: Any) -> None:
    hub = handler.hub
    if handler.command == "PUT":
        if hashlib.sha256(body).hexdigest() != oid:
            raise _error(400, "the bytes are others")
        hub.large[oid] = body
        raise _Answer(200)
    hub.tokens_at_storage.append(handler.token)
    data = hub.large[oid]
    if hub.breaks and hub.break_after is not None and handler.command == "GET":
        hub.breaks -= 1
        start, _ = _range(handler, data)
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start : start + hub.break_after])
        handler.close_connection = True
        return
    handler._send(_content(handler, data, {"ETag": f'"{oid}"'}))


def _range(handler: _Handler, data: bytes) -> tuple[int, int]:
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range") or "")
    if not asked or not handler.hub.knows_ranges:
        return 0, len(data)
    return int(asked[1]), int(asked[2]) + 1 if asked[2] else len(data)


def _content(handler: _Handler, data: bytes, headers: dict[str, str]) -> _Answer:
    start, end = _range(handler, data)
    if start >= len(data) and start:
        return _Answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    partial = bool(handler.headers.get("Range")) and handler.hub.knows_ranges
    more = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"} if partial else {}
    return _Answer(206 if partial else 200, data[start:end], {**headers, **more})


def _commit(handler: _Handler, name: str, branch: str, *, body: bytes, **_: Any) -> None:
    hub = handler.hub
    repo = handler.repository(name, write=True)
    if hub.before_commit is not None:
        action, hub.before_commit = hub.before_commit, None
        action()
    lines = [json.loads(line) for line in body.splitlines()]
    assert lines[0]["key"] == "header"
    head = repo.branches.get(branch)
    if head is None:
        raise _error(404, f"Invalid rev id: {branch}", "RevisionNotFound")
    parent = lines[0]["value"].get("parentCommit")
    if parent is not None and parent != head:
        raise _error(412, "A commit has happened since. Please refresh and try again.")
    tree = dict(repo.commits[head])
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            tree[value["path"]] = Entry(base64.b64decode(value["content"]))
        elif line["key"] == "lfsFile":
            if value["oid"] not in hub.large:
                raise _error(400, f"the large file {value['oid']} was not uploaded")
            tree[value["path"]] = Entry(hub.large[value["oid"]], large=True)
        elif line["key"] == "deletedFile":
            if tree.pop(value["path"], None) is None:
                raise _error(400, f"no file {value['path']} to delete")
        else:
            raise _error(400, f"unknown operation {line['key']}")
    sha = repo.commit(branch, tree, head)
    url = f"{hub.url}/{name}/commit/{sha}"
    raise _Answer(200, {"success": True, "commitOid": sha, "commitUrl": url})


def _describe(path: str, entry: Entry) -> dict[str, Any]:
    described: dict[str, Any] = {
        "type": "file",
        "path": path,
        "size": len(entry.data),
        "oid": entry.oid,
    }
    if entry.large:
        described["lfs"] = {"oid": entry.sha256, "size": len(entry.data), "pointerSize": 134}
    return described


def _tree(
    handler: _Handler, name: str, revision: str, *, query: dict[str, list[str]], **_: Any
) -> None:
    _, tree = handler.tree(name, revision)
    is_recursive = query.get("recursive", ["false"])[0].lower() == "true"
    folders = {path.rpartition("/")[0] for path in tree if "/" in path}
    found = [{"type": "directory", "path": f, "oid": "0" * 40, "size": 0} for f in sorted(folders)]
    shown = {path: entry for path, entry in tree.items() if is_recursive or "/" not in path}
    raise _Answer(200, [*found, *(_describe(path, entry) for path, entry in shown.items())])


def _paths_info(handler: _Handler, name: str, revision: str, *, body: bytes, **_: Any) -> None:
    _, tree = handler.tree(name, revision)
    asked = parse_qs(body.decode())["paths"]
    raise _Answer(200, [_describe(path, tree[path]) for path in asked if path in tree])


def _resolve(handler: _Handler, name: str, revision: str, path: str, **_: Any) -> None:
    sha, tree = handler.tree(name, revision)
    entry = tree.get(path)
    headers = {"X-Repo-Commit": sha}
    if entry is None:
        message = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
        raise _Answer(404, {"error": "Entry not found"}, {**headers, **message})
    if not entry.large:
        raise _content(handler, entry.data, {**headers, "ETag": f'"{entry.oid}"'})
    storage = handler.hub.url.replace("127.0.0.1", "localhost")
    headers |= {
        "Location": f"{storage}/storage/{entry.sha256}",
        "X-Linked-Size": str(len(entry.data)),
        "X-Linked-ETag": f'"{entry.sha256}"',
    }
    raise _Answer(302, b"", headers)


def _info(handler: _Handler, name: str, revision: str | None = None, **_: Any) -> None:
    sha, tree = handler.tree(name, revision or "main")
    siblings = [{"rfilename": path, "size": len(entry.data)} for path, entry in tree.items()]
    raise _Answer(200, {"id": name, "sha": sha, "private": False, "siblings": siblings, "tags": []})


def _models(handler: _Handler, *, query: dict[str, list[str]], **_: Any) -> None:
    found = []
    for name, repo in handler.hub.repositories.items():
        siblings = [{"rfilename": path} for path in repo.commits[repo.branches["main"]]]
        visible = not repo.private or handler.token == TOKEN
        if visible and name.startswith(query["author"][0] + "/"):
            more = {"siblings": siblings} if "full" in query else {}
            found.append({"id": name, "private": repo.private, **more})
    raise _Answer(200, found)


def _validate(handler: _Handler, *, body: bytes, **_: Any) -> None:
    block = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
    try:
        values = yaml.safe_load(block[1]) if block else {}
        if not isinstance(values.get("tags", []), list):
            raise ValueError('"tags" must be an array')
    except (ValueError, yaml.YAMLError) as error:
        raise _Answer(400, {"errors": [{"message": str(error)}]}) from error
    raise _Answer(200, {"errors": [], "warnings": []})


_ROUTES: list[tuple[str, tuple[str, ...], Any]] = [
    ("/api/repos/create", ("POST",), _create),
    ("/api/validate-yaml", ("POST",), _validate),
    ("/api/models", ("GET",), _models),
    (rf"/api/models/{_REPO}/refs", ("GET",), _refs),
    (rf"/api/models/{_REPO}/tag/(.+)", ("POST", "DELETE"), _tag),
    (rf"/api/models/{_REPO}/branch/(.+)", ("POST", "DELETE"), _branch),
    (rf"/api/models/{_REPO}/preupload/(.+)", ("POST",), _preupload),
    (rf"/api/models/{_REPO}/commit/(.+)", ("POST",), _commit),
    (rf"/api/models/{_REPO}/tree/([^/]+)", ("GET",), _tree),
    (rf"/api/models/{_REPO}/paths-info/(.+)", ("POST",), _paths_info),
    (rf"/api/models/{_REPO}/revision/(.+)", ("GET",), _info),
    (rf"/api/models/{_REPO}", ("GET",), _info),
    (rf"/{_REPO}\.git/info/lfs/objects/batch", ("POST",), _batch),
    (r"/storage/([0-9a-f]{64})", ("PUT", "GET", "HEAD"), _storage),
    (rf"/{_REPO}/resolve/([^/]+)/(.+)", ("GET", "HEAD"), _resolve),
]


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """A server on loopback for the length of the block."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
