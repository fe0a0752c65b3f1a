"""Rules that drop at random: what they keep, and what comes out on average."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adapterhub_merge.coordinates import FactorCoordinates, apply_rule
from adapterhub_merge.dare import dare
from adapterhub_merge.della import della

from .references import exact
from .small import M, N, operands


def test_dare_keeps_the_density_and_the_expectation() -> None:
    factors = operands(3, 2)
    total, kept, seeds = np.zeros((M, N)), [], 400
    for seed in range(seeds):
        coordinates = FactorCoordinates(
            [f.b * f.scale for f in factors], [f.a for f in factors], seed, "module"
        )
        merged = apply_rule(dare, coordinates, torch.tensor([1.0, 0.0]), {"density": 0.3})
        kept.append((merged != 0).float().mean().item())
        total += merged.double().numpy() / seeds
    assert np.mean(kept) == pytest.approx(0.3, abs=0.005)
    expected = exact(factors[0])
    # One element's standard deviation is sqrt(0.7 / 0.3) of it, over the root of the draws.
    assert np.linalg.norm(total - expected) < 1.2 * (0.7 / 0.3 / seeds) ** 0.5 * np.linalg.norm(
        expected
    )


def test_dare_draws_differ_by_seed_module_and_adapter() -> None:
    def draws(seed: int, module: str, adapter: int) -> torch.Tensor:
        block = next(iter(FactorCoordinates([torch.ones(8, 1)] * 2, [torch.ones(1, 8)] * 2,
                                            seed, module)))  # fmt: skip
        return block.uniform(adapter)

    reference = draws(0, "a", 0)
    assert torch.equal(reference, draws(0, "a", 0))
    for other in (draws(1, "a", 0), draws(0, "b", 0), draws(0, "a", 1)):
        assert not torch.equal(reference, other)


def test_della_drops_the_small_ones_rather_and_keeps_the_expectation() -> None:
    (operand,) = operands(3)
    options = {"density": 0.4, "epsilon": 0.3}
    expected, seeds = exact(operand), 400
    total, kept = np.zeros((M, N)), np.zeros((M, N))
    for seed in range(seeds):
        coordinates = FactorCoordinates([operand.b * operand.scale], [operand.a], seed, "module")
        merged = apply_rule(della, coordinates, torch.ones(1), options).double().numpy()
        kept += (merged != 0) / seeds
        total += merged / seeds
    order = np.abs(expected).argsort(axis=1)
    by_rank = np.take_along_axis(kept, order, axis=1).mean(axis=0)
    deviation = (0.25 / (M * seeds)) ** 0.5
    assert by_rank == pytest.approx(np.linspace(0.1, 0.7, N), abs=5 * deviation)
    # The variance of an element is (1 - p) / p of its square.
    p = np.empty((M, N))
    np.put_along_axis(p, order, np.broadcast_to(np.linspace(0.1, 0.7, N), (M, N)), axis=1)
    spread = np.sqrt((expected**2 * (1 - p) / p).sum() / seeds)
    assert 0.8 * spread < np.linalg.norm(total - expected) < 1.2 * spread


@pytest.mark.parametrize("density", [1.0, 0.02])
def test_della_narrows_its_window_at_the_ends(density: float) -> None:
    (operand,) = operands(3)
    coordinates = FactorCoordinates([operand.b], [operand.a], 0, "module")
    merged = apply_rule(
        della, coordinates, torch.ones(1), {"density": density, "epsilon": 0.5}
    ).double()
    assert torch.isfinite(merged).all()
    if density == 1:
        assert np.allclose(merged, operand.b.double() @ operand.a.double(), atol=1e-5)
    else:
        assert 0 < (merged != 0).double().mean() < 0.1
