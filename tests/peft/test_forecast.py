"""What the forecasts tell is what PEFT does to the modules themselves."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("peft")

from adapterhub.bases.outline import read_layout
from adapterhub.plugins import load_plugins
from adapterhub.train.gates import adapted_layers
from adapterhub.train.targets import foretell_targets, report_targets

from .cases import implementation, make_base, methods, options_of

DENSE = ("llama", "qwen", "gemma", "mistral", "gpt_neox", "gpt2")
# Fused experts, and linear layers of a class of its own.
OTHERS = ("mixtral", "qwen3_moe", "falcon")
FORETOLD = ("lora", "rslora", "dora", "eva", "loftq", "adalora")
# A list of names, and a pattern, which some of the families have.
TARGETS: dict[str, tuple[Any, ...]] = {
    "llama": (["q_proj", "mlp.down_proj"], r"model\.layers\.1\..*_proj"),
    "gpt2": (["c_attn"], r".*\.mlp\.c_(fc|proj)"),
}


def foretold(base: Any, name: str, **given: Any) -> Any:
    layout = read_layout(base)
    forecast = load_plugins().load_forecast(methods()[name])
    adapted = forecast(layout, options_of(name, **given))
    return None if adapted is None else foretell_targets(layout, adapted)


def reported(base: Any, name: str, **given: Any) -> Any:
    modules = frozenset(base.modules())
    adapted = implementation(name).attach(base, options_of(name, **given), prepared=False)
    return report_targets(adapted, set(adapted_layers(adapted, modules).values()))


def test_these_methods_have_a_forecast() -> None:
    assert tuple(name for name, method in methods().items() if method.forecast) == FORETOLD


@pytest.mark.parametrize("method", FORETOLD)
@pytest.mark.parametrize("family", DENSE)
def test_a_forecast_is_what_peft_does(
    family: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of LoftQ nothing but its beginning is about the quantised base.
    monkeypatch.setattr("adapterhub_peft.residual.begin_at_residual", lambda *arguments: None)
    for targets in ("all-linear", *TARGETS.get(family, ())):
        base = make_base(family)
        base.config._name_or_path = family
        guess = foretold(base, method, targets=targets)
        assert guess == reported(base, method, targets=targets)
        assert list(guess.adapted) == sorted(guess.adapted)


@pytest.mark.parametrize(
    ("given", "parameters"),
    [
        # One layer of the tiny Llama: q 32x32, k and v 32x16, o 32x32, three of 32x64.
        ({"r": 3}, 2 * 3 * (2 * 64 + 2 * 48 + 3 * 96)),
        ({"r": 3, "targets": ["k_proj"], "use_dora": True}, 2 * (3 * 48 + 16)),
        ({"r": 3, "targets": ["k_proj"], "alpha": 5, "dropout": 0.1, "init": "gaussian"}, 288),
    ],
)
def test_the_parameters_are_those_of_the_formula(given: dict[str, Any], parameters: int) -> None:
    assert foretold(make_base("llama"), "lora", **given).parameters == parameters
    assert reported(make_base("llama"), "lora", **given).parameters == parameters


@pytest.mark.parametrize(
    "given",
    [
        {"targets": ["q_proj", "typo_proj"]},
        {"targets": "typo_proj"},
        {"targets": "("},
        {"targets": []},
        {"targets": ["lm_head"]},
        {"targets": ["embed_tokens"]},
        {"targets": ["mlp"]},
        {"init": "pissa"},
        {"init": "olora"},
        {"bias": "all"},
        {"lora_bias": True},
        {"exclude": ["q_proj"]},
        {"rank_pattern": {"q_proj": 8}},
        {"layers_to_transform": [0]},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [1]},
        {"parameters": ["q_proj.weight"]},
    ],
    ids=str,
)
def test_peft_is_asked_of_all_that_is_not_plain(given: dict[str, Any]) -> None:
    assert foretold(make_base("llama"), "lora", **given) is None


@pytest.mark.parametrize("family", OTHERS)
def test_peft_is_asked_of_layers_that_are_not_plain(family: str) -> None:
    assert foretold(make_base(family), "lora") is None
