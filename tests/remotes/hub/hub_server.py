"""A server that speaks the part of the Hugging Face Hub's HTTP API that huggingface_hub uses.

Repositories are in memory: commits that hold a tree of paths, branches and tags that point at
commits, and large files by their sha256 behind a redirect to another host name.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hub_changes
import hub_reads
from hub_answers import TOKEN, Answer, error
from hub_repository import LARGE, Entry, Repository

_REPO = r"([\w.-]+/[\w.-]+)"


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
                tree[path] = Entry(data, path.endswith(LARGE))
                if tree[path].large:
                    self.large[tree[path].sha256] = data
            return repo.commit("main", tree, head)


class Handler(BaseHTTPRequestHandler):
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
                raise Answer(fault.status, fault.body)
            for pattern, methods, action in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in methods:
                    if action is hub_reads.storage:
                        hub_reads.storage(self, *match.groups(), body=body, query=query)
                        return
                    with self.hub.lock:
                        action(self, *match.groups(), body=body, query=query)
            raise error(404, f"no route for {self.command} {path}")
        except Answer as answer:
            self.send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _fault(self, path: str) -> Fault | None:
        for fault in self.hub.faults:
            if fault.times and fault.method == self.command and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def send(self, answer: Answer) -> None:
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
            raise error(401, "Invalid username or password.")
        if self.token != TOKEN:
            raise error(401, "Invalid credentials in Authorization header")

    def repository(self, name: str, *, write: bool = False) -> Repository:
        if self.token not in (None, TOKEN):
            self.check_token()
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self.token != TOKEN):
            raise error(401 if self.token is None else 404, "Repository not found", "RepoNotFound")
        if write:
            self.check_token()
        return found

    def tree(self, name: str, revision: str) -> tuple[str, dict[str, Entry]]:
        repo = self.repository(name)
        sha = repo.resolve(revision)
        if sha is None:
            raise error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, repo.commits[sha]


_ROUTES: list[tuple[str, tuple[str, ...], Any]] = [
    ("/api/repos/create", ("POST",), hub_changes.create),
    ("/api/validate-yaml", ("POST",), hub_changes.validate),
    ("/api/models", ("GET",), hub_reads.models),
    (rf"/api/models/{_REPO}/refs", ("GET",), hub_reads.refs),
    (rf"/api/models/{_REPO}/tag/(.+)", ("POST", "DELETE"), hub_changes.tag),
    (rf"/api/models/{_REPO}/branch/(.+)", ("POST", "DELETE"), hub_changes.branch),
    (rf"/api/models/{_REPO}/preupload/(.+)", ("POST",), hub_changes.preupload),
    (rf"/api/models/{_REPO}/commit/(.+)", ("POST",), hub_changes.commit),
    (rf"/api/models/{_REPO}/tree/([^/]+)", ("GET",), hub_reads.tree),
    (rf"/api/models/{_REPO}/paths-info/(.+)", ("POST",), hub_reads.paths_info),
    (rf"/api/models/{_REPO}/revision/(.+)", ("GET",), hub_reads.info),
    (rf"/api/models/{_REPO}", ("GET",), hub_reads.info),
    (rf"/{_REPO}\.git/info/lfs/objects/batch", ("POST",), hub_changes.batch),
    (r"/storage/([0-9a-f]{64})", ("PUT", "GET", "HEAD"), hub_reads.storage),
    (rf"/{_REPO}/resolve/([^/]+)/(.+)", ("GET", "HEAD"), hub_reads.resolve),
]


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """A server on loopback for the length of the block."""
    hub = HubServer()
    handler = type("Handler", (Handler,), {"hub": hub})
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
