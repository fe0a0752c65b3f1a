"""The quantizer `round8`."""

from __future__ import annotations

import torch
from adz_plugin_template.round8 import round_rows

from adapterhub.testing import QuantizerConformance


class TestRound8(QuantizerConformance):
    """What every quantizer promises."""

    name = "round8"


def test_it_is_within_half_a_step():
    weight = torch.randn(32, 48, generator=torch.Generator().manual_seed(0))
    rounded = round_rows(weight)
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((rounded - weight).abs() <= step * 0.5001).all()
    assert all(len(row.unique()) <= 255 for row in rounded)
