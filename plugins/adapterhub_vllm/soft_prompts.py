"""Soft prompts (prompt tuning, p-tuning): trained embeddings that stand before a prompt.

vLLM takes embeddings in the place of tokens, and all else is its own: positions, the KV cache,
batches. A request to a soft prompt is a request to the base that begins with them. vLLM's prefix
cache hashes their bytes, so that no two versions share a prefix. A client cannot send embeddings:
the server's option `--enable-prompt-embeds`, which reads tensors of clients, stays off.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.manifest import Version
from adapterhub.serve.errors import RequestError

if TYPE_CHECKING:
    import torch
    from vllm.engine.protocol import EngineClient

METHODS = ("prompt", "p_tuning")
TYPES = ("PROMPT_TUNING", "P_TUNING")
"""PEFT's names of `METHODS`, which it saves alike."""


@dataclass(frozen=True, slots=True, eq=False)
class SoftPrompt:
    """One version, where vLLM hands a request's adapter on; names are those of LoRARequest.
    rows: (tokens, hidden)."""

    lora_name: str
    lora_int_id: int
    rows: torch.Tensor

    async def answers(
        self, generate: Any, prompt: Any, sampling: Any, *given: Any, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """vLLM's answers to `prompt` with our rows before it, of which its outputs say nothing.

        Raises vLLM's own error for what cannot be answered.
        """
        tokens = _tokens(prompt, sampling)
        count = len(self.rows)
        outputs = generate(self._before(tokens, prompt), sampling, *given, **options)
        async with aclosing(outputs):
            async for output in outputs:
                output.prompt_token_ids = tokens
                output.num_cached_tokens = max(0, (output.num_cached_tokens or 0) - count)
                yield output

    def _before(self, tokens: list[int], prompt: Any) -> Any:
        import torch
        from vllm.inputs.engine import embeds_input

        count, width = self.rows.shape
        return embeds_input(
            torch.cat([self.rows, torch.zeros(len(tokens), width, dtype=self.rows.dtype)]),
            prompt=prompt.get("prompt"),
            cache_salt=prompt.get("cache_salt"),
            # A token of the prompt in our places: a penalty for repetition sees no other.
            prompt_token_ids=tokens[:1] * count + tokens,
            is_token_ids=[False] * count + [True] * len(tokens),
        )


def read_soft_prompt(directory: Path, number: int, name: str) -> SoftPrompt | None:
    """What PEFT saved in `directory`, whose shape the registry has checked; None where it is no
    soft prompt."""
    from safetensors.torch import load_file

    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") not in TYPES:
        return None
    rows = load_file(directory / "adapter_model.safetensors")["prompt_embeddings"]
    # The file may be gone, or another, while its pages are mapped.
    return SoftPrompt(name, number, rows.clone())


def check_engine(engine: EngineClient, version: Version) -> None:
    """Raise RequestError where the engine would leave the rows out."""
    if engine.vllm_config.use_v2_model_runner:
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"{version.reference} is a soft prompt, which vLLM's second model runner does not "
            "take: start without VLLM_USE_V2_MODEL_RUNNER, or adz serve --engine transformers",
        )


def _tokens(prompt: Any, sampling: Any) -> list[int]:
    from vllm.exceptions import VLLMValidationError

    if not isinstance(prompt, dict) or prompt.get("type") != "token":
        raise VLLMValidationError("a soft prompt stands before a text, not before other inputs")
    if sampling.prompt_logprobs is not None:
        what = "prompt_logprobs, and echo with logprobs, are not given for a soft prompt"
        raise VLLMValidationError(what)
    tokens: list[int] = prompt["prompt_token_ids"]
    return tokens
