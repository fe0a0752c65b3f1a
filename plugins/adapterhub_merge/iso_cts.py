"""Iso-CTS: a flat spectrum in common and task-specific subspaces (arXiv:2502.04959).

The weakest directions of the weighted sum give way to the strongest ones of each adapter outside
the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from adapterhub_merge.spectral import nearest_isometry, significant_svd

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def iso_cts(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: common_space_fraction, the share of the sum's directions that stay, up to rounding
    to the same number for each adapter. Weights are those of `iso-c`."""
    tasks = [task for task in deltas.double() * weights.double()[:, None, None] if task.any()]
    u, s, vh = significant_svd(sum(tasks, torch.zeros_like(deltas[0], dtype=torch.float64)))
    if len(s) == 0:
        return torch.zeros_like(deltas[0])
    specific = _specific(len(s), len(tasks), options["common_space_fraction"])
    common = len(s) - specific * len(tasks)
    u, s, vh = u[:, :common], s[:common], vh[:common]
    triples = [(u, s, vh)]
    for task in tasks:
        rest = significant_svd(task - u @ (u.T @ task), task.norm().item())
        triples.append((rest[0][:, :specific], rest[1][:specific], rest[2][:specific]))
    left = nearest_isometry(torch.cat([u for u, _, _ in triples], dim=1))
    right = nearest_isometry(torch.cat([vh for _, _, vh in triples]))
    return (torch.cat([s for _, s, _ in triples]).mean() * left @ right).float()


def _specific(rank: int, tasks: int, fraction: float) -> int:
    """The number of directions of each adapter's own, as the authors round it."""
    return min(rank // tasks, round((rank - int(rank * fraction)) / tasks))
