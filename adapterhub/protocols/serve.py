"""What answers requests."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from adapterhub.protocols.progress import Progress


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes; None is no limit, or for `at_once` the engine's own number.

    A prompt or choice more in a request counts as one more in `at_once`; `waiting` and
    `requests_per_minute` are for each adapter, and so is `adapter_at_once`.
    """

    body_bytes: int = 8 * 2**20
    body_seconds: float = 30.0
    max_tokens: int | None = None
    at_once: int | None = None
    adapter_at_once: int | None = None
    waiting: int = 256
    requests_per_minute: int | None = None


ServerStatus = Literal["starting", "ready", "restarting", "draining"]
LogFormat = Literal["text", "json"]


@dataclass(frozen=True, slots=True)
class Derivations:
    """What a server may make for requests.

    merges: how many merged versions are kept, 0 for none at all. merge_error, convert_error: the
    most that may be lost, relative Frobenius error. wait_seconds: how long a request waits.
    """

    merges: int = 32
    merge_error: float = 0.05
    conversions: bool = True
    convert_error: float = 0.05
    wait_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What `adz serve` was asked for. `extra` goes to the engine's own command line;
    `data_parallel` is how many copies of the base answer. `replicas` is for an engine that
    starts servers with `replica_engine`.

    `keys` says whether a client needs a key: always, never, or (None) as soon as there is one;
    `own_key` opens the server for `adz` itself and ends with it. What is being answered has
    `drain_seconds` to end when the server is stopped; `restart` is for an engine that died, or
    that finishes no step for `stall_seconds` (0: for ever) while requests wait.
    `requests_log` gets a line for each request, in `log_format`.

    The engine calls `ready` once, with the URL of its API, when it answers requests, and `status`
    whenever its state changes.
    """

    base: str
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    keys: bool | None = None
    ssl_keyfile: Path | None = None
    ssl_certfile: Path | None = None
    limits: Limits = Limits()
    derivations: Derivations = Derivations()
    max_rank: int | None = None
    max_resident: int = 8
    max_context: int | None = None
    dtype: str = "auto"
    extra: tuple[str, ...] = ()
    data_parallel: int = 1
    replicas: int = 1
    replica_engine: str | None = None
    drain_seconds: float = 30.0
    restart: bool = True
    stall_seconds: float = 300.0
    requests_log: Path | None = None
    log_format: LogFormat = "text"
    own_key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    status: Callable[[ServerStatus], None] = field(default=lambda status: None)
    ready: Callable[[str], None] = field(default=lambda url: None)


class Engine(Protocol):
    """Serves a base and its adapters over the OpenAI API."""

    def serve(self, settings: ServeSettings, progress: Progress) -> int:
        """Serve until terminated; return the exit code."""
