"""Training in bfloat16 as on a GPU, here by a CPU's autocast: what is stored is what was trained,
and a pass of several adapters ends where each alone does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from adapterhub.bases.add import add_base
from adapterhub.errors import AdzError
from adapterhub.manifest import Version
from adapterhub.protocols import Registry
from adapterhub.train import profile
from adapterhub.train.new_base import train_base
from adapterhub.train.sweep import sweep


@pytest.fixture(autouse=True)
def mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = profile.choose_profile
    monkeypatch.setattr(
        "adapterhub.train.trainer.choose_profile",
        lambda plan: replace(choose(plan), autocast="bfloat16"),
    )


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_what_was_trained_is_committed(method: str, trained: Callable[..., Version]) -> None:
    metrics = trained(method=method).manifest.metrics
    assert metrics["quickened"]
    assert metrics["holdout_loss"] < metrics["holdout_loss_base"]


def test_products_are_in_bfloat16_and_weights_are_not(
    trained: Callable[..., Version], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    computed = torch.nn.functional.linear

    def linear(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        result = computed(x, *rest)
        seen.add(result.dtype)
        return result

    monkeypatch.setattr("adapterhub.train.fused.linear", linear)
    version = trained()
    assert torch.bfloat16 in seen
    stored = load_file(Path(registry.path(version)) / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}


def test_one_pass_ends_near_separate_runs(
    plan_for: Any, registry: Registry, progress: Any, trained: Callable[..., Version]
) -> None:
    rates = (1e-2, 3e-2)
    plans = [(f"lr={lr}", plan_for(name="swept", training={"lr": lr})) for lr in rates]
    members = sweep(plans, registry, progress).members
    for lr, member in zip(rates, members, strict=True):
        assert member.version is not None
        alone = trained(name="alone", training={"lr": lr}).manifest.metrics
        assert member.loss == pytest.approx(alone["holdout_loss"], rel=2e-3)


def test_a_base_of_its_own_is_what_was_trained(
    plan_for: Any, registry: Registry, progress: Any
) -> None:
    made = train_base(plan_for(method="full", training={"lr": 1e-3}), registry, progress)
    assert made.name == "double"


def test_a_layer_that_knows_one_adapter_is_not_shared_by_several(
    plan_for: Any, registry: Registry, progress: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterhub.train.speed.dense_weight", lambda layer: None)
    plans = [(f"lr={lr}", plan_for(training={"lr": lr})) for lr in (1e-2, 3e-2)]
    with pytest.raises(AdzError, match="cannot train several adapters in one pass"):
        sweep(plans, registry, progress)


@pytest.mark.parametrize("method", ["lora", "pissa"])
def test_a_base_in_bfloat16_is_no_reason_to_refuse(
    method: str,
    trained: Callable[..., Version],
    registry: Registry,
    progress: Any,
    tiny_base_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = tmp_path / "short"
    shutil.copytree(tiny_base_dir, short)
    model = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.bfloat16)
    model.save_pretrained(short)
    add_base(registry, "short", str(short), copy=False, progress=progress)
    monkeypatch.setattr("adapterhub.models.cpu_has_bf16", lambda: True)
    metrics = trained(base="short", method=method).manifest.metrics
    assert metrics["merge_difference"] < 1e-3
    assert metrics["holdout_loss"] < metrics["holdout_loss_base"]
