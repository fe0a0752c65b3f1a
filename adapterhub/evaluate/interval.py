"""How sure a score is."""

from __future__ import annotations

from math import sqrt

# The 97.5 % point of the normal distribution: two-sided 95 %.
_Z = 1.959963984540054


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share in [0, 1] seen in `count` rows (Wilson 1927).

    Right for small counts and for shares near 0 and 1, where the normal interval is not.
    """
    spread = _Z * _Z / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z * sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
