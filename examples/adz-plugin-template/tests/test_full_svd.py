"""The merge space `full-svd`."""

from __future__ import annotations

import torch

from adapterhub.testing import MergeSpaceConformance


class TestFullSvd(MergeSpaceConformance):
    """What every merge space promises."""

    name = "full-svd"
    rule = "linear"

    def test_no_smaller_rank_is_nearer(self):
        """Eckart and Young: the error is that of the singular values left out."""
        merged, full = self.call(rank=2), self.call(rank=12)
        singular = torch.linalg.svdvals(full.b.double() @ full.a.double())
        assert abs(merged.error - float(singular[2:].norm())) < 1e-4
