"""The method `lora-xs`."""

from __future__ import annotations

import pytest
import torch
from adz_lora_xs.lora_xs import LoraXs
from adz_lora_xs.lora_xs_options import LoraXsOptions

from adapterhub import AdzError
from adapterhub.models import load_base
from adapterhub.testing import MethodConformance


class TestLoraXs(MethodConformance):
    """What every method promises."""

    name = "lora-xs"


def test_r_squared_numbers_a_layer(tiny_base):
    model = LoraXs().attach(load_base(tiny_base), LoraXsOptions(r=4), prepared=False)
    trained = [p.shape for p in model.parameters() if p.requires_grad]
    assert trained == [(4, 4)] * 14


def test_the_core_stands_between_singular_vectors(tiny_base):
    """With R = 1 it adds the best approximation of rank r of the weight itself."""
    model = LoraXs().attach(load_base(tiny_base), LoraXsOptions(r=4), prepared=False)
    layer = model.model.layers[0].self_attn.q_proj
    layer.core.data = torch.eye(4)
    u, s, v = torch.linalg.svd(layer.layer.weight.double())
    best = (u[:, :4] * s[:4]) @ v[:4]
    assert torch.allclose((layer.left @ layer.right()).double(), best, atol=1e-5)


def test_a_rank_that_no_layer_has_is_refused(tiny_base):
    with pytest.raises(AdzError, match=r"method\.r: 100 is more than"):
        LoraXs().attach(load_base(tiny_base), LoraXsOptions(r=100), prepared=False)
