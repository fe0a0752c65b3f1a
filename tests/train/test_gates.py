"""Each gate refuses the run that it is there for, and lets a sound one pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from adapterhub import specs
from adapterhub.errors import EXIT_USAGE, EXIT_VERIFICATION, AdzError
from adapterhub.plugins import load_plugins
from adapterhub.train import gates
from adapterhub.train.batches import Collator
from adapterhub.train.memory import dense_weight
from adapterhub.train.row_gates import check_rows
from adapterhub.train.rows import Row, Rows
from adapterhub.train.targets import report_targets

STOP, PAD = 3, 0
SOUND = Rows([Row((5, 6, 7, STOP), 2), Row((8, 9, STOP), 1)])


def adapted(tiny_base_dir: Path) -> Any:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir)
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(base, config)


def reached(model: Any) -> gates.Reached:
    return gates.check_gradients(model, gates.adapted_layers(model, ()), Collator(PAD)(SOUND.rows))


def refused(message: str) -> Any:
    return pytest.raises(AdzError, match=message)


def test_sound_rows_pass() -> None:
    check_rows(SOUND, STOP, PAD)


def test_a_row_that_does_not_stop_is_refused() -> None:
    with refused("row 2 does not end with the stop token") as caught:
        check_rows(Rows([SOUND[0], Row((8, 9, 7), 1)]), STOP, PAD)
    assert caught.value.exit_code == EXIT_VERIFICATION


def test_a_row_whose_stop_is_not_scored_is_refused() -> None:
    with refused("row 1 has no token that is scored"):
        check_rows(Rows([Row((8, 9, STOP), 3)]), STOP, PAD)


def test_padding_that_is_the_stop_token_is_refused() -> None:
    with refused("the padding token is the stop token"):
        check_rows(SOUND, STOP, STOP)


def test_the_gradient_reaches_every_layer_and_nothing_is_left_behind(tiny_base_dir: Path) -> None:
    model = adapted(tiny_base_dir)
    state = torch.get_rng_state()
    found = reached(model)
    assert (len(found.layers), found.unused) == (14, False)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


def test_a_layer_that_only_a_later_row_reaches_is_reached(tiny_base_dir: Path) -> None:
    # As an expert of a mixture is: no token of the first row goes through it.
    model = adapted(tiny_base_dir)
    layer = model.base_model.model.model.layers[1].mlp.up_proj
    rows: list[int] = []

    def not_for_the_first(module: Any, given: Any, output: torch.Tensor) -> torch.Tensor:
        rows.append(len(output))
        return output * (len(rows) > 1)

    layer.register_forward_hook(not_for_the_first)
    assert len(reached(model).layers) == 14
    assert rows == [1, 1]


def test_a_base_that_was_changed_is_refused() -> None:
    one = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    gates.check_base(one, one.clone())
    with refused("the base was changed"):
        gates.check_base(one, one + 1e-3)


def test_a_layer_that_does_not_learn_is_named(tiny_base_dir: Path) -> None:
    model = adapted(tiny_base_dir)
    dead = model.base_model.model.model.layers[1].mlp.up_proj
    with torch.no_grad():
        # B is zero at the start: without A no gradient reaches either.
        dead.lora_A["default"].weight.zero_()
    with refused(r"no gradient reaches .*layers\.1\.mlp\.up_proj") as caught:
        reached(model)
    assert "1 of 14" in caught.value.hint


class Buffered(torch.nn.Linear):
    """A quantised layer without a parameter."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = None
        self.register_buffer("codes", layer.weight.detach().half())

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        return self.codes.float()


def test_layers_that_hold_their_weight_in_buffers_are_found(tiny_base_dir: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir).requires_grad_(False)
    for name, layer in list(base.model.named_modules()):
        if isinstance(layer, torch.nn.Linear):
            base.model.set_submodule(name, Buffered(layer))
    plain = adapted(tiny_base_dir)
    wanted = set(gates.adapted_layers(plain, ()).values())
    modules = set(base.modules())
    plugins = load_plugins()
    lora = plugins.get(specs.Method, "lora")
    options = plugins.load_options(lora)(targets=["q_proj", "up_proj"])
    model = plugins.load_implementation(lora)().attach(base, options, prepared=True)
    layers = gates.adapted_layers(model, modules)
    assert set(layers.values()) == {n for n in wanted if n.endswith(("q_proj", "up_proj"))}
    assert gates.check_gradients(model, layers, Collator(PAD)(SOUND.rows)).layers == set(
        layers.values()
    )
    report = report_targets(model, set(layers.values()))
    assert report.adapted == {"q_proj": 2, "up_proj": 2}
    assert report.frozen["k_proj"] == report.frozen["down_proj"] == 2
    assert dense_weight(Buffered(torch.nn.Linear(2, 2, bias=False))) is None


def test_a_model_in_which_nothing_trains_is_refused(tiny_base_dir: Path) -> None:
    model = adapted(tiny_base_dir)
    head = model.get_output_embeddings()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    probe = torch.nn.Parameter(torch.zeros(()))
    head.register_forward_hook(lambda module, given, out: out + probe)
    with refused("nothing is trainable"):
        reached(model)


def test_a_loss_that_is_no_number_is_refused(tiny_base_dir: Path) -> None:
    model = adapted(tiny_base_dir)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(torch.nan)
    with refused("the first loss is nan"):
        reached(model)


def test_effect_reload_and_merge() -> None:
    one = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    gates.check_effect(one, one + 1e-3)
    gates.check_reload(one, one.clone())
    assert gates.check_merge(one, one + 1e-5) < 1e-4
    with refused("the adapter changes nothing"):
        gates.check_effect(one, one.clone())
    with refused("not finite"):
        gates.check_effect(one, one * torch.nan)
    with refused("the stored adapter differs"):
        gates.check_reload(one, one + 0.01)
    with refused("the stored adapter differs"):
        gates.check_reload(one, one * torch.nan)
    with refused("merged into the base"):
        gates.check_merge(one, one + 0.1)


@pytest.mark.parametrize(
    ("targets", "message", "hint"),
    [
        (["q_proj", "qq_proj"], "'qq_proj' matches no module", "did you mean q_proj"),
        ([".*q_proj"], "matches no module", "q_proj"),
        (".*typo", "'.*typo' matches no module of LlamaForCausalLM", "there are"),
        ("(", "no regular expression", ""),
        ([], "an empty list", "all-linear"),
    ],
)
def test_a_target_that_matches_nothing_is_an_error_with_the_nearest(
    targets: Any, message: str, hint: str, plan_for: Callable[..., Any], registry: Any,
    progress: Any,
) -> None:  # fmt: skip
    from adapterhub.train.pipeline import train

    with pytest.raises(AdzError) as caught:
        train(plan_for(method={"name": "lora", "targets": targets}), registry, progress)
    assert message in caught.value.message
    assert "method.targets" in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == EXIT_USAGE
    assert registry.versions() == []


@pytest.mark.parametrize(
    ("targets", "modules"),
    [(["q_proj", "layers.1.mlp.up_proj"], 3), (r".*\.1\.self_attn\.[qk]_proj", 2)],
)
def test_targets_by_name_and_by_expression(
    targets: Any, modules: int, trained: Callable[..., Any]
) -> None:
    version = trained(method={"name": "lora", "targets": targets})
    assert version.manifest.adapter["modules"] == modules
