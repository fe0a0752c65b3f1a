"""What each server of this home says about itself: `$ADZ_HOME/serve/PORT-PID.json`.

The file is there from the start of `adz serve` to its end, and is replaced as a whole. One whose
process is gone (kill -9, a crash of the machine) is recognised by pid and start time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapterhub import __version__
from adapterhub.home import adz_home
from adapterhub.protocols import ServerStatus, ServeSettings
from adapterhub.serve.address import api_url
from adapterhub.serve.lifecycle.process import Process


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server. `started` is UTC, ISO 8601; `restarts` counts those of a crashed engine; `key`
    opens it for this user's own commands, which is why only the user may read the file."""

    pid: int
    began: str
    host: str
    port: int
    url: str
    base: str
    engine: str
    version: str
    started: str
    log: str
    requests_log: str
    drain_seconds: float
    key: str
    state: ServerStatus = "starting"
    restarts: int = 0

    @property
    def process(self) -> Process:
        """The `adz serve` that looks after it."""
        return Process(self.pid, self.began)

    def public(self) -> dict[str, Any]:
        """All but the key."""
        return {name: value for name, value in asdict(self).items() if name != "key"}


def serve_folder() -> Path:
    """`$ADZ_HOME/serve`, made where it is missing."""
    folder = adz_home() / "serve"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def log_file(port: int) -> Path:
    """What the engine of the server on `port` prints."""
    return serve_folder() / f"{port}.log"


def requests_log_file(port: int) -> Path:
    """One line for each of its requests."""
    return serve_folder() / f"{port}.requests.log"


class StateFile:
    """The state of this process's server."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._file = serve_folder() / f"{state.port}-{state.pid}.json"
        self._write()

    def change(self, status: ServerStatus) -> None:
        """Note how the server is now."""
        restarts = self._state.restarts + (status == "restarting")
        self._state = replace(self._state, state=status, restarts=restarts)
        # A full disk must not end the server.
        with suppress(OSError):
            self._write()

    def remove(self) -> None:
        """The server has ended."""
        self._file.unlink(missing_ok=True)

    def _write(self) -> None:
        part = self._file.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self._state), file, indent=2)
        part.replace(self._file)


@contextmanager
def stated(settings: ServeSettings, engine: str) -> Iterator[StateFile]:
    """The state file of this process's server, for as long as the block runs."""
    process = Process.current()
    tls = settings.ssl_certfile is not None
    file = StateFile(
        ServerState(
            pid=process.pid,
            began=process.began,
            host=settings.host,
            port=settings.port,
            url=api_url(settings.host, settings.port, tls=tls),
            base=settings.base,
            engine=engine,
            version=__version__,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            log=str(log_file(settings.port)),
            requests_log=str(requests_log_file(settings.port)),
            drain_seconds=settings.drain_seconds,
            key=settings.own_key,
        )
    )
    try:
        yield file
    finally:
        file.remove()


def running_servers() -> list[ServerState]:
    """The servers of this home that run, by port."""
    return [state for _, state in _read() if state.process.is_alive()]


def forget_gone() -> list[ServerState]:
    """Remove the files of servers that ended without a word, and return what they said last."""
    gone = []
    for file, state in _read():
        if not state.process.is_alive():
            file.unlink(missing_ok=True)
            gone.append(state)
    return gone


def _read() -> list[tuple[Path, ServerState]]:
    known = {field.name for field in fields(ServerState)}
    found = []
    for file in (adz_home() / "serve").glob("*-*.json"):
        # A server may end while its file is read, and another release has other fields.
        with suppress(OSError, ValueError, TypeError):
            values = json.loads(file.read_text(encoding="utf-8"))
            state = ServerState(**{name: values[name] for name in known & set(values)})
            found.append((file, state))
    return sorted(found, key=lambda pair: (pair[1].port, pair[1].pid))
