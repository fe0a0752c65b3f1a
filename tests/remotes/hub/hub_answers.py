"""What a Hub answers with; large files in parts."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hub_server import Handler

TOKEN = "hf_testing"


class Answer(Exception):
    """Raised by whoever answers a request."""

    def __init__(
        self, status: int, body: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status)
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        self.headers = {"Content-Type": "application/json", **(headers or {})}


def error(status: int, message: str, code: str = "") -> Answer:
    """A refusal as the Hub words it."""
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return Answer(status, {"error": message}, headers)


def range_of(handler: Handler, data: bytes) -> tuple[int, int]:
    """The first byte that is asked for and the one after the last."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range") or "")
    if not asked or not handler.hub.knows_ranges:
        return 0, len(data)
    return int(asked[1]), int(asked[2]) + 1 if asked[2] else len(data)


def content(handler: Handler, data: bytes, headers: dict[str, str]) -> Answer:
    """The bytes that are asked for."""
    start, end = range_of(handler, data)
    if start >= len(data) and start:
        return Answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    partial = bool(handler.headers.get("Range")) and handler.hub.knows_ranges
    more = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"} if partial else {}
    return Answer(206 if partial else 200, data[start:end], {**headers, **more})
