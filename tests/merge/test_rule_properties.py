"""What holds for every rule, or for every rule of a kind, with adapters drawn at random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterhub.protocols import Factors

from .references import exact
from .small import M, N, declared_pairs, operands, own_rules, product, run

RULES = own_rules()
PAIRS = declared_pairs()
# Sums, whatever is dropped before: linear in the weights.
SUMS = {"breadcrumbs", "cat", "dare", "linear", "magnitude_prune"}
# One adapter alone comes out as it is, where nothing is dropped. A flat spectrum is another one.
IDENTITIES = sorted(RULES.keys() - {"iso-c", "iso-cts", "slerp"})
# A draw belongs to a place in the list.
ORDERED = {"dare", "dare_ties", "della"}
# A mean: only the ratios of the weights count.
MEANS = {"regmean"}
TOLERANCE = 2e-5

few = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 1000)
positive = st.floats(0.05, 2).map(lambda weight: round(weight, 3))
signed = st.floats(-2, 2).map(lambda weight: round(weight, 3))


def adapters(rule: str, seed: int) -> list[Factors]:
    ranks = (2, 5) if RULES[rule].kind == "pairwise" else (2, 3, 4)
    return operands(*ranks, seed=seed)


def merge(rule: str, space: str, factors: list[Factors], weights: list[float]) -> np.ndarray:
    return product(run(rule, space, factors, weights))


def scale(factors: list[Factors], weights: list[float]) -> float:
    """A size to which rounding is relative; DARE multiplies by 1 / 0.3."""
    norms = (abs(w) * np.linalg.norm(exact(f)) for w, f in zip(weights, factors, strict=True))
    return 4 * max(1.0, len(factors) * sum(norms))


def is_close(found: np.ndarray, expected: np.ndarray, size: float) -> bool:
    return bool(np.linalg.norm(found - expected) <= TOLERANCE * size)


@pytest.mark.parametrize(("rule", "space"), PAIRS)
@few
@given(seed=seeds, weights=st.lists(positive, min_size=3, max_size=3), factor=positive)
def test_weights_scale_the_result(
    rule: str, space: str, seed: int, weights: list[float], factor: float
) -> None:
    factors = adapters(rule, seed)
    weights = weights[: len(factors)]
    once = merge(rule, space, factors, weights)
    times = merge(rule, space, factors, [factor * weight for weight in weights])
    factor = 1 if rule in MEANS else factor
    assert is_close(times, factor * once, (1 + factor) * scale(factors, weights))


@pytest.mark.parametrize(("rule", "space"), [p for p in PAIRS if RULES[p[0]].negative_weights])
@few
@given(seed=seeds, weights=st.lists(signed, min_size=3, max_size=3))
def test_negated_weights_negate(rule: str, space: str, seed: int, weights: list[float]) -> None:
    factors = adapters(rule, seed)
    once = merge(rule, space, factors, weights)
    negated = merge(rule, space, factors, [-weight for weight in weights])
    assert is_close(negated, -once, scale(factors, weights))


@pytest.mark.parametrize(("rule", "space"), [p for p in PAIRS if p[0] in SUMS])
@few
@given(
    seed=seeds,
    one=st.lists(signed, min_size=3, max_size=3),
    other=st.lists(signed, min_size=3, max_size=3),
)
def test_sums_are_linear_in_the_weights(
    rule: str, space: str, seed: int, one: list[float], other: list[float]
) -> None:
    factors = adapters(rule, seed)
    both = [a + b for a, b in zip(one, other, strict=True)]
    parts = merge(rule, space, factors, one) + merge(rule, space, factors, other)
    size = scale(factors, one) + scale(factors, other)
    assert is_close(merge(rule, space, factors, both), parts, size)


@pytest.mark.parametrize(("rule", "space"), [p for p in PAIRS if p[0] not in ORDERED])
@few
@given(seed=seeds, order=st.permutations(range(3)), weights=st.lists(positive, min_size=3,
                                                                      max_size=3))  # fmt: skip
def test_the_order_does_not_matter(
    rule: str, space: str, seed: int, order: list[int], weights: list[float]
) -> None:
    factors = adapters(rule, seed)
    order = [i for i in order if i < len(factors)]
    once = merge(rule, space, factors, weights[: len(factors)])
    turned = merge(rule, space, [factors[i] for i in order], [weights[i] for i in order])
    assert is_close(turned, once, scale(factors, weights[: len(factors)]))


@pytest.mark.parametrize(("rule", "space"), PAIRS)
@few
@given(seed=seeds, weights=st.lists(positive, min_size=3, max_size=3))
def test_negated_adapters_negate(rule: str, space: str, seed: int, weights: list[float]) -> None:
    factors = adapters(rule, seed)
    weights = weights[: len(factors)]
    once = merge(rule, space, factors, weights)
    negated = merge(rule, space, [replace(f, b=-f.b) for f in factors], weights)
    assert is_close(negated, -once, scale(factors, weights))


@pytest.mark.parametrize(("rule", "space"), [p for p in PAIRS if p[0] in IDENTITIES])
@few
@given(seed=seeds, rank=st.integers(1, 6))
def test_one_adapter_stays_itself(rule: str, space: str, seed: int, rank: int) -> None:
    factors = operands(rank, seed=seed)
    found = product(run(rule, space, factors, [1.0], density=1.0))
    assert is_close(found, exact(factors[0]), scale(factors, [1.0]))


@pytest.mark.parametrize(("rule", "space"), PAIRS)
@pytest.mark.parametrize("ranks", [(2, 3), (2, 0)])
def test_adapters_of_zeros_come_to_zero(rule: str, space: str, ranks: tuple[int, ...]) -> None:
    # Training starts at B = 0: an adapter that has learnt nothing.
    factors = [replace(f, b=f.b * 0) for f in operands(*ranks)]
    merged = run(rule, space, factors, [0.5, 0.5])
    assert np.array_equal(product(merged), np.zeros((M, N)))
    assert merged.error == merged.norm == 0


@pytest.mark.parametrize(("rule", "space"), PAIRS)
def test_one_of_zeros_and_one_that_lacks_the_module(rule: str, space: str) -> None:
    lacking, present, empty = operands(0, 3, 2)
    empty = replace(empty, b=empty.b * 0)
    for factors in ([lacking, present], [present, empty]):
        merged = run(rule, space, factors, [0.5, 0.5])
        assert np.isfinite(product(merged)).all()
        assert 0.01 < merged.norm / np.linalg.norm(exact(present)) < 4


@pytest.mark.parametrize(("rule", "space"), PAIRS)
def test_the_same_arguments_give_the_same_bits(rule: str, space: str) -> None:
    factors = adapters(rule, 0)
    weights = [0.5, 0.3, 0.2][: len(factors)]
    first, second = (run(rule, space, factors, weights, rank=4) for _ in range(2))
    assert first.a.equal(second.a)
    assert first.b.equal(second.b)


@pytest.mark.parametrize(("rule", "space"), PAIRS)
def test_inputs_are_left_alone(rule: str, space: str) -> None:
    factors = adapters(rule, 0)
    before = [replace(f, a=f.a.clone(), b=f.b.clone()) for f in factors]
    run(rule, space, factors, [0.5, 0.3, 0.2][: len(factors)], rank=4)
    for factor, copy in zip(factors, before, strict=True):
        assert factor.a.equal(copy.a)
        assert factor.b.equal(copy.b)
