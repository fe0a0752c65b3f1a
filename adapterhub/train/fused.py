"""Products with low-rank updates, norms and gates as one step of autograd each.

What autograd would keep and compute step by step is here written out: fewer passes over memory,
no copy of an activation kept twice, and no gradient of a frozen weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import linear, silu


class LowRankLinear(torch.autograd.Function):
    """x W^T + b + s (x A^T) B^T, with different A, B, s on different ranges of x's rows.

    x: (tokens, in). W: (out, in), frozen. ranges: (begin, end, s) for each pair A (r, in),
    B (out, r). Hu et al., LoRA, arXiv:2106.09685, section 4.1; ranges as in mLoRA,
    arXiv:2312.02515.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        ranges: Sequence[tuple[int, int, float]],
        *factors: torch.Tensor,
    ) -> torch.Tensor:
        result = linear(x, weight, bias)
        inner = []
        for (begin, end, scale), a, b in zip(ranges, factors[::2], factors[1::2], strict=True):
            low = x[begin:end] @ a.T
            result[begin:end].addmm_(low, b.T, alpha=scale)
            inner.append(low)
        ctx.ranges = ranges
        ctx.save_for_backward(x, weight, *factors, *inner)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, *rest = ctx.saved_tensors
        count = len(ctx.ranges)
        factors, inner = rest[: 2 * count], rest[2 * count :]
        g = gradients[0]
        needs_input = ctx.needs_input_grad[0]
        dx = g @ weight if needs_input else None
        results: list[torch.Tensor | None] = []
        for (begin, end, scale), a, b, low in zip(
            ctx.ranges, factors[::2], factors[1::2], inner, strict=True
        ):
            part = g[begin:end]
            dlow = (part @ b).mul_(scale)
            results += [dlow.T @ x[begin:end], (part.T @ low).mul_(scale)]
            if dx is not None:
                dx[begin:end].addmm_(dlow, a)
        return dx, None, None, None, *results


class RmsNorm(torch.autograd.Function):
    """w x / sqrt(mean(x^2) + eps) over the last dimension; w frozen. Keeps x and one number a
    row. Zhang and Sennrich, arXiv:1910.07467, equation 4."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        result: torch.Tensor = (x * inverse).mul_(weight)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        dx = gradients[0] * weight
        along = torch.linalg.vecdot(dx, x, dim=-1).unsqueeze(-1)
        share = along.mul_(inverse.pow(3)).div_(-x.shape[-1])
        return dx.mul_(inverse).addcmul_(x, share), None, None


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up; keeps the two and no product. Shazeer, arXiv:2002.05202, equation 5."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        g = gradients[0]
        dgate = torch.ops.aten.silu_backward(g * up, gate)
        return dgate, silu(gate).mul_(g)


# `apply` has no types.
low_rank_linear: Any = LowRankLinear.apply
rms_norm: Any = RmsNorm.apply
swiglu: Any = SwiGlu.apply
