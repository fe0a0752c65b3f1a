"""Every declared pair of rule and space against its float64 reference on small shapes."""

from __future__ import annotations

import numpy as np
import pytest

from .references import exact, reference
from .small import N, declared_pairs, operands, options_of, own_rules, product, run

WEIGHTS = [0.7, 0.2, 0.4, 0.1]


def is_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    return bool(np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected))


@pytest.mark.parametrize(("rule", "space"), declared_pairs())
@pytest.mark.parametrize("ranks", [(2, 3), (4, 0, 1), (5, 5, 5, 5), (12, 9, 7)])
def test_equals_the_reference(rule: str, space: str, ranks: tuple[int, ...]) -> None:
    if own_rules()[rule].kind == "pairwise":
        ranks = ranks[:2]
    factors, weights = operands(*ranks), WEIGHTS[: len(ranks)]
    expected = reference(rule, space, factors, weights, options_of(own_rules()[rule]))
    merged = run(rule, space, factors, weights)
    norm = np.linalg.norm(expected)
    assert norm > 0.01 * max(np.linalg.norm(exact(f)) for f in factors)
    # The inverse of the moments multiplies the rounding of float32.
    assert is_close(product(merged), expected, 3e-5 if space == "inputs" else 3e-6)
    if space != "inputs":
        assert merged.norm == pytest.approx(norm, rel=1e-5)
    if (space, sum(ranks) > N) != ("ctm", True):
        assert merged.error < 3e-6 * merged.norm
