"""Every method over every quantizer: it trains, and the quantised base stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from adapterhub.cli.train_report import describe
from adapterhub.errors import EXIT_USAGE, AdzError
from adapterhub.manifest import Version
from adapterhub.protocols import Registry
from adapterhub.train import pipeline
from adapterhub.train.pipeline import train
from adapterhub.train.rows import rows_of
from adapterhub_quantize.options import FourBitOptions
from adapterhub_quantize.quantizers import Fp4, Nf4

METHODS = ("lora", "rslora", "dora", "ia3", "prefix", "prompt")
LAYERS = {"nf4": "Linear4bit", "int8": "Linear8bitLt"}


@pytest.mark.parametrize(
    ("method", "quantizer"), [(m, q) for m in METHODS for q in LAYERS if (m, q) != ("dora", "int8")]
)
def test_each_pair_trains_over_a_base_that_is_really_quantised(
    method: str,
    quantizer: str,
    plan_for: Callable[..., Any],
    registry: Registry,
    progress: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs: list[Any] = []
    kept = pipeline.commit_run
    monkeypatch.setattr(
        pipeline, "commit_run", lambda run, *rest: runs.append(run) or kept(run, *rest)
    )
    plan = plan_for(
        method={"name": method}, quantizer={"name": quantizer}, training={"max_steps": 6}
    )
    version = train(plan, registry, progress)
    metrics = version.manifest.metrics
    assert version.manifest.quantizer == quantizer
    assert metrics["holdout_loss"] < metrics["holdout_loss_base"]
    kinds = [type(module).__name__ for module in runs[0].model.modules()]
    # Seven linear layers in each of two blocks; the output layer is never quantised.
    held = sum(LAYERS[quantizer] in {c.__name__ for c in type(m).__mro__}
               for m in runs[0].model.modules() if not hasattr(m, "base_layer"))  # fmt: skip
    assert held == 14, kinds
    for parameter in runs[0].model.parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32


@pytest.mark.parametrize("kind", [Nf4, Fp4])
def test_four_bits_compute_in_what_the_hardware_is_fast_in(
    kind: type[Nf4], monkeypatch: pytest.MonkeyPatch
) -> None:
    for fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("adapterhub_quantize.quantizers.cpu_has_bf16", lambda fast=fast: fast)
        config = kind().load_arguments(FourBitOptions())["quantization_config"]
        assert config.bnb_4bit_compute_dtype == dtype


def test_a_quantised_base_answers_nearly_as_the_plain_one(
    trained: Callable[..., Version],
) -> None:
    plain = trained().manifest.metrics["holdout_loss_base"]
    for quantizer in LAYERS:
        metrics = trained(quantizer={"name": quantizer}).manifest.metrics
        assert metrics["holdout_loss_base"] == pytest.approx(plain, rel=0.02)
        assert metrics["holdout_loss_base"] != plain
        assert "merge_difference" not in metrics


def test_a_pair_that_the_libraries_cannot_do_is_refused_with_the_reason(
    plan_for: Callable[..., Any],
) -> None:
    with pytest.raises(AdzError, match="dora does not work over int8: PEFT and bits") as caught:
        plan_for(method={"name": "dora"}, quantizer={"name": "int8"})
    assert caught.value.exit_code == EXIT_USAGE
    assert "nf4" in caught.value.hint


def test_a_pair_with_a_strangers_quantizer_is_refused_for_its_own_reason(
    plan_for: Callable[..., Any], with_plugin: Callable[..., str]
) -> None:
    with_plugin(Path(__file__).parents[2] / "examples" / "adz-plugin-template")
    assert plan_for(method={"name": "lora"}, quantizer={"name": "round8"}).quantizer
    with pytest.raises(AdzError, match="nobody has tried dora over round8") as caught:
        plan_for(method={"name": "dora"}, quantizer={"name": "round8"})
    assert "specs.Quantizer.methods" in caught.value.hint
    with pytest.raises(AdzError, match="pissa does not work over round8"):
        plan_for(method={"name": "pissa"}, quantizer={"name": "round8"})


@pytest.mark.parametrize(("double", "shown"), [(True, ""), (False, " (double_quant=false)")])
def test_show_names_the_options_that_are_no_defaults(
    double: bool, shown: str, trained: Callable[..., Version], adz: Any
) -> None:
    version = trained(quantizer={"name": "nf4", "double_quant": double})
    text = adz("show", version.manifest.name).out
    assert f"lora over nf4{shown}\n" in text.replace(" \n", "\n")


def test_the_libraries_still_cannot_do_it(tiny_base_dir: Path) -> None:
    """When this fails, PEFT or bitsandbytes was mended: let dora work over int8."""
    config = BitsAndBytesConfig(load_in_8bit=True)
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir, quantization_config=config)
    model = get_peft_model(base, LoraConfig(use_dora=True, task_type="CAUSAL_LM"))
    ids = torch.tensor([[5, 6, 7]])
    model.train()(input_ids=ids).logits.sum().backward()
    with pytest.raises(AttributeError, match="NoneType"):
        model.eval()(input_ids=ids)


def test_the_loss_over_the_base_that_serves_is_measured_too(
    plan_for: Callable[..., Any],
    registry: Registry,
    progress: Any,
    tiny_base_dir: Path,
) -> None:
    plan = plan_for(quantizer={"name": "nf4"}, training={"max_steps": 6})
    _, holdout = rows_of(plan)
    version = train(plan, registry, progress)
    metrics = version.manifest.metrics
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
    served = PeftModel.from_pretrained(base, registry.path(version)).eval()
    total, count = 0.0, 0
    for row in holdout:
        ids, labels = torch.tensor([row.ids]), torch.tensor([row.labels])
        with torch.no_grad():
            scores = served(input_ids=ids).logits[0, :-1].log_softmax(-1)
        scored = labels[0, 1:] != -100
        total -= scores[scored].gather(1, labels[0, 1:][scored, None]).sum().item()
        count += int(scored.sum())
    assert metrics["holdout_loss_served"] == pytest.approx(total / count, abs=1e-5)
    assert metrics["holdout_loss_served"] != metrics["holdout_loss"]
    assert f"as it is served {total / count:.3f}" in describe(metrics)
