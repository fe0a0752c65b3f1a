"""Every declared pair of rule and space against a float64 brute force on small shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterhub import specs
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Factors
from adapterhub_merge import coordinates as coordinates_module
from adapterhub_merge.coordinates import FactorCoordinates, apply_rule
from adapterhub_merge.dare import dare
from adapterhub_merge.dense import compress

OPTIONS = {"density": 0.3, "seed": 7}
M, N = 30, 20


def operands(*ranks: int, seed: int = 0) -> list[Factors]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Factors(
            a=torch.randn(r, N, generator=generator),
            b=torch.randn(M, r, generator=generator),
            scale=0.5 + i,
        )
        for i, r in enumerate(ranks)
    ]


def exact(operand: Factors) -> np.ndarray:
    return operand.scale * operand.b.double().numpy() @ operand.a.double().numpy()


def brute_linear(deltas: list[np.ndarray], weights: list[float]) -> np.ndarray:
    return sum(w * d for w, d in zip(weights, deltas, strict=True))


def brute_ties(deltas: list[np.ndarray], weights: list[float]) -> np.ndarray:
    trimmed = []
    for delta in deltas:
        order = np.argsort(-np.abs(delta).ravel(), kind="stable")
        kept = np.zeros(delta.size)
        kept[order[: int(OPTIONS["density"] * delta.size)]] = 1
        trimmed.append(delta * kept.reshape(delta.shape))
    merged = np.zeros(deltas[0].shape)
    for i, j in np.ndindex(merged.shape):
        values = [(w, w * t[i, j]) for w, t in zip(weights, trimmed, strict=True)]
        sign = 1 if sum(v for _, v in values) >= 0 else -1
        agreeing = [(w, v) for w, v in values if v * sign > 0]
        if agreeing:
            merged[i, j] = sum(v for _, v in agreeing) / sum(w for w, _ in agreeing)
    return merged


def brute_dare(deltas: list[np.ndarray], weights: list[float]) -> np.ndarray:
    """The masks are the generator's, one draw of the whole module for each adapter."""
    import hashlib

    merged = np.zeros(deltas[0].shape)
    for index, (w, delta) in enumerate(zip(weights, deltas, strict=True)):
        text = f"{OPTIONS['seed']}\0module\0{index}".encode()
        key = int.from_bytes(hashlib.sha256(text).digest()[:16], "little")
        draws = np.random.Generator(np.random.Philox(key=key)).random(delta.size, dtype=np.float32)
        kept = draws.reshape(delta.shape) < OPTIONS["density"]
        merged += w * delta * kept / OPTIONS["density"]
    return merged


def svd(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Without what is only rounding."""
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    return u[:, s > 1e-9], s[s > 1e-9], vh[s > 1e-9]


def brute_in_dense(rule, factors: list[Factors], weights: list[float]) -> np.ndarray:
    return rule([exact(f) for f in factors], weights)


def brute_in_core(rule, factors: list[Factors], weights: list[float]) -> np.ndarray:
    """Core Space: U^T W_i V with the singular vectors of all B and of all A."""
    u, _, _ = svd(np.hstack([f.scale * f.b.double().numpy() for f in factors]))
    _, _, vh = svd(np.vstack([f.a.double().numpy() for f in factors]))
    return u @ rule([u.T @ exact(f) @ vh.T for f in factors], weights) @ vh


def brute_in_knots(rule, factors: list[Factors], weights: list[float]) -> np.ndarray:
    """KnOTS: the updates side by side share U S, and the rule sees the V_i."""
    u, s, vh = svd(np.hstack([exact(f) for f in factors]))
    # An adapter without the module has zeros, not rounding that would agree with a sign.
    aligned = np.where(np.abs(vh) > 1e-12, vh, 0)
    return u @ np.diag(s) @ rule(np.split(aligned, len(factors), axis=1), weights)


BRUTE_SPACES = {
    "dense": brute_in_dense,
    "concat": brute_in_dense,
    "core": brute_in_core,
    "knots": brute_in_knots,
}
BRUTE = {"linear": brute_linear, "cat": brute_linear, "ties": brute_ties, "dare": brute_dare}


def declared_pairs() -> list[tuple[str, str]]:
    own = [
        p.component
        for p in load_plugins().provided(specs.MergeRule)
        if p.plugin.distribution == "adapterhub"
    ]
    return [(rule.name, space) for rule in own for space in rule.spaces]


def run(rule_name: str, space_name: str, factors: list[Factors], weights: list[float], rank: int):
    plugins = load_plugins()
    rule = plugins.load_implementation(plugins.get(specs.MergeRule, rule_name))
    space = plugins.load_implementation(plugins.get(specs.MergeSpace, space_name))
    return space(
        factors,
        torch.tensor(weights),
        rule,
        OPTIONS,
        rank=rank,
        seed=OPTIONS["seed"],
        module="module",
    )


@pytest.mark.parametrize(("rule", "space"), declared_pairs())
@pytest.mark.parametrize("ranks", [(2, 3), (4, 0, 1), (5, 5, 5, 5)])
def test_equals_brute_force(rule: str, space: str, ranks: tuple[int, ...]) -> None:
    factors = operands(*ranks)
    weights = [0.7, 0.2, 0.4, 0.1][: len(ranks)]
    merged = run(rule, space, factors, weights, rank=20)
    expected = BRUTE_SPACES[space](BRUTE[rule], factors, weights)
    scale = np.linalg.norm(expected)
    assert np.linalg.norm((merged.b @ merged.a).double().numpy() - expected) < 2e-6 * scale
    assert merged.norm == pytest.approx(scale, rel=1e-5)
    assert merged.error < 2e-6 * scale


@pytest.mark.parametrize(
    ("rule", "space", "slack"),
    [
        ("linear", "core", 1e-5),
        ("linear", "dense", 1e-5),
        ("ties", "dense", 0.002),
        ("ties", "core", 1e-5),
        ("ties", "knots", 1e-5),
    ],
)
def test_compression_is_the_best_and_its_error_is_true(rule: str, space: str, slack: float) -> None:
    factors, weights = operands(6, 7, 3), [0.5, -0.3 if rule == "linear" else 0.3, 0.2]
    merged = run(rule, space, factors, weights, rank=4)
    assert merged.a.shape == (4, N)
    assert merged.b.shape == (M, 4)
    expected = BRUTE_SPACES[space](BRUTE[rule], factors, weights)
    best = np.linalg.norm(np.linalg.svd(expected)[1][4:])
    true_error = np.linalg.norm((merged.b @ merged.a).double().numpy() - expected)
    assert merged.error == pytest.approx(true_error, rel=1e-5)
    assert best * (1 - 1e-6) <= true_error <= best * (1 + slack)


@pytest.mark.parametrize("rule", ["ties", "dare"])
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


@settings(max_examples=30, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    weights=st.lists(st.floats(-2, 2).map(lambda w: round(w, 3)), min_size=4, max_size=4),
    factor=st.floats(-3, 3).map(lambda w: round(w, 2)),
    seed=st.integers(0, 1000),
)
@pytest.mark.parametrize("space", ["core", "dense"])
def test_linear_is_linear(
    space: str, ranks: list[int], weights: list[float], factor: float, seed: int
) -> None:
    def product(factors: list[Factors], weights: list[float]) -> torch.Tensor:
        merged = run("linear", space, factors, weights, rank=N)
        return merged.b @ merged.a

    factors, weights = operands(*ranks, seed=seed), weights[: len(ranks)]
    merged = product(factors, weights)
    scale = sum(abs(w) * np.linalg.norm(exact(f)) for w, f in zip(weights, factors, strict=True))
    tolerance = 1e-5 * max(1.0, abs(factor)) * scale + 1e-12

    def close(other: torch.Tensor, expected: torch.Tensor) -> bool:
        return (other - expected).norm().item() <= tolerance

    assert close(product(factors, [factor * w for w in weights]), factor * merged)
    assert close(product(factors, [-w for w in weights]), -merged)
    assert close(product(factors[::-1], weights[::-1]), merged)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(3)), negate=st.booleans(), seed=st.integers(0, 1000))
def test_ties_does_not_mind_the_order_or_the_sign(
    order: list[int], negate: bool, seed: int
) -> None:
    factors, weights = operands(2, 3, 4, seed=seed), [0.5, 0.25, 1.0]
    first = run("ties", "dense", factors, weights, rank=N)
    sign = -1.0 if negate else 1.0
    turned = [Factors(a=f.a, b=f.b * sign, scale=f.scale) for f in factors]
    second = run("ties", "dense", [turned[i] for i in order], [weights[i] for i in order], rank=N)
    difference = second.b @ second.a - sign * (first.b @ first.a)
    assert difference.norm() < 1e-5 * first.norm


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
