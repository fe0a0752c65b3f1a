"""Every method on tiny models: it trains, is stored, and is what its descriptor says."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file

from adapterhub.config import validate
from adapterhub.errors import AdzError
from adapterhub.plugins import load_plugins
from adapterhub_peft.catalogue import LEFT_OUT, entries
from adapterhub_peft.schema import peft_types

from .cases import apart, attach, implementation, logits, make_base, methods, options_of, step

ROOT = Path(__file__).resolve().parents[2]
# Needs a quantised base: tests/train/test_quantizers.py.
NAMES = sorted(set(entries()) - {"loftq"})
ELSEWHERE = ("lora", "pissa", "adalora", "ia3", "ln_tuning", "prefix", "prompt", "oft", "vera")
CASES = [("llama", n) for n in NAMES] + [(b, n) for b in ("gpt2", "gemma", "qwen")
                                         for n in ELSEWHERE]  # fmt: skip
# PEFT's OFT and VeRA have no layer for weights that are stored transposed, or a wrong one.
REFUSED = {("gpt2", "oft")}
# They change no module of the base, or one for which there is no update to ask.
VIRTUAL = {"prefix", "prompt", "p_tuning", "adaption_prompt"}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def files(directory: Path) -> list[bytes]:
    return [(directory / n).read_bytes() for n in ("adapter_model.safetensors",
                                                   "adapter_config.json")]  # fmt: skip


@pytest.mark.parametrize(("base", "name"), [c for c in CASES if c not in REFUSED])
def test_a_method_is_what_its_descriptor_says(base: str, name: str, tmp_path: Path) -> None:
    facts, method = methods()[name], implementation(name)
    plain = logits(make_base(base))
    adapted = attach(name, make_base(base))
    frozen = {n: p.clone() for n, p in adapted.named_parameters() if not p.requires_grad}
    assert len(frozen) >= len(list(make_base(base).parameters())) or name == "ln_tuning"
    reached = step(name, adapted)
    assert any(reached.values())
    for parameter in (p for n, p in adapted.named_parameters() if n in frozen):
        assert not parameter.requires_grad
    assert all(torch.equal(frozen[n], p) for n, p in adapted.named_parameters() if n in frozen)
    trained = logits(adapted)
    assert apart(trained, plain) > 1e-6
    method.save(adapted, tmp_path / "stored")
    # Over a base that has never seen the training: what is stored is all there is to it.
    loaded = method.load(make_base(base), tmp_path / "stored").eval()
    assert apart(logits(loaded), trained) < 2e-6
    method.save(loaded, tmp_path / "again")
    assert files(tmp_path / "stored") == files(tmp_path / "again")
    assert json.loads((tmp_path / "stored" / "adapter_config.json").read_text())["peft_type"] in (
        peft_types()
    )
    check_updates(base, name, loaded, trained)
    check_merge(facts.mergeable, loaded, trained)


def check_merge(mergeable: bool, loaded: Any, trained: torch.Tensor) -> None:
    if mergeable:
        assert apart(logits(loaded.merge_and_unload()), trained) < 3e-5
        return
    # PEFT's reasons: a soft prompt has no such thing, Lily cannot, BEFT finds no bias.
    reasons = "no attribute 'merge_and_unload'|not supported for Lily|cannot merge bias"
    with pytest.raises((AttributeError, NotImplementedError, ValueError), match=reasons):
        loaded.merge_and_unload()


def check_updates(base: str, name: str, loaded: Any, trained: torch.Tensor) -> None:
    """A method that says `convertible` gives updates with which the bare base answers as the
    trained model does; the others refuse or have none."""
    if methods()[name].convertible:
        updates = implementation(name).updates(make_base(base), loaded)
        assert updates
        changed = make_base(base)
        with torch.no_grad():
            for module, update in updates.items():
                weight, delta = changed.get_submodule(module).weight, update.compute()
                weight += (delta.T if update.kind == "transposed" else delta).to(weight.dtype)
        assert apart(logits(changed), trained) < 3e-5
        return
    if name in VIRTUAL:
        assert not implementation(name).updates(make_base(base), loaded)
        return
    found = implementation(name).updates
    with pytest.raises(AdzError):
        [update.compute() for update in found(make_base(base), loaded).values()]


@pytest.mark.parametrize(("base", "name"), sorted(REFUSED))
def test_what_peft_cannot_put_on_a_base_is_one_line(base: str, name: str) -> None:
    with pytest.raises(AdzError, match="cannot be put on GPT2LMHeadModel"):
        attach(name, make_base(base))


def test_every_type_of_peft_is_a_method_or_left_out_with_a_reason() -> None:
    ours = {entry.type for entry in entries().values()}
    assert ours | set(LEFT_OUT) == {kind.value for kind in peft.PeftType}
    assert not ours & set(LEFT_OUT)
    assert set(methods()) == set(entries())


def test_a_type_that_the_catalogue_does_not_list_is_a_method_without_claims(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from adapterhub_peft import catalogue

    catalogue.entries.cache_clear()
    types = {**peft_types(), "NEWEST": peft_types()["LOHA"]}
    monkeypatch.setattr(catalogue, "peft_types", lambda: types)
    try:
        newest = catalogue.entries()["newest"]
    finally:
        catalogue.entries.cache_clear()
    assert (newest.type, dict(newest.facts)) == ("NEWEST", {})


def test_the_schema_is_what_the_installed_peft_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "build_methods.py", "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_options_need_no_torch() -> None:
    code = (
        "import sys; from adapterhub_peft import options, plugin;"
        "names = [m.name for m in plugin.adapterhub_methods()];"
        "[getattr(options, n) for n in names]; assert len(names) > 40;"
        "assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_resolved_recipe_is_accepted_again(name: str) -> None:
    options = options_of(name)
    again = (
        load_plugins().load_options(methods()[name]).model_validate(options.model_dump(mode="json"))
    )
    assert again == options
    assert again.fields() == options.fields()


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("lora", {"rr": 4}, r"unknown option method.rr \(did you mean method.r\?\)"),
        ("lora", {"lora_alpha": 4}, r"unknown option method.lora_alpha \(did you mean method.a"),
        ("prefix", {"num_virtual_tokens": 4}, r"\(did you mean method.tokens\?\)"),
        ("vera", {"target_modules": "x"}, r"\(did you mean method.targets\?\)"),
        ("vblora", {"topks": 4}, r"\(did you mean method.topk\?\)"),
        ("lora", {"r": 0}, "method.r: input should be greater than or equal to 1, got 0"),
        ("boft", {"block_size": "x"}, "method.block_size: input should be a whole number"),
        ("lora", {"init": "pissa_niter_x"}, "method.init"),
        ("eva", {"eva": {"rhoo": 1}}, "method.eva.rhoo"),
        ("trainable_tokens", {"token_indices": None}, "method.token_indices"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_told_with_the_nearest_name(
    name: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(AdzError, match=message):
        validate(load_plugins().load_options(methods()[name]), given, "method")


@pytest.mark.parametrize(
    ("name", "given", "hint"),
    [("c3a", {"block_size": 7}, "method.block_size"), ("miss", {"r": 64}, "method.r")],
)
def test_options_that_do_not_fit_the_base_are_named(
    name: str, given: dict[str, Any], hint: str
) -> None:
    with pytest.raises(AdzError, match="cannot be put on LlamaForCausalLM") as caught:
        attach(name, make_base("llama"), **given)
    assert hint in caught.value.hint


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_a_beginning_within_the_weights_is_stored_for_the_untouched_base(
    init: str, rslora: bool, tmp_path: Path
) -> None:
    name = "rslora" if rslora else "lora"
    adapted = attach(name, make_base("llama"), init=init, r=4)
    step(name, adapted)
    # Independently of how it is stored: each layer's own weight, residual and factors together.
    whole = {}
    for module, layer in adapted.get_base_model().named_modules():
        if isinstance(layer, peft.tuners.lora.Linear):
            delta = layer.get_delta_weight("default").double()
            whole[module] = layer.get_base_layer().weight.double() + delta
    implementation(name).save(adapted, tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["init_lora_weights"]) == (8, True)
    scale = config["lora_alpha"] / (8**0.5 if rslora else 8)
    base = make_base("llama")
    assert len(whole) == 14
    for module, weight in whole.items():
        a, b = (stored[f"base_model.model.{module}.lora_{x}.weight"].double() for x in "AB")
        together = base.get_submodule(module).weight.double() + scale * b @ a
        assert apart(together, weight) < 1e-6
    # PEFT alone opens it.
    theirs = peft.PeftModel.from_pretrained(make_base("llama"), tmp_path).eval()
    assert apart(logits(theirs), logits(adapted)) < 2e-6


def test_eva_begins_at_the_directions_of_the_activations() -> None:
    adapted = attach("eva", make_base("llama"))
    base, seen = make_base("llama"), []
    module = base.get_submodule("model.layers.0.self_attn.q_proj")
    module.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(0, 1).double()))
    logits(base)
    centred = seen[0] - seen[0].mean(0)
    best = torch.linalg.svd(centred).Vh[:4]
    layer = adapted.get_base_model().get_submodule("model.layers.0.self_attn.q_proj")
    found = torch.linalg.qr(layer.lora_A["default"].weight.detach().double().T).Q
    # Of what the four best directions hold, those that PEFT finds batch by batch hold nearly all.
    assert (centred @ found).norm() > 0.98 * (centred @ best.T).norm()
    assert (centred @ torch.linalg.qr(torch.randn(32, 4).double()).Q).norm() < 0.8 * (
        centred @ best.T
    ).norm()


def test_adalora_ends_at_its_target_rank() -> None:
    adapted = attach("adalora", make_base("llama"), init_r=4, target_r=2)
    step("adalora", adapted, 1)
    step("adalora", adapted, 2)
    pattern = adapted.peft_config["default"].rank_pattern
    assert sum(sum(kept) for kept in pattern.values()) == 2 * 14


def test_adalora_is_pulled_towards_orthogonal_factors() -> None:
    """As PEFT's own model adds to the loss that it is given labels for."""
    from .cases import IDS

    ours, theirs = (attach("adalora", make_base("llama")) for _ in range(2))
    theirs.train()
    theirs(input_ids=IDS, labels=IDS).loss.backward()
    ours.train()
    ours.get_base_model()(input_ids=IDS, labels=IDS).loss.backward()
    implementation("adalora").before_step(ours)
    expected = dict(theirs.named_parameters())
    for parameter, value in ours.named_parameters():
        if value.requires_grad:
            assert torch.allclose(value.grad, expected[parameter].grad, atol=1e-6), parameter
