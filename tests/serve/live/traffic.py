"""Many requests at once, each with what it got and when."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from live_server import KEY


@dataclass(frozen=True)
class Answer:
    """`begun` and `ended` are of `time.monotonic`; `body` is the JSON, or the text of another."""

    model: object
    status: int
    body: Any
    begun: float
    ended: float

    @property
    def version(self) -> str:
        return str(self.body["model"])

    @property
    def text(self) -> str:
        return str(self.body["choices"][0]["text"])

    @property
    def message(self) -> str:
        return str(self.body["error"]["message"])


class Client:
    """Over one pool of connections; used in one event loop."""

    def __init__(self, url: str) -> None:
        limits = httpx2.Limits(max_connections=64)
        headers = {"Authorization": f"Bearer {KEY}"}
        self._http = httpx2.AsyncClient(
            base_url=url, headers=headers, timeout=120, limits=limits, trust_env=False
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def complete(
        self,
        model: object,
        prompt: str = "Once upon a time",
        *,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Answer:
        body = {"model": model, "prompt": prompt, "max_tokens": 3, "temperature": 0, **fields}
        begun = time.monotonic()
        response = await self._http.post("/completions", json=body, headers=headers)
        return Answer(model, response.status_code, _content(response), begun, time.monotonic())

    async def stream(self, model: str, tokens: int, on_piece: Callable[[str], None]) -> list[str]:
        """The pieces of a streamed answer."""
        body = {"model": model, "prompt": "Once", "max_tokens": tokens, "temperature": 0,
                "stream": True, "ignore_eos": True}  # fmt: skip
        lines = []
        async with self._http.stream("POST", "/completions", json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    lines.append(line.removeprefix("data: "))
                    on_piece(line)
        return lines


def _content(response: httpx2.Response) -> Any:
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return response.json() if is_json else response.text
