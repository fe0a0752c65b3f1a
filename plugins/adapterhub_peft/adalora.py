"""AdaLoRA: ranks move between layers while it trains (Zhang et al., arXiv:2303.10512)."""

from __future__ import annotations

from typing import Any

import torch

from adapterhub.errors import usage_error
from adapterhub_peft.methods import ADAPTER, PeftMethod


class AdaLora(PeftMethod):
    """`adalora`."""

    def choices(self, model: Any, options: Any) -> dict[str, Any]:
        """A number of steps that is set when it is known: PEFT wants one at once."""
        return {"total_step": options.tinit + options.tfinal + 1}

    def begin(self, model: Any, steps: int) -> None:
        """Plan the ranks over this many optimizer steps."""
        config = model.peft_config[ADAPTER]
        if config.tinit + config.tfinal >= steps:
            raise usage_error(
                f"method.tinit={config.tinit} and method.tfinal={config.tfinal} leave none of the "
                f"run's {steps} steps in which ranks could move",
                "lower them, or train longer",
            )
        config.total_step = steps
        model.base_model.rankallocator.set_total_step(steps)

    def before_step(self, model: Any) -> None:
        """Add the gradient of the orthogonality of the factors, section 3.2 of the paper."""
        weight = model.peft_config[ADAPTER].orth_reg_weight
        factors = [
            p
            for name, p in model.named_parameters()
            if ("lora_A" in name or "lora_B" in name) and p.requires_grad
        ]
        with torch.enable_grad():
            gradients = torch.autograd.grad(_distance(factors) * weight, factors)
        for parameter, gradient in zip(factors, gradients, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(gradient)

    def after_step(self, model: Any, step: int) -> None:
        """Move ranks by the importance that the gradients of this step show."""
        model.base_model.update_and_allocate(step)


def _distance(factors: list[Any]) -> torch.Tensor:
    """The mean Frobenius distance of A A^T, and of B^T B, from the identity."""
    total = torch.zeros((), device=factors[0].device)
    for p in factors:
        gram = p @ p.T if p.shape[0] < p.shape[1] else p.T @ p
        total = total + torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=p.device))
    return total / len(factors)
