"""Every method over every quantizer: it trains over the held base, or is refused with a reason."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapterhub import specs
from adapterhub.errors import AdzError
from adapterhub.plugins import load_plugins
from adapterhub.train.plan import _check_pair
from adapterhub_peft.catalogue import entries

from .cases import apart, batch, implementation, logits, make_base, methods, options_of, step

ON_CPU = ("nf4", "fp4", "int8")
QUANTIZERS = (*ON_CPU, "torchao", "hqq", "gptq", "awq")
PAIRS = [(m, q) for m in entries() for q in QUANTIZERS]
TRAINED = [(m, q) for m, q in PAIRS if q in entries()[m].quantizers and q in ON_CPU]
# They change what the base says from the start, over plain floats too.
MOVED = {"loftq", "prefix", "prompt", "p_tuning", "c3a", "fourierft", "vblora"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    make_base("llama").save_pretrained(folder)
    return folder


def held(quantizer: str, directory: Path) -> Any:
    plugins = load_plugins()
    component = plugins.get(specs.Quantizer, quantizer)
    made = plugins.load_implementation(component)()
    arguments = made.load_arguments(plugins.load_options(component)())
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **arguments)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return made.prepare(model)


@pytest.mark.parametrize(("name", "quantizer"), TRAINED)
def test_a_pair_trains_over_the_held_base(
    name: str, quantizer: str, directory: Path, tmp_path: Path
) -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(1)
    method, base = implementation(name), held(quantizer, directory)
    plain = logits(base)
    adapted = method.attach(base, options_of(name), prepared=True)
    if hasattr(method, "calibrate"):
        method.calibrate(adapted, [batch()])
    if hasattr(method, "begin"):
        method.begin(adapted, 2)
    adapted.eval()
    if name not in MOVED:
        # One that took packed weights for numbers would be far off.
        assert apart(logits(adapted), plain) < 2e-2
    frozen = {n: p.data.clone() for n, p in adapted.named_parameters() if not p.requires_grad}
    assert any(step(name, adapted).values())
    assert all(torch.equal(frozen[n], p) for n, p in adapted.named_parameters() if n in frozen)
    trained = logits(adapted)
    assert apart(trained, plain) > 1e-6
    method.save(adapted, tmp_path)
    loaded = method.load(held(quantizer, directory), tmp_path).eval()
    assert apart(logits(loaded), trained) < 2e-6


def test_loftq_begins_nearer_to_the_plain_base(directory: Path) -> None:
    warnings.simplefilter("ignore")
    plain, base = logits(make_base("llama")), held("nf4", directory)
    lost = apart(logits(base), plain)
    adapted = implementation("loftq").attach(base, options_of("loftq", r=16), prepared=True).eval()
    assert apart(logits(adapted), plain) < 0.7 * lost


@pytest.mark.parametrize("name", entries())
def test_every_other_pair_is_refused_with_the_reason(name: str) -> None:
    quantizers = load_plugins().components(specs.Quantizer)
    assert set(QUANTIZERS) == set(quantizers)
    for quantizer in quantizers.values():
        if quantizer.name in entries()[name].quantizers:
            _check_pair(methods()[name], quantizer)
            continue
        with pytest.raises(AdzError, match=f"{name} does not work over {quantizer.name}: ...."):
            _check_pair(methods()[name], quantizer)


def test_loftq_without_a_quantizer_is_refused() -> None:
    with pytest.raises(AdzError, match="needs a base that is held quantised") as caught:
        _check_pair(methods()["loftq"], None)
    assert "nf4, fp4" in caught.value.hint


@pytest.mark.parametrize("quantizer", ["hqq", "gptq", "awq"])
def test_what_needs_a_gpu_says_so_on_a_cpu(quantizer: str) -> None:
    from adapterhub_quantize import others

    made = getattr(others, quantizer.capitalize())()
    options = load_plugins().load_options(load_plugins().get(specs.Quantizer, quantizer))()
    with pytest.raises(AdzError, match=f"{quantizer} needs a GPU"):
        made.load_arguments(options)


@pytest.mark.parametrize("quantizer", ["gptq", "awq"])
def test_the_configuration_is_built_as_transformers_takes_it(
    quantizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterhub_quantize import others

    monkeypatch.setattr(others, "_need_gpu", lambda what: None)
    component = load_plugins().get(specs.Quantizer, quantizer)
    assert component.status == "gpu-unproven"
    options = load_plugins().load_options(component)()
    config = getattr(others, quantizer.capitalize())().load_arguments(options)
    assert config["quantization_config"].quant_method == quantizer
