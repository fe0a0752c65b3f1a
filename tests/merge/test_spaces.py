"""The spaces: compression, its error, blocks of rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adapterhub import specs
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Factors
from adapterhub_merge import coordinates as coordinates_module
from adapterhub_merge.dense import compress

from .references import reference
from .small import M, N, declared_pairs, operands, options_of, own_rules, product, run

# Those that compress what the rule made, to the least Frobenius error.
COMPRESSING = ("core", "dense", "knots", "pico")


@pytest.mark.parametrize(("rule", "space"), [p for p in declared_pairs() if p[1] in COMPRESSING])
def test_compression_is_the_best_and_its_error_is_true(rule: str, space: str) -> None:
    count = 2 if own_rules()[rule].kind == "pairwise" else 3
    factors, weights = operands(6, 7, 3)[:count], [0.5, 0.3, 0.2][:count]
    merged = run(rule, space, factors, weights, rank=4)
    assert merged.a.shape == (4, N)
    assert merged.b.shape == (M, 4)
    expected = reference(rule, space, factors, weights, options_of(own_rules()[rule]))
    best = np.linalg.norm(np.linalg.svd(expected)[1][4:])
    true_error = np.linalg.norm(product(merged) - expected)
    assert merged.error == pytest.approx(true_error, rel=1e-5, abs=1e-6 * merged.norm)
    # The dense sketch is nearly the best, the others are the best.
    slack = 0.002 if space == "dense" else 1e-5
    rounding = 1e-6 * merged.norm
    assert best * (1 - 1e-6) <= true_error <= best * (1 + slack) + rounding


@pytest.mark.parametrize(
    "rule", [name for name, rule in own_rules().items() if "dense" in rule.spaces]
)
def test_blocks_do_not_change_a_result(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whole numbers: products are exact in float32, so the thresholds are the same.
    factors = [
        Factors(a=f.a.mul(8).round(), b=f.b.mul(8).round(), scale=1.0) for f in operands(2, 3)
    ]
    whole = run(rule, "dense", factors, [0.5, 0.25], rank=20)
    monkeypatch.setattr(coordinates_module, "BLOCK_ELEMENTS", 3 * N)
    blocks = run(rule, "dense", factors, [0.5, 0.25], rank=20)
    assert np.abs(product(whole) - product(blocks)).max() < 1e-6 * whole.norm
    assert blocks.norm == pytest.approx(whole.norm, rel=1e-6)


def test_the_sketch_is_nearly_the_best_on_a_flat_spectrum() -> None:
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(300, 200, generator=generator)
    sketch = delta @ torch.randn(200, 24, generator=generator)
    square = delta.double().square().sum().item()
    merged = compress(delta, sketch, square, 8, iterations=2)
    best = torch.linalg.svdvals(delta.double())[8:].norm().item()
    error = (delta.double() - merged.b.double() @ merged.a.double()).norm().item()
    assert error <= 1.01 * best
    assert merged.error == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize(("rule", "rank", "slack"), [("ties", 16, 1e-4), ("dare", 16, 1e-3)])
def test_one_iteration_from_the_weighted_sum_is_nearly_the_best(
    rule: str, rank: int, slack: float
) -> None:
    """A module whose sum has more directions than the result keeps, as eight adapters have."""
    generator = torch.Generator().manual_seed(0)
    decay = 0.8 ** torch.arange(8)
    factors = [
        Factors(
            a=torch.randn(8, 300, generator=generator) * decay[:, None],
            b=torch.randn(400, 8, generator=generator),
            scale=1.0,
        )
        for _ in range(8)
    ]
    weights = [1 / 8] * 8
    merged = run(rule, "dense", factors, weights, rank=rank)
    expected = reference(rule, "dense", factors, weights, options_of(own_rules()[rule]))
    best = np.linalg.norm(np.linalg.svd(expected, compute_uv=False)[rank:])
    error = np.linalg.norm(product(merged) - expected)
    assert best < error <= best * (1 + slack)
    assert merged.error == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("name", ["core", "dense"])
def test_a_rule_that_is_not_elementwise_sees_the_module_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinates_module, "BLOCK_ELEMENTS", 2)
    seen = []

    def rule(deltas, weights, coordinates, options):
        seen.append(tuple(deltas.shape))
        return deltas.sum(dim=0)

    plugins = load_plugins()
    space = plugins.load_implementation(plugins.get(specs.MergeSpace, name))
    for whole in (True, False):
        merged = space(
            operands(2, 3), torch.ones(2), rule, {}, rank=5, seed=0, module="module", whole=whole
        )
        assert (merged.b @ merged.a).norm() > 0
    rows, cols = (5, 5) if name == "core" else (M, N)
    assert seen == [(2, rows, cols), *[(2, 1, cols)] * rows]
