"""Every method over every quantizer: it trains over the held base, or is refused with a reason."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapterhub import specs
from adapterhub.bases.quantise import check_makes
from adapterhub.errors import AdzError
from adapterhub.plugins import load_plugins
from adapterhub.train.pairs import check_pair
from adapterhub_peft.catalogue import entries

from .cases import apart, batch, implementation, logits, make_base, methods, options_of, step

LIBRARY = {"nf4": "bitsandbytes", "fp4": "bitsandbytes", "int8": "bitsandbytes",
           "torchao": "torchao", "hqq": "hqq"}  # fmt: skip
"""Those that run on a CPU."""
QUANTIZERS = (*LIBRARY, "gptq", "awq")
EXTRAS = ("torchao", "hqq")
PAIRS = [(m, q) for m in entries() for q in QUANTIZERS]
TRAINED = [
    pytest.param(m, q, marks=pytest.mark.extras if q in EXTRAS else ())
    for m, q in PAIRS if q in entries()[m].quantizers and q in LIBRARY
]  # fmt: skip
# They change what the base says from the start, over plain floats too.
MOVED = {"loftq", "prefix", "prompt", "p_tuning", "c3a", "fourierft", "vblora"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    make_base("llama").save_pretrained(folder)
    return folder


def held(quantizer: str, directory: Path, **options: Any) -> Any:
    # transformers imports both whenever they are there, at the cost of seconds for every process.
    pytest.importorskip(LIBRARY[quantizer])
    plugins = load_plugins()
    component = plugins.get(specs.Quantizer, quantizer)
    made = plugins.load_implementation(component)()
    if quantizer == "hqq":
        options = {"group_size": 32} | options
    arguments = made.load_arguments(plugins.load_options(component)(**options))
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **arguments)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return made.prepare(model)


def _floats(parameter: torch.Tensor) -> torch.Tensor:
    """A copy; torchao's tensors know no comparison."""
    packed = type(parameter).__module__.startswith("torchao.")
    return parameter.dequantize() if packed else parameter.data.clone()


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
    frozen = {n: _floats(p) for n, p in adapted.named_parameters() if not p.requires_grad}
    assert any(step(name, adapted).values())
    left = ((n, p) for n, p in adapted.named_parameters() if n in frozen)
    assert all(torch.equal(frozen[n], _floats(p)) for n, p in left)
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
            check_pair(methods()[name], quantizer)
            continue
        with pytest.raises(AdzError, match=f"{name} does not work over {quantizer.name}: ...."):
            check_pair(methods()[name], quantizer)


def test_loftq_without_a_quantizer_is_refused() -> None:
    with pytest.raises(AdzError, match="needs a base that is held quantised") as caught:
        check_pair(methods()["loftq"], None)
    assert "nf4, fp4" in caught.value.hint


@pytest.mark.parametrize("quantizer", ["gptq", "awq"])
def test_what_needs_data_quantises_nothing(quantizer: str) -> None:
    component = load_plugins().get(specs.Quantizer, quantizer)
    assert component.status == "gpu-unproven"
    with pytest.raises(AdzError, match=f"{quantizer} quantises with data") as caught:
        check_makes(component)
    assert "train over it without --quantizer" in caught.value.hint


@pytest.mark.extras
def test_hqq_refuses_a_group_that_divides_no_layer(directory: Path) -> None:
    pytest.importorskip("hqq")
    with pytest.raises(AdzError, match="group_size=72 does not divide the 32 x 32 weights of"):
        held("hqq", directory, group_size=72)
