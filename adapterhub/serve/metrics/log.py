"""One line for each request, never with its prompt or its answer."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapterhub.protocols import LogFormat
from adapterhub.serve.metrics.request import ServedRequest

MOST_BYTES = 16 * 2**20
_KEPT = 3


class RequestLog:
    """Writes `path`, and none where there is no path. Beyond `most` bytes the file is set aside
    as `.1`, the one before as `.2`; the oldest goes."""

    def __init__(self, path: Path | None, log_format: LogFormat, *, most: int = MOST_BYTES) -> None:
        self._path = path
        self._format = log_format
        self._most = most
        self._descriptor = -1
        self._size = 0
        if path is not None:
            self._open(path)

    def write(self, request: ServedRequest, seconds: float, refusal: str = "") -> None:
        """The line of a request that ended; `refusal` is why it was refused. Where it cannot be
        written, as on a full disk, it is left out: nobody's request fails for it."""
        if self._path is None:
            return
        fields = line_of(request, seconds, refusal)
        text = json.dumps(fields) if self._format == "json" else as_text(fields)
        data = text.encode() + b"\n"
        with suppress(OSError):
            if self._size + len(data) > self._most and self._size:
                self._turn(self._path)
            if self._descriptor < 0:
                self._open(self._path)
            os.write(self._descriptor, data)
            self._size += len(data)

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # It says who asked for what, so only the user reads it.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _turn(self, path: Path) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            # A number that is closed may soon be someone else's.
            self._descriptor = -1
        for number in range(_KEPT - 1, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))
        self._size = 0


def line_of(request: ServedRequest, seconds: float, refusal: str) -> dict[str, Any]:
    """The fields of a line; times are in seconds."""
    first = request.first_token_seconds
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "id": request.id,
        "path": request.path,
        "reference": request.reference,
        "version": request.version,
        "status": request.status,
        "prompt_tokens": request.prompt_tokens,
        "generated_tokens": request.generated_tokens,
        "first_token_seconds": None if first is None else round(first, 4),
        "seconds": round(seconds, 4),
        "key": request.key,
        "refusal": refusal,
    }


def as_text(fields: dict[str, Any]) -> str:
    """A line for people."""
    first = fields["first_token_seconds"]
    # What a client sent must not begin a line of its own, nor move the terminal's cursor.
    asked = fields["reference"].encode("unicode_escape").decode()
    parts = [
        fields["time"],
        str(fields["status"]),
        f"{asked or '-'} -> {fields['version'] or '-'}",
        f"{fields['prompt_tokens']}+{fields['generated_tokens']} tokens",
        "" if first is None else f"first {first:.3f} s",
        f"{fields['seconds']:.3f} s",
        f"key {fields['key'] or '-'}",
        fields["refusal"],
        fields["id"],
    ]
    return "  ".join(part for part in parts if part)
