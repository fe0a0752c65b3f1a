"""Debian's docker-registry on this machine, a relay in front of it that can be made to fail,
and adapters without torch to send there."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adapterhub.exchange.bounds import Bounds
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry
from adapterhub_remotes.oci.remote import OciRemote

from ...free_ports import free_ports

# The modules beside this file.
sys.path.insert(0, str(Path(__file__).parent))


def program(name: str) -> str:
    """The path of a program of Debian's. Where it is missing a test is skipped, and in CI fails."""
    path = shutil.which(name)
    if path is None and os.environ.get("CI"):
        pytest.fail(f"{name} is not installed: apt-get install {name}")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@pytest.fixture(scope="session")
def skopeo() -> Callable[..., str]:
    """Run skopeo; return what it prints."""
    path = program("skopeo")

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [path, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def start_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., int]]:
    """Start a docker-registry with more lines of configuration; return its port."""
    processes = []

    def start(more: str = "") -> int:
        path = program("docker-registry")
        folder, port = tmp_path_factory.mktemp("docker-registry"), free_ports(1)[0]
        configuration = folder / "config.yml"
        configuration.write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {folder}}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}'}}\n{more.format(folder=folder)}"
        )
        log = (folder / "log").open("wb")
        process = subprocess.Popen([path, "serve", configuration], stdout=log, stderr=log)
        processes.append(process)
        deadline = time.monotonic() + 20
        while not answers(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "docker-registry does not answer"
            time.sleep(0.05)
        return port

    yield start
    for process in processes:
        process.terminate()
        process.wait(10)


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/v2/")
        connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()
    return True


@pytest.fixture(scope="session")
def registry_port(start_registry: Callable[..., int]) -> int:
    """A docker-registry that everyone may read and write."""
    return start_registry()


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """A path in the registry of this test alone."""
    name = "".join(c for c in request.node.name.lower() if c.isalnum())
    return f"t{abs(hash(request.node.nodeid)) % 10**8}/{name[:60]}"


@pytest.fixture
def url(registry_port: int, place: str) -> str:
    return f"oci://127.0.0.1:{registry_port}/{place}"


@dataclass
class Asked:
    """A request that came to the relay."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """What the relay answers. The headers say what they like about the body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""


class Relay:
    """Passes requests on to a registry. `instead` may answer in its place, `change` may change
    what it answers."""

    def __init__(self, upstream: int | None) -> None:
        self.upstream = upstream
        self.asked: list[Asked] = []
        self.instead: Callable[[Asked], Reply | None] = lambda asked: None
        self.change: Callable[[Asked, Reply], Reply] = lambda asked, reply: reply
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if self.raw_requestline and self.parse_request():
                    relay.serve(self)
                self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length", 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        asked = Asked(handler.command, handler.path, headers, handler.rfile.read(length))
        self.asked.append(asked)
        reply = self.instead(asked)
        if reply is None:
            reply = self.change(asked, self.forward(asked))
        lines = [f"HTTP/1.1 {reply.status} Test", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        chunks = [reply.body] if isinstance(reply.body, bytes) else reply.body
        try:
            handler.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            for chunk in chunks:
                handler.wfile.write(chunk)
                handler.wfile.flush()
        except OSError:
            # The client hung up, as it should where the body never ends.
            return

    def forward(self, asked: Asked) -> Reply:
        assert self.upstream is not None
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=20)
        headers = {k: v for k, v in asked.headers.items() if k != "connection"}
        try:
            connection.request(asked.method, asked.path, asked.body, headers)
            response = connection.getresponse()
            body = response.read()
            kept = {k: v for k, v in response.getheaders() if k.lower() != "connection"}
            return Reply(response.status, kept, body)
        finally:
            connection.close()


@pytest.fixture
def start_relay() -> Iterator[Callable[[int | None], Relay]]:
    """Start relays in front of a registry, or of nothing."""
    relays: list[Relay] = []

    def start(upstream: int | None) -> Relay:
        relays.append(Relay(upstream))
        return relays[-1]

    yield start
    for relay in relays:
        relay.server.shutdown()
        relay.server.server_close()


@pytest.fixture
def relay(registry_port: int, start_relay: Callable[[int | None], Relay]) -> Relay:
    """A relay in front of the registry."""
    return start_relay(registry_port)


@pytest.fixture
def make_reply() -> type[Reply]:
    return Reply


@pytest.fixture
def open_remote(place: str) -> Callable[..., OciRemote]:
    """The remote at a port, which waits little."""

    def make(port: int, timeout_seconds: float = 5) -> OciRemote:
        return OciRemote(
            f"oci://127.0.0.1:{port}/{place}",
            timeout_seconds=timeout_seconds,
            pause=lambda seconds: None,
        )

    return make


@pytest.fixture
def quick() -> Bounds:
    return Bounds(pause=0.001, patience=0.3)


@pytest.fixture
def silent() -> Silent:
    return Silent()


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials of whoever runs the tests."""
    for name in ("ADZ_OCI_USERNAME", "ADZ_OCI_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def sender(open_home: Callable[[str], Registry]) -> Registry:
    return open_home("sender")
