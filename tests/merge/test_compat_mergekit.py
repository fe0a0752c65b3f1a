"""`--compat mergekit` element by element against mergekit's own methods, with the same masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mergekit.merge_methods import registry
from mergekit.merge_methods.base import TensorGroup

from adapterhub import specs
from adapterhub.errors import AdzError
from adapterhub.plugins import load_plugins
from adapterhub_merge.coordinates import FactorCoordinates, apply_rule

WEIGHTS = [(1.0, 1.0, 1.0), (0.7, 0.3, 0.5), (0.5, -0.25, 1.5)]
# Our rule and its options, and mergekit's method and its parameters where they are not defaults.
CASES = [
    ("linear", {}, "task_arithmetic", {}),
    ("linear", {"normalize": True}, "task_arithmetic",
     {"normalize": True}),
    ("ties", {}, "ties", {}),
    ("ties", {"normalize": False}, "ties", {"normalize": False}),
    ("dare", {}, "dare_linear", {}),
    ("dare", {"rescale": False, "normalize": True}, "dare_linear",
     {"rescale": False, "normalize": True}),
    ("dare_ties", {}, "dare_ties", {}),
    ("breadcrumbs", {}, "breadcrumbs", {}),
    ("breadcrumbs", {"gamma": 0.3}, "breadcrumbs", {"gamma": 0.3}),
    ("breadcrumbs", {"consensus": True}, "breadcrumbs_ties", {}),
    ("della", {}, "della", {}),
    ("della", {"epsilon": 0.05}, "della", {"epsilon": 0.05}),
    ("della", {"consensus": False, "normalize": False}, "della_linear", {}),
]  # fmt: skip


def factors(count: int) -> FactorCoordinates:
    generator = torch.Generator().manual_seed(count)
    left = [torch.randn(64, 2 + i, generator=generator) for i in range(count)]
    right = [torch.randn(2 + i, 48, generator=generator) for i in range(count)]
    return FactorCoordinates(left, right, 0, "module")


def deltas_of(coordinates: FactorCoordinates) -> torch.Tensor:
    return torch.cat([block.deltas() for block in coordinates], dim=1)


def ours(
    name: str,
    coordinates: FactorCoordinates,
    weights: tuple[float, ...],
    density: float,
    options: dict[str, Any],
) -> torch.Tensor:
    plugins = load_plugins()
    variant = plugins.get(specs.MergeRule, name).as_peer("mergekit")
    assert variant is not None
    given = plugins.load_options(variant)(**options).model_dump()
    return apply_rule(
        plugins.load_implementation(variant),
        coordinates,
        torch.tensor(weights),
        {**given, "density": density},
        whole=variant.kind != "elementwise",
    )


def theirs(
    name: str,
    deltas: torch.Tensor,
    weights: tuple[float, ...],
    density: float,
    given: dict[str, Any],
) -> torch.Tensor:
    """mergekit's method on a base of zeros, so that the models are the updates."""
    method = registry.get(name)
    values = {
        spec.name: given.get(spec.name, spec.default)
        for spec in method.spec.parameters
    }  # fmt: skip
    values["weight"] = dict(enumerate(weights, 1))
    for key in ("density", "gamma", "epsilon"):
        if key in values:
            value = density if key == "density" else values[key]
            values[key] = dict.fromkeys(values["weight"], value)
    base = torch.zeros_like(deltas[0])
    return method.merge_group(TensorGroup.from_tensors([base, *deltas], base_index=0), **values)


@pytest.fixture
def same_masks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torch.bernoulli, which mergekit draws from once an adapter, answers with our numbers."""

    def bind(coordinates: FactorCoordinates, count: int) -> None:
        rows = slice(0, coordinates.shape[0])
        numbers: Iterator[torch.Tensor] = iter(
            [coordinates.uniform(adapter, rows) for adapter in range(count)]
        )
        monkeypatch.setattr(
            torch, "bernoulli", lambda chances: (next(numbers) < chances).to(chances.dtype)
        )

    return bind


@pytest.mark.parametrize("density", [0.2, 0.53, 0.8, 1.0])
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize(("rule", "options", "method", "given"), CASES, ids=lambda v: str(v))
def test_every_element_is_mergekits(
    rule: str,
    options: dict[str, Any],
    method: str,
    given: dict[str, Any],
    weights: tuple[float, ...],
    density: float,
    same_masks: Any,
) -> None:
    coordinates = factors(len(weights))
    same_masks(coordinates, len(weights))
    expected = theirs(method, deltas_of(coordinates), weights, density, given)
    merged = ours(rule, coordinates, weights, density, options)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(merged, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(("rule", "method"), [("ties", "ties"), ("breadcrumbs", "breadcrumbs")])
def test_equal_magnitudes_are_told_apart_as_mergekit_does(rule: str, method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    left = [torch.randint(-2, 3, (64, 3), generator=generator).float() for _ in range(2)]
    right = [torch.randint(-2, 3, (3, 48), generator=generator).float() for _ in range(2)]
    coordinates = FactorCoordinates(left, right, 0, "module")
    expected = theirs(method, deltas_of(coordinates), (0.7, 0.3), 0.31, {})
    assert torch.equal(ours(rule, coordinates, (0.7, 0.3), 0.31, {}) != 0, expected != 0)


def test_the_mean_of_dare_keeps_the_norm_that_mergekit_keeps_not_the_expectation() -> None:
    """mergekit 0.1.5 rescales by the ratio of L1 norms, the paper by 1 / density."""
    coordinates = factors(1)
    delta = deltas_of(coordinates)[0]
    merged = ours("dare", coordinates, (1.0,), 0.3, {})
    torch.testing.assert_close(merged.abs().sum(), delta.abs().sum())
    kept = merged != 0
    assert not torch.allclose(merged[kept], delta[kept] / 0.3, rtol=1e-3)


@pytest.mark.parametrize("density", [0.1, 0.9])
def test_a_density_that_della_has_no_room_around_is_refused(density: float) -> None:
    with pytest.raises(AdzError, match=r"the density 0\.[19] must lie between epsilon 0\.15"):
        ours("della", factors(2), (1.0, 1.0), density, {})
    with pytest.raises(ValueError, match="Epsilon must be chosen"):
        theirs("della", deltas_of(factors(2)), (1.0, 1.0), density, {})
