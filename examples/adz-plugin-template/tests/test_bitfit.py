"""The method `bitfit`."""

from __future__ import annotations

import pytest
from adz_plugin_template.bitfit import Bitfit
from adz_plugin_template.bitfit_options import BitfitOptions

from adapterhub.models import load_base
from adapterhub.testing import MethodConformance


class TestBitfit(MethodConformance):
    """What every method promises."""

    name = "bitfit"


@pytest.mark.parametrize("targets", [None, ["v_proj"]])
def test_the_trainable_are_biases(tiny_base, targets):
    options = BitfitOptions(targets=targets)
    model = Bitfit().attach(load_base(tiny_base), options, prepared=False)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all(name.endswith(".bias") for name in trained)
    assert len(trained) == (14 if targets is None else 2)
