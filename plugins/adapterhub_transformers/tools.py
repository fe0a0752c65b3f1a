"""Calls of tools in an answer, in the style of Hermes: JSON between two tags."""

from __future__ import annotations

import json
import uuid
from typing import Any

_BEGIN, _END = "<tool_call>", "</tool_call>"


class ToolReader:
    """Parts a text, as it comes, into what the user reads and the calls."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self._rest = ""

    def feed(self, text: str) -> str:
        """What of the text so far is certainly content and was not returned before."""
        self._rest += text
        content = ""
        while (begin := self._rest.find(_BEGIN)) >= 0:
            content += self._rest[:begin]
            self._rest = self._rest[begin:]
            end = self._rest.find(_END)
            if end < 0:
                return content
            content += self._call(self._rest[len(_BEGIN) : end], self._rest[: end + len(_END)])
            self._rest = self._rest[end + len(_END) :]
        held = next(
            (n for n in range(len(_BEGIN) - 1, 0, -1) if self._rest.endswith(_BEGIN[:n])), 0
        )
        ready = len(self._rest) - held
        content, self._rest = content + self._rest[:ready], self._rest[ready:]
        return content

    def end(self) -> str:
        """What is left when the answer is over: content, unless it is a call without its end."""
        rest, self._rest = self._rest, ""
        return self._call(rest.removeprefix(_BEGIN), rest) if rest.startswith(_BEGIN) else rest

    def _call(self, body: str, whole: str) -> str:
        """Keep a call; what is none stays content, as it is."""
        try:
            call = json.loads(body)
            name, arguments = call["name"], call.get("arguments", {})
        except (ValueError, TypeError, KeyError, AttributeError):
            return whole
        if not isinstance(name, str):
            return whole
        text = json.dumps(arguments, ensure_ascii=False)
        self.calls.append(
            {
                "id": f"call_{uuid.uuid4().hex[:24]}",
                "type": "function",
                "function": {"name": name, "arguments": text},
            }
        )
        return ""
