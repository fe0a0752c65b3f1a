"""Puts our CPU LoRA kernels in the place of vLLM's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterhub_vllm.contract import check_signatures

if TYPE_CHECKING:
    from vllm.lora.punica_wrapper import PunicaWrapperBase


def install() -> str | None:
    """Name our wrapper as the platform's, after checking what it overrides; return what was
    replaced. Raises AdzError: plain vLLM would answer the base's requests wrongly.

    Nothing happens where the platform is not a CPU: vLLM's kernels for GPUs are right.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return None
    from vllm.lora.layers.base import BaseLayerWithLoRA
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    check_signatures(
        {
            PunicaWrapperCPU.__init__: (
                "self", "max_num_batched_tokens", "max_batches", "device", "kwargs",
            ),
            PunicaWrapperCPU.update_metadata: (
                "self", "mapping", "lora_index_to_id", "max_loras", "vocab_size", "kwargs",
            ),
            PunicaWrapperCPU.add_shrink: ("self", "y", "x", "lora_a_stacked", "scale", "kwargs"),
            PunicaWrapperCPU.add_expand: (
                "self", "y", "x", "lora_b_stacked", "output_slices", "offset_start",
                "add_inputs", "kwargs",
            ),
            PunicaWrapperCPU.add_lora_embedding: (
                "self", "y", "x", "lora_b_stacked", "add_inputs", "kwargs",
            ),
            PunicaWrapperCPU.add_lora_linear: (
                "self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "output_slices",
                "buffer", "kwargs",
            ),
            PunicaWrapperCPU.add_lora_logits: (
                "self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "buffer",
                "kwargs",
            ),
            BaseLayerWithLoRA.set_mapping: ("self", "punica_wrapper"),
            BaseLinearLayerWithLoRA.set_lora: ("self", "index", "lora_a", "lora_b"),
        }
    )  # fmt: skip
    platform = type(current_platform)
    platform.get_punica_wrapper = classmethod(
        lambda cls: "adapterhub_vllm.cpu_lora.GroupedPunicaWrapper"
    )
    BaseLayerWithLoRA.set_mapping = _set_mapping(BaseLayerWithLoRA.set_mapping)
    return "LoRA kernels for CPUs"


def _set_mapping(original: Any) -> Any:
    def set_mapping(self: Any, punica_wrapper: PunicaWrapperBase) -> None:
        """As vLLM's; our wrapper sees each layer before any weight is written into it."""
        original(self, punica_wrapper)
        adopt = getattr(punica_wrapper, "adopt", None)
        if adopt is not None:
            adopt(self)

    return set_mapping
