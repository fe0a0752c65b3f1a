"""Products with low-rank updates, norms and gates as one step of autograd each.

What autograd would keep and compute step by step is here written out: fewer passes over memory,
no copy of an activation kept twice, and no gradient of a frozen weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.nn.functional import linear, silu

Spans = Sequence[tuple[int, int, float]]
"""(begin, end, scale) for each pair of factors: the rows of x that it applies to."""


class LowRankLinear(torch.autograd.Function):
    """x W^T + b + s (x A^T) B^T, with different A, B, s on different ranges of x's rows.

    x: (tokens, in). W: (out, in), frozen. factors: A (r, in) and B (out, r) of each range.
    Hu et al., LoRA, arXiv:2106.09685, section 4.1; ranges as in mLoRA, arXiv:2312.02515.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        ranges: Spans,
        *factors: torch.Tensor,
    ) -> torch.Tensor:
        result, inner = _product(x, weight, bias, ranges, factors)
        ctx.ranges = ranges
        ctx.save_for_backward(x, weight, *factors, *inner)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, *rest = ctx.saved_tensors
        count = 2 * len(ctx.ranges)
        g, (factors, inner) = gradients[0], (rest[:count], rest[count:])
        dx = g @ weight if ctx.needs_input_grad[0] else None
        return dx, None, None, None, *_gradients(g, x, ctx.ranges, factors, inner, dx)


def _product(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    ranges: Spans,
    factors: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The layer's output and x A^T of each range."""
    result, inner = linear(x, weight, bias), []
    for (begin, end, scale), a, b in zip(ranges, factors[::2], factors[1::2], strict=True):
        low = x[begin:end] @ a.T
        result[begin:end].addmm_(low, b.T, alpha=scale)
        inner.append(low)
    return result, inner


def _gradients(
    g: torch.Tensor,
    x: torch.Tensor,
    ranges: Spans,
    factors: Sequence[torch.Tensor],
    inner: Sequence[torch.Tensor],
    dx: torch.Tensor | None,
) -> list[torch.Tensor]:
    """The gradients of the factors; what they add to that of x is added to `dx` in place."""
    results: list[torch.Tensor] = []
    pairs = zip(ranges, factors[::2], factors[1::2], inner, strict=True)
    for (begin, end, scale), a, b, low in pairs:
        part = g[begin:end]
        dlow = (part @ b).mul_(scale)
        results += [dlow.T @ x[begin:end], (part.T @ low).mul_(scale)]
        if dx is not None:
            dx[begin:end].addmm_(dlow, a)
    return results


@dataclass(frozen=True, slots=True)
class Layer:
    """A frozen linear layer under low-rank pairs, of which there may be none: see
    `LowRankLinear`."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    ranges: Spans
    factors: tuple[torch.Tensor, ...]


class GatedMlp(torch.autograd.Function):
    """down(silu(gate(x)) * up(x)) over x (tokens, in), each a `Layer`; keeps what gate and up
    gave, and no product of the two. Shazeer, arXiv:2002.05202, equation 6.

    factors: those of gate, up and down, one after the other.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, layers: tuple[Layer, Layer, Layer], *factors: torch.Tensor
    ) -> torch.Tensor:
        kept, inner = [], []
        for layer in layers[:2]:
            result, low = _product(x, layer.weight, layer.bias, layer.ranges, layer.factors)
            kept.append(result)
            inner += low
        product = silu(kept[0]).mul_(kept[1])
        last = layers[2]
        result, low = _product(product, last.weight, last.bias, last.ranges, last.factors)
        ctx.layers = [(layer.weight, layer.ranges) for layer in layers]
        ctx.save_for_backward(x, *kept, *factors, *inner, *low)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, gate, up, *rest = ctx.saved_tensors
        saved = iter(rest)
        factors = [list(islice(saved, 2 * len(ranges))) for _, ranges in ctx.layers]
        inner = [list(islice(saved, len(ranges))) for _, ranges in ctx.layers]
        g, needs_input = gradients[0], ctx.needs_input_grad[0]
        weight, ranges = ctx.layers[2]
        product, dproduct = silu(gate).mul_(up), g @ weight
        of_down = _gradients(g, product, ranges, factors[2], inner[2], dproduct)
        dgate = torch.ops.aten.silu_backward(dproduct * up, gate)
        dup = silu(gate).mul_(dproduct)
        dx, found = None, []
        for number, part in enumerate((dgate, dup)):
            weight, ranges = ctx.layers[number]
            if needs_input:
                dx = part @ weight if dx is None else dx.addmm_(part, weight)
            found += _gradients(part, x, ranges, factors[number], inner[number], dx)
        return dx, None, *found, *of_down


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


# `apply` has no types.
low_rank_linear: Any = LowRankLinear.apply
rms_norm: Any = RmsNorm.apply
gated_mlp: Any = GatedMlp.apply
