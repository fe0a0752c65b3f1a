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
    # Whole numbers: products are exact in float32, so only a wrong position can differ.
    factors = [
        Factors(a=f.a.mul(8).round(), b=f.b.mul(8).round(), scale=1.0) for f in operands(2, 3)
    ]
    whole = run(rule, "dense", factors, [0.5, 0.25], rank=20)
    monkeypatch.setattr(coordinates_module, "BLOCK_ELEMENTS", 3 * N)
    blocks = run(rule, "dense", factors, [0.5, 0.25], rank=20)
    assert torch.equal(whole.a, blocks.a)
    assert torch.equal(whole.b, blocks.b)


def test_the_sketch_is_nearly_the_best_on_a_flat_spectrum() -> None:
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(300, 200, generator=generator)
    b, a = compress(delta, 8, "module")
    best = torch.linalg.svdvals(delta.double())[8:].norm()
    assert (delta.double() - b.double() @ a.double()).norm() <= 1.01 * best


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
