"""How this machine trains a run: where, in which numbers, and what is kept for the backward pass.

TRL's own defaults are for GPUs: bfloat16 and gradient checkpointing, which cost a CPU without
bfloat16 instructions more than half of its speed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from adapterhub.models import compute_device, cpu_has_bf16, may_accelerate
from adapterhub.train.scale import world

if TYPE_CHECKING:
    from adapterhub.train.plan import Plan

_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True, slots=True)
class Profile:
    """device: as torch names it. weights: how the base is held, a dtype or a quantizer. autocast:
    the dtype of products on a GPU; None: that of the weights. threads: of a CPU."""

    device: str
    weights: str
    autocast: str | None
    checkpointing: bool
    processes: int
    threads: int | None

    def values(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def text(self) -> str:
        """In one line."""
        parts = [f"{self.device}", f"the base in {self.weights}"]
        if self.autocast:
            parts.append(f"products in {self.autocast}")
        if self.processes > 1:
            parts.append(f"{self.processes} processes")
        if self.threads:
            parts.append(f"{self.threads} threads")
        kept = "computed again" if self.checkpointing else "kept"
        parts += [
            f"activations are {kept}",
            "attention by scaled_dot_product_attention",
            "rows without padding where the base allows it",
        ]
        return ", ".join(parts)


def choose_profile(plan: Plan, threads: int | None = None) -> Profile:
    """The profile of a run on this machine; loads no weights.

    threads: those of torch on the CPU, where they are known. Then torch is not imported where the
    CPU is all that there is.
    """
    device = "cpu" if threads and not may_accelerate() else str(compute_device())
    on_cpu = device == "cpu"
    stored = _STORED.get(plan.base.dtype, plan.base.dtype)
    weights = "float32" if on_cpu and not cpu_has_bf16() else stored
    return Profile(
        device=device,
        weights=plan.quantizer.name if plan.quantizer else weights,
        autocast=None if on_cpu else _gpu_dtype(),
        checkpointing=plan.recipe.training.gradient_checkpointing,
        processes=world(),
        threads=(threads or _torch_threads()) if on_cpu else None,
    )


def _torch_threads() -> int:
    """How many threads torch computes with on a CPU."""
    import torch

    return torch.get_num_threads()


def _gpu_dtype() -> str | None:
    import torch

    supported = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bfloat16" if supported else None
