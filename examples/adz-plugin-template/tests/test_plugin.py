"""Each part alone, and all of them as adapterhub finds them."""

from __future__ import annotations

import copy

import pytest
import torch
from adz_plugin_template.bitfit import BitFit
from adz_plugin_template.median import median
from adz_plugin_template.options import BitFitOptions
from adz_plugin_template.round8 import Round8, round_rows
from adz_plugin_template.word_f1 import word_f1
from transformers import AutoModelForCausalLM

from adapterhub import AdzError, specs
from adapterhub.plugins import load_plugins
from adapterhub.testing import write_tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = write_tiny_base(tmp_path_factory.mktemp("base") / "tiny")
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (specs.MergeRule, "median"),
        (specs.Method, "bitfit"),
        (specs.Quantizer, "round8"),
        (specs.Metric, "word_f1"),
    ],
)
def test_adapterhub_finds_it(kind, name):
    plugins = load_plugins()
    component = plugins.get(kind, f"adz-plugin-template:{name}")
    assert plugins.load_implementation(component) is not None


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_median_is_numpys(count):
    deltas = torch.randn(count, 6, 7, generator=torch.Generator().manual_seed(count))
    merged = median(deltas, torch.full((count,), 1 / count), None, {})
    assert torch.allclose(merged, torch.quantile(deltas, 0.5, dim=0))


def test_bitfit_trains_saves_and_loads_biases_only(base, tmp_path):
    tokens = torch.tensor([[3, 70, 80, 90]])
    with torch.no_grad():
        before = base(tokens).logits
    model = BitFit().attach(copy.deepcopy(base), BitFitOptions(), prepared=False)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.endswith(".bias") for name in trained)
    assert "lm_head.bias" not in trained
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, before)
        for parameter in trained.values():
            parameter.normal_(std=0.1)
        after = model(tokens).logits
    assert not torch.allclose(after, before)
    BitFit().save(model, tmp_path)
    with torch.no_grad():
        loaded = BitFit().load(copy.deepcopy(base), tmp_path)(tokens).logits
    assert torch.equal(loaded, after)


def test_bitfit_on_some_layers(base):
    options = BitFitOptions(targets=["v_proj"])
    model = BitFit().attach(copy.deepcopy(base), options, prepared=False)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == [f"model.layers.{i}.self_attn.v_proj.bias" for i in range(2)]


def test_bitfit_refuses_a_target_that_is_not_there(base):
    with pytest.raises(AdzError, match="'w_proj' matches no linear layer"):
        BitFit().attach(copy.deepcopy(base), BitFitOptions(targets=["w_proj"]), prepared=False)


def test_round8_is_within_half_a_step(base):
    weight = base.model.layers[0].mlp.up_proj.weight.data
    rounded = round_rows(weight)
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((rounded - weight).abs() <= step * 0.5001).all()
    assert all(len(row.unique()) <= 255 for row in rounded)
    assert torch.allclose(round_rows(rounded), rounded)


def test_round8_leaves_the_output_layer(base):
    model = Round8().prepare(copy.deepcopy(base))
    assert torch.equal(model.lm_head.weight.cpu(), base.lm_head.weight)
    assert not torch.equal(
        model.model.layers[0].mlp.up_proj.weight.cpu(), base.model.layers[0].mlp.up_proj.weight
    )


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [("a b", "b a", 1.0), ("a", "b", 0.0), ("", "", 1.0), ("a b c", "a", 0.5), ("", "a", 0.0)],
)
def test_word_f1(answer, reference, score):
    assert word_f1(answer, reference) == score
