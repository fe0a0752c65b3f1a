"""An embedded server on the tiny base whose derivations a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import httpx
import pytest

from adapterhub.protocols import Derivations, ServeSettings

from ..embedded_server import embedded_server


class Ask(Protocol):
    """Asks for a completion; `key` is a client's."""

    def __call__(self, model: str, key: str | None = None) -> httpx.Response: ...


@pytest.fixture
def serve(tiny_base: Any) -> Iterator[Callable[[Derivations], Ask]]:
    """Starts a server in this process."""
    with ExitStack() as stack:

        def start(derivations: Derivations) -> Ask:
            settings = ServeSettings("tiny", derivations=derivations)
            url, _ = stack.enter_context(embedded_server(settings))

            def ask(model: str, key: str | None = None) -> httpx.Response:
                body = {"model": model, "prompt": "The quick", "max_tokens": 8, "temperature": 0}
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                return httpx.post(f"{url}/v1/completions", json=body, headers=headers, timeout=120)

            return ask

        yield start
