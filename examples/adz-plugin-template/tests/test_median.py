"""The merge rule `median`."""

from __future__ import annotations

import pytest
import torch
from adz_plugin_template.median import median

from adapterhub.testing import MergeRuleConformance


class TestMedian(MergeRuleConformance):
    """What every merge rule promises."""

    name = "median"


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_it_is_the_median(count):
    deltas = torch.randn(count, 6, 7, generator=torch.Generator().manual_seed(count))
    merged = median(deltas, torch.full((count,), 1 / count), None, {})
    assert torch.allclose(merged, torch.quantile(deltas, 0.5, dim=0))
