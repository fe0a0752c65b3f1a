"""What answers requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from adapterhub.protocols.progress import Progress


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What `adz serve` was asked for. `extra` goes to the engine's own command line.

    The engine calls `ready` once, with the URL of its API, when it answers requests.
    """

    base: str
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    max_rank: int | None = None
    max_resident: int = 8
    max_context: int | None = None
    dtype: str = "auto"
    extra: tuple[str, ...] = ()
    ready: Callable[[str], None] = field(default=lambda url: None)


class Engine(Protocol):
    """Serves a base and its adapters over the OpenAI API."""

    def serve(self, settings: ServeSettings, progress: Progress) -> int:
        """Serve until terminated; return the exit code."""
