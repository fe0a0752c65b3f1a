"""Lets vLLM's runner for CPUs take rows of embeddings, in the batches that have some.

Its own switch for that is the whole server's: each step then embeds token by token outside of the
model, and an adapter of the embedding is applied to the wrong rows (docs/upstream.md).
"""

from __future__ import annotations

from typing import Any

from adapterhub_vllm.contract import check_signatures


def install() -> str | None:
    """Have the runner look at each batch, after checking that it is as we know it; return what
    was replaced. Raises AdzError. Nothing happens where the platform is not a CPU."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return None
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner
    from vllm.v1.worker.gpu_input_batch import InputBatch
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    check_signatures(
        {
            GPUModelRunner._preprocess: (
                "self", "scheduler_output", "num_input_tokens", "intermediate_tensors",
            ),
            InputBatch.add_request: ("self", "request"),
        }
    )  # fmt: skip
    CPUModelRunner.enable_prompt_embeds = property(_has_embeds, _set_asked)
    CPUModelRunner._preprocess = _embedding_right_rows(GPUModelRunner._preprocess)
    return "soft prompts"


def _has_embeds(runner: Any) -> bool:
    """In the place of the server's switch: whether a request of the batch began with embeddings."""
    if vars(runner)["asked_for_embeds"]:
        return True
    batch = getattr(runner, "input_batch", None)
    return batch is not None and bool(batch.req_prompt_embeds)


def _set_asked(runner: Any, asked: bool) -> None:
    vars(runner)["asked_for_embeds"] = asked


def _embedding_right_rows(original: Any) -> Any:
    def preprocess(self: Any, scheduler_output: Any, *given: Any, **named: Any) -> Any:
        """As vLLM's, which gives the embedding's layer the rows that are tokens only."""
        # A base that sees images too is given all rows.
        if not self.enable_prompt_embeds or self.supports_mm_inputs:
            return original(self, scheduler_output, *given, **named)
        import torch

        from adapterhub_vllm.cpu_lora import embedding_only

        scheduled = scheduler_output.total_num_scheduled_tokens
        rows = torch.from_numpy(self.is_token_ids.np[:scheduled]).nonzero().flatten()
        with embedding_only(rows):
            return original(self, scheduler_output, *given, **named)

    return preprocess
