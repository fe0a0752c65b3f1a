"""The exact k-th largest magnitude, against a full sort."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from adapterhub_merge.coordinates import FactorCoordinates
from adapterhub_merge.threshold import kth_largest


@settings(max_examples=200, deadline=None)
@given(
    values=npst.arrays(
        np.float32,
        st.integers(1, 300),
        elements=st.floats(0, 4, width=32) | st.sampled_from([0.0, 1.0, 2.0]),
    ),
    share=st.floats(0, 1),
    sample_size=st.integers(1, 50),
    misleading=st.booleans(),
)
def test_equals_a_sort(
    values: np.ndarray, share: float, sample_size: int, misleading: bool
) -> None:
    tensor = torch.from_numpy(values)
    count = max(1, int(share * values.size))
    sample = torch.full((sample_size,), 9.0) if misleading else tensor[:sample_size]

    def blocks() -> Iterator[torch.Tensor]:
        yield from tensor.split(7)

    found = kth_largest(blocks, sample, values.size, count)
    assert found.item() == np.sort(values)[::-1][count - 1]


def test_a_large_module_exactly_and_with_little_memory() -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(900, 8, generator=generator)
    right = torch.randn(8, 1100, generator=generator)
    coordinates = FactorCoordinates([left], [right], 0, "module")
    collected = []
    whole = torch.cat([block.deltas()[0] for block in coordinates]).abs().flatten()
    ordered = whole.sort(descending=True).values
    for density in (0.001, 0.2, 0.5, 0.999, 1.0):
        found = coordinates.threshold(density)
        assert found.shape == (1,)
        assert found.item() == ordered[int(density * whole.numel()) - 1].item()
        collected.append(found.item())
    assert collected == sorted(collected, reverse=True)


def test_a_bracket_that_just_misses_is_widened() -> None:
    values = torch.arange(10.0)
    assert kth_largest(lambda: [values], torch.full((10_000,), 7.0), 10, 2).item() == 8
