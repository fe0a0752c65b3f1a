"""Who asks: what a request has to say about it decides which part of a split alias answers, so
that one user gets one version from one request to the next.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

_FIELDS = ("user", "safety_identifier")
_HEADERS = (b"x-session-id", b"x-request-id")

ASKING: ContextVar[str | None] = ContextVar("adapterhub_asking", default=None)
"""The key of the request that is being answered, set by the doors."""


def sticky_key(values: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> str:
    """The user that a body names, else the session or the request of its headers (their names in
    lower case), else a draw that no other request gets.

    What they say is for choosing only: it gives no right to anything.
    """
    for name in _FIELDS:
        given = values.get(name)
        if isinstance(given, str) and given:
            return f"user {given}"
    for header in _HEADERS:
        value = headers.get(header)
        if value:
            return f"{header.decode()} {value.decode('latin-1')}"
    return secrets.token_hex(16)
