"""TIES element by element against mergekit, and against PEFT where it is right."""

from __future__ import annotations

import pytest
import torch
from mergekit.merge_methods.generalized_task_arithmetic import get_mask
from mergekit.sparsify import SparsificationMethod, sparsify
from peft.utils.merge_utils import prune
from peft.utils.merge_utils import ties as peft_ties

from adapterhub_merge.coordinates import FactorCoordinates, apply_rule
from adapterhub_merge.ties import ties


def factors(count: int) -> FactorCoordinates:
    generator = torch.Generator().manual_seed(count)
    left = [torch.randn(64, 2 + i, generator=generator) for i in range(count)]
    right = [torch.randn(2 + i, 48, generator=generator) for i in range(count)]
    return FactorCoordinates(left, right, 0, "module")


def whole(coordinates: FactorCoordinates) -> torch.Tensor:
    return torch.cat([block.deltas() for block in coordinates], dim=1)


def mergekit_ties(deltas: torch.Tensor, weights: torch.Tensor, density: float) -> torch.Tensor:
    """What mergekit's GeneralizedTaskArithmeticMerge does for `ties` with normalize."""
    sparse = torch.stack([sparsify(d, density, SparsificationMethod.magnitude) for d in deltas])
    weighted = sparse * weights[:, None, None]
    mask = get_mask(weighted, method="sum")
    divisor = (weights[:, None, None] * mask).sum(dim=0)
    divisor[divisor == 0] = 1
    return (weighted * mask).sum(dim=0) / divisor


@pytest.mark.parametrize("density", [0.05, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 0.3), (0.5, 1.5, 0.25)])
def test_equals_mergekit(weights: tuple[float, ...], density: float) -> None:
    """mergekit's result does not grow with the weights, ours by their sum."""
    coordinates = factors(len(weights))
    expected = mergekit_ties(whole(coordinates), torch.tensor(weights), density)
    merged = apply_rule(ties, coordinates, torch.tensor(weights), {"density": density})
    merged /= sum(weights)
    assert (expected != 0).float().mean() > density / 2
    torch.testing.assert_close(merged, expected, rtol=1e-6, atol=1e-7)


def test_equals_peft_at_equal_weights() -> None:
    """PEFT elects before it weights and divides by the count: its weight 1 is our 1/n."""
    coordinates = factors(3)
    deltas = list(whole(coordinates))
    merged = apply_rule(ties, coordinates, torch.ones(3) / 3, {"density": 0.2})
    torch.testing.assert_close(merged, peft_ties(deltas, torch.ones(3), 0.2))
    unequal = torch.tensor([0.7, 0.2, 0.1])
    merged = apply_rule(ties, coordinates, unequal, {"density": 0.2})
    assert not torch.allclose(merged, peft_ties(deltas, unequal, 0.2), atol=1e-3)


@pytest.mark.parametrize("density", [0.1, 0.2, 0.9])
def test_the_trim_keeps_what_peft_keeps(density: float) -> None:
    coordinates = factors(2)
    floors = coordinates.threshold(density)
    for delta, floor in zip(whole(coordinates), floors, strict=True):
        kept = delta.abs() >= floor
        assert torch.equal(kept, prune(delta, density, "magnitude") != 0)
        assert kept.sum() == int(density * delta.numel())
