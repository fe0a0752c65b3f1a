"""With `--data-parallel N`: every adapter has one of N engines, which alone loads it.

vLLM balances over its engines by their load, and a client could name one in a header, also one
that does not exist. Here the adapter's digest decides, by rendezvous hashing: a version is in the
memory of one engine and its prefixes are in one cache. Requests for the base are balanced.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub_vllm.contract import check_signatures

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest


def rank_of(digest: str, ranks: int) -> int:
    """The engine, 0 to ranks - 1, of an adapter; one more engine moves one in `ranks` of them."""

    def weight(rank: int) -> bytes:
        return hashlib.sha256(f"{digest} {rank}".encode()).digest()

    return max(range(ranks), key=weight)


def install(ranks: int) -> None:
    """Send adapters and their requests to one engine each. Raises AdzError where vLLM is not as
    we know it."""
    if ranks < 2:
        return
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.core_client import AsyncMPClient

    check_signatures(
        {
            AsyncLLM.add_lora: ("self", "lora_request"),
            AsyncMPClient._call_utility_async: ("self", "method", "args", "engine"),
            AsyncLLM.add_request: (
                "self", "request_id", "prompt", "params", "arrival_time", "lora_request",
                "tokenization_kwargs", "trace_headers", "priority", "data_parallel_rank",
                "session_id", "prompt_text", "reasoning_ended", "reasoning_parser_kwargs",
                "kv_hints",
            ),
        }
    )  # fmt: skip
    AsyncLLM.add_lora = _add_lora(ranks)
    AsyncLLM.add_request = _add_request(AsyncLLM.add_request, ranks)


def _rank(entry: LoRARequest, ranks: int) -> int:
    # The path is named by the digest.
    return rank_of(Path(entry.lora_path).name, ranks)


def _add_lora(ranks: int) -> Any:
    async def add_lora(self: Any, lora_request: LoRARequest) -> bool:
        """Load it into its own engine; vLLM would load it into all."""
        client = self.engine_core
        engine = client.core_engines[_rank(lora_request, ranks)]
        loaded = await client._call_utility_async("add_lora", lora_request, engine=engine)
        return bool(loaded)

    return add_lora


def _add_request(original: Any, ranks: int) -> Any:
    async def add_request(
        self: Any, request_id: str, prompt: Any, *given: Any, **named: Any
    ) -> Any:
        """The adapter's engine, or for the base any; never the one that a client named."""
        entry = named.get("lora_request")
        named["data_parallel_rank"] = None if entry is None else _rank(entry, ranks)
        return await original(self, request_id, prompt, *given, **named)

    return add_request
