"""A lock stays in memory for every unknown model name that a client asks for. No model needed."""

import asyncio
from collections import defaultdict
from types import SimpleNamespace

from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.utils.counter import AtomicCounter


class Nothing:
    async def resolve_lora(self, base_model_name: str, lora_name: str) -> None:
        return None


async def main() -> None:
    models = OpenAIServingModels.__new__(OpenAIServingModels)
    models.lora_requests = {}
    models.lora_resolvers = [Nothing()]
    models.lora_resolver_lock = defaultdict(asyncio.Lock)
    models.model_config = SimpleNamespace(model="base")
    models.lora_id_counter = AtomicCounter(0)
    for i in range(1000):
        await models.resolve_lora(f"no-such-adapter-{i}")
    print("locks kept after 1000 unknown names:", len(models.lora_resolver_lock))


asyncio.run(main())
