"""The objective `smooth`."""

from __future__ import annotations

from adapterhub.testing import ObjectiveConformance
from adapterhub.testing.conformance import training


class TestSmooth(ObjectiveConformance):
    """What every objective promises."""

    name = "smooth"

    def test_smoothing_costs_likelihood(self, adz, tiny_base, tmp_path):
        """A certain answer is no longer the best one, so the loss is larger."""
        data = training.write_rows(tmp_path)
        losses = []
        for smoothing in ("0", "0.5"):
            option = ("-o", f"objective.smoothing={smoothing}")
            name = f"run-{len(losses)}"
            version = training.train_a_little(adz, data, name, *self.flags(), *option)
            losses.append(version.manifest.metrics["train_loss"])
        assert losses[0] < losses[1]
