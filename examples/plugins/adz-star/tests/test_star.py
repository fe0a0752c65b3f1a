"""The merge rule `star`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adz_star.star import keep, star

from adapterhub.testing import MergeRuleConformance


class TestStar(MergeRuleConformance):
    """What every merge rule promises."""

    name = "star"


@pytest.mark.parametrize("eta", [0.2, 0.4, 0.9, 1.0])
def test_it_is_the_papers_sum(eta):
    """In numpy and float64: truncated where the sum reaches eta, rescaled, added."""
    deltas = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([0.5, 0.3, -0.2])
    wanted = np.zeros((8, 6))
    for delta, weight in zip(deltas.double().numpy(), weights.double().numpy(), strict=True):
        u, s, v = np.linalg.svd(delta, full_matrices=False)
        rank = next(r for r in range(1, 7) if s[:r].sum() >= eta * s.sum() * (1 - 1e-9))
        wanted += weight * s.sum() / s[:rank].sum() * (u[:, :rank] * s[:rank]) @ v[:rank]
    merged = star(deltas, weights, None, {"eta": eta})
    assert np.allclose(merged.numpy(), wanted, atol=1e-4)


def test_all_of_the_spectrum_is_the_weighted_sum():
    deltas = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0))
    merged = star(deltas, torch.tensor([0.5, 0.5]), None, {"eta": 1.0})
    assert torch.allclose(merged, deltas.mean(dim=0), atol=1e-5)


def test_how_many_are_kept():
    assert keep(torch.tensor([4.0, 3.0, 2.0, 1.0]), 0.4) == 1
    assert keep(torch.tensor([4.0, 3.0, 2.0, 1.0]), 0.41) == 2
    assert keep(torch.zeros(4), 0.4) == 1
