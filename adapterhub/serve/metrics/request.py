"""One request for a model on its way through a server."""

from __future__ import annotations

import re
import time
import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field

from adapterhub.serve.preset import Preset

CLIENT_GONE = 499
"""The status of a request whose client went away before the end of its answer."""

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True, eq=False)
class ServedRequest:
    """What is known of a request so far. `reference` is the `model` that was asked for, empty
    where it was none; `version` what it meant: `sql@3`, or the base's name. Times are monotonic
    seconds, tokens are summed over all of its answers. `token_limit` is what the server allows a
    request that does not say how many tokens it wants, where there is a limit; `preset` is that
    of the version; `headers`, in lower case, go with the answer; `broken`: the engine failed, which
    the status of a stream that had begun does not say."""

    reference: str = ""
    key: str = ""
    path: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    begun: float = field(default_factory=time.monotonic)
    version: str = ""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    first_token: float | None = None
    token_limit: int | None = None
    preset: Preset | None = None
    admitted: bool = False
    status: int = 0
    complete: bool = False
    gone: bool = False
    broken: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def answered_by(self, version: str) -> None:
        """The engine knows what `model` means: the reference of a version, or the base's name."""
        self.version = version

    def note_first_token(self, at: float | None = None) -> None:
        """A token is there, since `at` or now; only the first call counts."""
        if self.first_token is None:
            self.first_token = time.monotonic() if at is None else at

    @property
    def first_token_seconds(self) -> float | None:
        """From the request's arrival, waiting included, to its first token."""
        return None if self.first_token is None else max(0.0, self.first_token - self.begun)


_CURRENT: ContextVar[ServedRequest | None] = ContextVar("adapterhub_request", default=None)


def current_request() -> ServedRequest:
    """The request that this task answers; elsewhere one that nobody looks at."""
    return _CURRENT.get() or ServedRequest()


def set_current(request: ServedRequest) -> None:
    """`request` is what this task, and those that it starts, answers."""
    _CURRENT.set(request)


def request_id(given: bytes | None) -> str:
    """The id that a client gave its request (`X-Request-Id`), or a new one."""
    return given.decode() if given and _ID.fullmatch(given) else uuid.uuid4().hex
