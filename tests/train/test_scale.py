"""Two processes take the steps that one takes; what cannot work is refused with the reason."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from adapterhub.errors import AdzError
from adapterhub.protocols import Registry
from adapterhub.train import scale
from adapterhub.train.pipeline import train

PlanFor = Callable[..., Any]


def test_two_processes_end_where_one_does(
    plan_for: PlanFor,
    registry: Registry,
    progress: Any,
    adz: Any,
    tmp_path: Path,
    data_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 32 rows: every batch is whole.
    plan = plan_for(training={"max_steps": 4, "batch_size": 8, "lr": 1e-2})
    alone = train(plan, registry, progress)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(plan.resolved), encoding="utf-8")
    # A path that counts from here, in the processes too.
    monkeypatch.chdir(data_file.parent)
    result = adz("train", "-c", recipe, "--data", data_file.name, "--nproc", "2")
    assert result.code == 0, result.err
    assert "double@2" in result.out
    together = registry.resolve("double@2")
    mine, theirs = (
        load_file(registry.path(version) / "adapter_model.safetensors")
        for version in (together, alone)
    )
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, rtol=1e-2, atol=2e-4)
    ours, expected = together.manifest.metrics, alone.manifest.metrics
    assert ours["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)
    assert ours["tokens"] == expected["tokens"]
    recipes = [copy.deepcopy(version.manifest.recipe) for version in (together, alone)]
    sources = [recipe["data"].pop("train") for recipe in recipes]
    assert sources[0] == data_file.name
    assert recipes[0] == recipes[1]


def test_a_run_that_is_refused_in_its_processes_is_one_error_here(
    plan_for: PlanFor, registry: Registry
) -> None:
    plan = plan_for(training={"lr": 1e-30})
    with pytest.raises(AdzError, match="the adapter changes nothing") as caught:
        scale.hand_over(plan, 2, "ddp", resume=False)
    assert caught.value.exit_code == 3
    assert registry.versions() == []


@pytest.mark.parametrize(
    ("changes", "processes", "parallel", "on_gpu", "reason"),
    [
        ({}, 3, "ddp", False, "a batch of 4 rows cannot be shared among 3"),
        ({}, 2, "zero2", False, "needs GPUs"),
        ({"quantizer": "nf4"}, 2, "fsdp", True, "cannot shard a base that is quantised"),
        ({"quantizer": "nf4"}, 2, "zero3", True, "ZeRO-3 cannot shard"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(
    changes: Any, processes: int, parallel: Any, on_gpu: bool, reason: str, plan_for: PlanFor
) -> None:
    with pytest.raises(AdzError, match=reason):
        scale.check(plan_for(**changes), processes, parallel, on_gpu=on_gpu)


@pytest.mark.parametrize("parallel", ["zero1", "zero2", "zero3", "fsdp"])
def test_accelerate_reads_what_is_written_for_it(parallel: Any, tmp_path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    path = tmp_path / "accelerate.yaml"
    path.write_text(yaml.safe_dump(scale.accelerate_config(parallel, 4)), encoding="utf-8")
    read = load_config_from_file(str(path))
    assert read.num_processes == 4
    kind = str(read.distributed_type).rsplit(".", 1)[-1]
    assert kind == ("FSDP" if parallel == "fsdp" else "DEEPSPEED")
