"""llama.cpp's k-quants: q2_K to q6_K, bit for bit as its reference quantizers make them.

A super-block is 256 weights of a row: sub-blocks of 16 or 32 with a small scale each (and, but
for q3_K and q6_K, a minimum), and one or two float16 scales for these. How a sub-block's scale is
found is Kawrakow's search (llama.cpp, ggml-quants.c, `quantize_row_q*_K_ref`): round at several
scales, fit the best scale to the rounded numbers by weighted least squares, keep the best.

Everything is computed in float32 and summed up in the order of the weights, as there: another
order rounds otherwise and now and then chooses another number. Tensors here have the weights of a
sub-block along the first dimension and the sub-blocks along the second, so that a sum takes one
step a weight for all sub-blocks at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

SUPER = 256
"""Weights of a super-block."""

_CHUNK = 1024 * SUPER
# Less than it is nothing.
_EPS = 1e-15
# Added to a float32 below 2^22 it leaves the nearest whole number, halves to even, in its low bits.
_MAGIC = 12582912.0


def quantize(weights: torch.Tensor, kind: str) -> torch.Tensor:
    """weights: (rows, width) float32, width a multiple of 256. Returns (rows, bytes) uint8 in the
    layout of `kind`: `q2_k`, `q3_k`, `q4_k`, `q5_k` or `q6_k`."""
    pack = _PACKERS[kind]
    flat = weights.reshape(-1)
    parts = [pack(flat[i : i + _CHUNK]) for i in range(0, len(flat), _CHUNK)]
    return torch.cat(parts).reshape(weights.shape[0], -1)


def _pack_q2(flat: torch.Tensor) -> torch.Tensor:
    x = _sub_blocks(flat, 16)
    scales, mins, found = _fit_with_minimum(x, x.abs(), 3, (-0.5, 0.1, 15), absolute=True)
    scales, mins = scales.view(-1, 16), mins.view(-1, 16)
    d, inverse = _shared(scales, 15)
    dmin, inverse_min = _shared(mins, 15)
    small, small_min = _nearest(inverse * scales) & 255, _nearest(inverse_min * mins) & 255
    packed = small | (small_min << 4) & 255
    levels = _levels(x, found, d * (packed & 15), dmin * (packed >> 4), 0, 3)
    return _joined(packed, _in_fours(levels), _half(d), _half(dmin))


def _pack_q3(flat: torch.Tensor) -> torch.Tensor:
    x = _sub_blocks(flat, 16)
    scales, found = _fit_by_turns(x, 4)
    scales = scales.view(-1, 16)
    largest = _first_largest(scales)
    inverse = torch.where(largest != 0, _divided(-32, largest), 0.0)
    d = torch.where(largest != 0, 1.0 / inverse, 0.0).half().float()
    small = _nearest(inverse * scales).clamp(-32, 31)
    small = torch.where(largest != 0, small, -32)
    levels = _levels(x, found - 4, d * small, None, -4, 3) + 4
    bits = small + 32
    low = (bits[:, :8] & 15) | ((bits[:, 8:] & 15) << 4)
    high = sum((bits[:, 4 * i : 4 * i + 4] >> 4) << (2 * i) for i in range(4))
    above = levels > 3
    mask = sum(above.view(-1, 8, 32)[:, i].int() << i for i in range(8))
    rest = torch.where(above, levels - 4, levels)
    return _joined(mask, _in_fours(rest), low, high, _half(d))


def _pack_q4(flat: torch.Tensor) -> torch.Tensor:
    levels, scales, d, dmin = _with_six_bit_scales(flat, 15, (-1.0, 0.1, 20))
    pairs = levels.view(-1, 4, 2, 32)
    return _joined(_half(d), _half(dmin), scales, (pairs[:, :, 0] | pairs[:, :, 1] << 4).flatten(1))


def _pack_q5(flat: torch.Tensor) -> torch.Tensor:
    levels, scales, d, dmin = _with_six_bit_scales(flat, 31, (-0.5, 0.1, 15))
    low = (levels & 15).view(-1, 4, 2, 32)
    high = sum((levels >> 4).view(-1, 8, 32)[:, i] << i for i in range(8))
    halves = (low[:, :, 0] | low[:, :, 1] << 4).flatten(1)
    return _joined(_half(d), _half(dmin), scales, high, halves)


def _pack_q6(flat: torch.Tensor) -> torch.Tensor:
    x = _sub_blocks(flat, 16)
    scales, found = _fit(x, 32)
    scales = scales.view(-1, 16)
    largest = _first_largest(scales)
    empty = largest.abs() < _EPS
    inverse = torch.where(empty, 0.0, _divided(-128, largest))
    d = torch.where(empty, 0.0, 1.0 / inverse).half().float()
    small = _nearest(inverse * scales).clamp(max=127)
    levels = _levels(x, found - 32, d * small, None, -32, 31) + 32
    levels = torch.where(empty, 0, levels).view(-1, 2, 4, 32)
    low = levels & 15
    halves = torch.cat([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], dim=2)
    high = _in_fours(levels.flatten(1) >> 4)
    return _joined(halves.flatten(1), high, small & 255, _half(d))


_PACKERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "q2_k": _pack_q2,
    "q3_k": _pack_q3,
    "q4_k": _pack_q4,
    "q5_k": _pack_q5,
    "q6_k": _pack_q6,
}


def _with_six_bit_scales(
    flat: torch.Tensor, most: int, steps: tuple[float, float, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What q4_K and q5_K have in common: levels (super-blocks, 256), twelve bytes of scales and
    minimums each, and the two scales for these."""
    x = _sub_blocks(flat, 32)
    # In float64 because torch's own root of a float32 is not always the nearest.
    root = (_sum(x * x) / 32).double().sqrt().float()
    weights = root + x.abs()
    scales, mins, found = _fit_with_minimum(x, weights, most, steps, absolute=False)
    scales, mins = scales.view(-1, 8), mins.view(-1, 8)
    d, inverse = _shared(scales, 63)
    dmin, inverse_min = _shared(mins, 63)
    small = (_nearest(inverse * scales) & 255).clamp(max=63)
    small_min = (_nearest(inverse_min * mins) & 255).clamp(max=63)
    levels = _levels(x, found, d * small, dmin * small_min, 0, most)
    first, last = small[:, :4], small[:, 4:]
    first_min, last_min = small_min[:, :4], small_min[:, 4:]
    packed = torch.cat(
        [
            first | (last >> 4) << 6,
            first_min | (last_min >> 4) << 6,
            (last & 15) | (last_min & 15) << 4,
        ],
        dim=1,
    )
    return levels, packed, d, dmin


def _fit_with_minimum(
    x: torch.Tensor,
    weights: torch.Tensor,
    most: int,
    steps: tuple[float, float, int],
    *,
    absolute: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """scale and minimum >= 0 of each sub-block so that x ~ scale * level - minimum, and the levels
    0 ... most. steps: the first shift of `most`, by how much it grows, and how often."""
    low, high = x.amin(0), x.amax(0)
    sum_w, sum_x = _sum(weights), _sum(weights * x)
    low = low.clamp(max=0.0)
    flat = high == low
    inverse = _divided(most, high - low)
    scale = 1.0 / inverse
    levels = _nearest(inverse * (x - low)).clamp(0, most)
    best = _error(scale * levels + low - x, weights, absolute)
    begin, step, count = (torch.tensor(value) for value in steps)
    for turn in range(int(count) + 1):
        tried = _nearest((begin + step * turn + most) / (high - low) * (x - low)).clamp(0, most)
        weighted = weights * tried
        sum_l, sum_l2, sum_xl = _sum(weighted), _sum(weighted * tried), _sum(weighted * x)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        new_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        new_scale = torch.where(new_low > 0, sum_xl / sum_l2, new_scale)
        new_low = new_low.clamp(max=0.0)
        error = _error(new_scale * tried + new_low - x, weights, absolute)
        better = (determinant > 0) & (error < best)
        best = torch.where(better, error, best)
        scale = torch.where(better, new_scale, scale)
        low = torch.where(better, new_low, low)
        levels = torch.where(better, tried, levels)
    return torch.where(flat, 0.0, scale), -low, torch.where(flat, 0, levels)


def _fit(x: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """scale of each sub-block so that x ~ scale * (level - most), and the levels below 2 most."""
    largest = _first_largest(x.T)[:, 0]
    weights = x * x

    def tried(inverse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        levels = _nearest(inverse * x).clamp(-most, most - 1)
        return levels, _sum(weights * x * levels), _sum(weights * levels * levels)

    levels, along, length = tried(_divided(-most, largest))
    scale = torch.where(length != 0, along / length, 0.0)
    best = scale * along
    for turn in (*range(-9, 0), *range(1, 10)):
        shifted = most + torch.tensor(0.1) * turn
        new, along, length = tried(-shifted / largest)
        better = (length > 0) & (along * along > best * length)
        scale = torch.where(better, along / length, scale)
        best = torch.where(better, scale * along, best)
        levels = torch.where(better, new, levels)
    empty = largest.abs() < _EPS
    return torch.where(empty, 0.0, scale), torch.where(empty, 0, levels + most)


def _fit_by_turns(x: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_fit`, but each level in turn is moved to where it fits the others best."""
    largest = _first_largest(x.T)[:, 0]
    weights = x * x
    levels = _nearest(_divided(-most, largest) * x).clamp(-most, most - 1)
    along, length = _sum(weights * x * levels), _sum(weights * levels * levels)
    for _ in range(5):
        for i, (one, w) in enumerate(zip(x, weights, strict=True)):
            level = levels[i]
            rest_along = along - w * one * level
            rest_length = length - w * level * level
            new = _nearest(one * rest_length / rest_along).clamp(-most, most - 1)
            new_along = rest_along + w * one * new
            new_length = rest_length + w * new * new
            better = (rest_along > 0) & (new != level) & (new_length > 0)
            better &= new_along * new_along * length > along * along * new_length
            levels[i] = torch.where(better, new, level)
            along = torch.where(better, new_along, along)
            length = torch.where(better, new_length, length)
    scale = torch.where(length > 0, along / length, 0.0)
    empty = largest.abs() < _EPS
    return torch.where(empty, 0.0, scale), torch.where(empty, 0, levels + most)


def _sub_blocks(flat: torch.Tensor, size: int) -> torch.Tensor:
    return flat.view(-1, size).T.contiguous()


def _sum(terms: torch.Tensor) -> torch.Tensor:
    total = terms[0].clone()
    for term in terms[1:]:
        total += term
    return total


def _error(difference: torch.Tensor, weights: torch.Tensor, absolute: bool) -> torch.Tensor:
    return _sum(weights * (difference.abs() if absolute else difference * difference))


def _divided(number: float, by: torch.Tensor) -> torch.Tensor:
    # A Python number divided by a tensor is multiplied by its reciprocal, which rounds twice.
    return torch.tensor(float(number)) / by


def _nearest(value: torch.Tensor) -> torch.Tensor:
    """The nearest whole number; what is infinite or no number becomes one too, as in C."""
    return ((value + _MAGIC).view(torch.int32) & 0x007FFFFF) - 0x00400000


def _first_largest(rows: torch.Tensor) -> torch.Tensor:
    """The value of the largest magnitude in each row, the first of several: (rows, 1)."""
    return rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))


def _shared(values: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The float16 by which whole numbers up to `most` are multiplied to give `values`, and what
    makes whole numbers of them; each (super-blocks, 1)."""
    largest = values.amax(dim=1, keepdim=True)
    # A zero here may be a negative one, which is not stored.
    scale = torch.where(largest > 0, largest / most, 0.0)
    return scale.half().float(), torch.where(largest > 0, _divided(most, largest), 0.0)


def _levels(
    x: torch.Tensor,
    found: torch.Tensor,
    scales: torch.Tensor,
    mins: torch.Tensor | None,
    least: int,
    most: int,
) -> torch.Tensor:
    """The levels at the scales as they are stored: (super-blocks, 256); where a scale has become
    zero those that were found stay."""
    scale = scales.reshape(-1)
    shifted = x if mins is None else x + mins.reshape(-1)
    levels = torch.where(scale != 0, _nearest(shifted / scale).clamp(least, most), found)
    return levels.T.reshape(-1, SUPER)


def _in_fours(levels: torch.Tensor) -> torch.Tensor:
    """Two bits a level: of each 128, those at the same place of its quarters share a byte."""
    quarters = levels.view(-1, 2, 4, 32)
    packed = [quarters[:, :, i] << (2 * i) for i in range(4)]
    return torch.stack(packed).sum(0).flatten(1)


def _half(scale: torch.Tensor) -> torch.Tensor:
    return scale.half().view(torch.uint8)


def _joined(*parts: Any) -> torch.Tensor:
    columns: Sequence[torch.Tensor] = parts
    return torch.cat([part.to(torch.uint8) for part in columns], dim=1)
