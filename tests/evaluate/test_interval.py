"""Wilson's interval against values that others published."""

from __future__ import annotations

import pytest

from adapterhub.evaluate.interval import wilson_interval


# Newcombe 1998, Statistics in Medicine 17, table I, method 3 (score, no continuity correction).
@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_newcombes(right: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(right / count, count) == pytest.approx((low, high), abs=5e-5)


def test_all_right_mirrors_all_wrong() -> None:
    low, high = wilson_interval(1.0, 20)
    assert (1 - high, 1 - low) == pytest.approx(wilson_interval(0.0, 20))
