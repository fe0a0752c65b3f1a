"""Tells the metrics what vLLM knows of each request: its tokens, and when the first one came."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator
from typing import Any

from adapterhub.errors import AdzError
from adapterhub.serve.metrics import current_request
from adapterhub.serve.pulse import Pulse
from adapterhub_vllm.contract import vllm_release


def install(pulse: Pulse) -> None:
    """Look at what vLLM's engine answers on its way to the client, and tell `pulse` who waits for
    it. Raises AdzError where vLLM is not as we know it."""
    from vllm.v1.engine.async_llm import AsyncLLM

    found = tuple(inspect.signature(AsyncLLM.generate).parameters)[:4]
    if found != ("self", "prompt", "sampling_params", "request_id"):
        raise AdzError(f"{vllm_release()} is not supported: AsyncLLM.generate takes {found}")
    AsyncLLM.generate = _counted(AsyncLLM.generate, pulse)


def _counted(generate: Any, pulse: Pulse) -> Any:
    async def counted(
        self: Any, prompt: Any, sampling_params: Any, request_id: str, **options: Any
    ) -> AsyncIterator[Any]:
        request = current_request()
        begun = time.monotonic()
        # A stream's outputs hold what is new, others all that there is so far.
        in_pieces = getattr(sampling_params.output_kind, "name", "") == "DELTA"
        written, output = 0, None
        try:
            answers = generate(self, prompt, sampling_params, request_id, **options)
            async for output in _waited_for(answers, pulse):
                tokens = sum(len(choice.token_ids) for choice in output.outputs)
                written = written + tokens if in_pieces else tokens
                if tokens and in_pieces:
                    request.note_first_token()
                yield output
        except Exception:
            request.broken = True
            raise
        finally:
            request.generated_tokens += written
            if output is not None:
                request.prompt_tokens += len(output.prompt_token_ids or ())
                latency = getattr(output.metrics, "first_token_latency", 0.0)
                if written and not in_pieces:
                    request.note_first_token(begun + latency if latency else None)

    return counted


async def _waited_for(answers: AsyncIterator[Any], pulse: Pulse) -> AsyncIterator[Any]:
    """The answers. Who reads slowly does not wait for the engine."""
    while True:
        pulse.enter()
        try:
            answer = await anext(answers)
        except StopAsyncIteration:
            return
        finally:
            pulse.leave()
        yield answer
