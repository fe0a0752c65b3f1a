"""Compress then merge below the sum of the ranks: the subspaces, and what they lose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from adapterhub.protocols import Factors
from adapterhub_merge.core import core
from adapterhub_merge.ctm import ctm
from adapterhub_merge.linear import linear

from .references import exact, reference
from .small import operands, options_of, own_rules, product, run

WEIGHTS = [0.5, 0.3, 0.2]


@pytest.mark.parametrize("rule", [n for n, r in own_rules().items() if "ctm" in r.spaces])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_equals_the_reference_at_a_low_rank(rule: str, rank: int) -> None:
    factors = operands(4, 6, 3)
    options = options_of(own_rules()[rule], rank=rank)
    expected = reference(rule, "ctm", factors, WEIGHTS, options)
    merged = run(rule, "ctm", factors, WEIGHTS, rank=rank)
    assert merged.a.shape[0] == merged.b.shape[1] == rank
    norm = np.linalg.norm(expected)
    assert np.linalg.norm(product(merged) - expected) < 1e-5 * norm
    assert merged.norm == pytest.approx(norm, rel=1e-5)


def alone(operand: Factors, factors: list[Factors], space: object, rank: int) -> float:
    """The share of one adapter that a sum of this rank keeps, in the subspaces of all."""
    merged = space(  # type: ignore[operator]
        factors, torch.ones(len(factors)) / len(factors), linear, {},
        rank=rank, seed=0, module="module",
    )  # fmt: skip
    u, _, vh = np.linalg.svd(product(merged))
    kept = u[:, :rank].T @ exact(operand) @ vh[:rank].T
    return float(np.linalg.norm(kept) / np.linalg.norm(exact(operand)))


def test_a_small_adapter_gets_its_part_of_the_rank() -> None:
    large, small = operands(4, 4)
    large = replace(large, b=large.b * 10)
    assert alone(small, [large, small], core, 4) < 0.5
    assert alone(small, [large, small], ctm, 4) > alone(small, [large, small], core, 4) + 0.1


def test_the_error_is_the_share_outside_the_subspaces() -> None:
    factors = operands(4, 6, 3)
    merged = run("ties", "ctm", factors, WEIGHTS, rank=5, density=1.0)
    # At density 1 the merge has full rank in the subspaces, so it spans them.
    u, s, vh = np.linalg.svd(product(merged))
    assert s[4] > 1e-3 * s[0]
    weighted = [w * exact(f) for w, f in zip(WEIGHTS, factors, strict=True)]
    inside = [u[:, :5].T @ delta @ vh[:5].T for delta in weighted]
    lost = np.sqrt(1 - np.linalg.norm(inside) ** 2 / np.linalg.norm(weighted) ** 2)
    assert merged.error / merged.norm == pytest.approx(lost, rel=1e-4)
    assert 0.1 < lost < 0.9
