"""What a registry answers, read within bounds."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from adapterhub.errors import EXIT_VERIFICATION, AdzError

JSON_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body was small and is read."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises AdzError where it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise damaged(self.url, "is not a JSON object")
        return value


def read_small(response: httpx2.Response, url: str, seconds: float) -> bytes:
    """The whole body, of at most 1 MiB and within `seconds`."""
    check_plain(response, url)
    deadline = time.monotonic() + seconds
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > JSON_BYTES:
            raise damaged(url, "is larger than 1 MiB")
        if time.monotonic() > deadline:
            raise AdzError(f"{url[:200]} does not end within {seconds:g} seconds")
    return bytes(body)


def check_plain(response: httpx2.Response, url: str) -> None:
    """Refuse a body that was compressed on the way: its bytes are not those that were asked for,
    and a small one could become very large."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() not in ("", "identity"):
        raise damaged(url, f"comes encoded as {encoding[:20]!r}, which was not asked for")


def damaged(url: str, problem: str) -> AdzError:
    """The error of an answer that cannot be right (exit code 3)."""
    return AdzError(f"{url[:200]} {problem}", "nothing was stored", exit_code=EXIT_VERIFICATION)


def unexpected(answer: Answer) -> AdzError:
    """The error of a status that nobody waits for, with the registry's own words."""
    parts = urlsplit(answer.url)
    where = f"{parts.scheme}://{parts.netloc}{parts.path}"
    return AdzError(f"{where[:200]}: the registry answers {answer.status}{_words(answer.body)}")


def _words(body: bytes) -> str:
    try:
        first = json.loads(body)["errors"][0]
        text = f"{first.get('code', '')} {first.get('message', '')}"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    # The text of a stranger: on one line, without what a terminal would obey.
    plain = "".join(char if char.isprintable() else " " for char in text)
    return f" ({' '.join(plain.split())[:200]})"
