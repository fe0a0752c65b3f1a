"""Tells the pulse when vLLM's engine finishes a step, and who waits for one.

With several engines the steps of all are one pulse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterhub.serve.pulse import Pulse
from adapterhub_vllm.contract import check_signatures

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest


def install(pulse: Pulse) -> None:
    """Listen where the steps' outputs reach the server's process. Raises AdzError where vLLM is
    not as we know it."""
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.core_client import AsyncMPClient

    check_signatures(
        {
            AsyncMPClient.get_output_async: ("self",),
            AsyncLLM.add_lora: ("self", "lora_request"),
        }
    )
    AsyncMPClient.get_output_async = _beating(pulse, AsyncMPClient.get_output_async)
    AsyncLLM.add_lora = _waiting(pulse, AsyncLLM.add_lora)


def _beating(pulse: Pulse, get: Any) -> Any:
    async def get_output_async(self: Any) -> Any:
        outputs = await get(self)
        pulse.beat()
        return outputs

    return get_output_async


def _waiting(pulse: Pulse, add: Any) -> Any:
    async def add_lora(self: Any, lora_request: LoRARequest) -> Any:
        pulse.enter()
        try:
            added = await add(self, lora_request)
            pulse.beat()
        finally:
            pulse.leave()
        return added

    return add_lora
