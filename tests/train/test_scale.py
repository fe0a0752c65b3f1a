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


@pytest.mark.parametrize(
    "processes", [("--nproc", "2"), pytest.param(("--ray", "2"), marks=pytest.mark.ray)]
)
def test_two_processes_end_where_one_does(
    processes: tuple[str, str],
    plan_for: PlanFor,
    registry: Registry,
    progress: Any,
    adz: Any,
    tmp_path: Path,
    data_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # 32 rows: every batch is whole.
    plan = plan_for(training={"max_steps": 4, "batch_size": 8, "lr": 1e-2})
    alone = train(plan, registry, progress)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(plan.resolved), encoding="utf-8")
    # A path that counts from here, in the processes too.
    monkeypatch.chdir(data_file.parent)
    result = adz("train", "-c", recipe, "--data", data_file.name, *processes)
    assert result.code == 0, result.err
    assert "double@2" in result.out
    told = capfd.readouterr()
    if "--nproc" in processes:
        assert "2 processes" in told.err
        assert "find_unused_parameters" not in told.err
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
    plan_for: PlanFor, registry: Registry, progress: Any
) -> None:
    plan = plan_for(training={"lr": 1e-30})
    with pytest.raises(AdzError, match="the adapter changes nothing") as caught:
        scale.hand_over(plan, 2, "ddp", progress, resume=False)
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
def test_accelerate_makes_of_the_configuration_what_was_meant(
    parallel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as its launcher goes without a GPU: the environment of the processes, and the plugin
    that each of them builds from it."""
    from accelerate import DeepSpeedPlugin, FullyShardedDataParallelPlugin
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    path = tmp_path / "accelerate.yaml"
    path.write_text(yaml.safe_dump(scale.accelerate_config(parallel, 4)), encoding="utf-8")
    given = launch_command_parser().parse_args(["--config_file", str(path), "worker.py"])
    arguments, defaults, _ = _validate_launch_command(given)
    assert arguments.num_processes == 4
    assert arguments.use_fsdp == (parallel == "fsdp")
    if parallel == "fsdp":
        environment = prepare_multi_gpu_env(arguments)
    else:
        # As its launch command does.
        given.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        _, environment = prepare_deepspeed_cmd_env(arguments)
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if parallel == "fsdp":
        sharding = FullyShardedDataParallelPlugin()
        assert sharding.fsdp_version == 2
        assert sharding.reshard_after_forward is True
        assert sharding.cpu_ram_efficient_loading is True
        assert sharding.state_dict_type.name == "FULL_STATE_DICT"
        assert sharding.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
        return
    zero = DeepSpeedPlugin()
    stage = int(parallel.removeprefix("zero"))
    config = zero.deepspeed_config["zero_optimization"]
    assert (zero.zero_stage, config["stage"]) == (stage, stage)
    assert config["offload_optimizer"]["device"] == config["offload_param"]["device"] == "none"
    assert config["stage3_gather_16bit_weights_on_model_save"] == (stage == 3)
    assert zero.zero3_init_flag == (stage == 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ray", "2", "--nproc", "2"), "--ray and --nproc exclude each other"),
        (("--ray", "2", "--parallel", "zero2"), "--ray trains with ddp, not zero2"),
        (("--ray", "2", "--sweep", "r=2,4"), "a sweep has no --ray"),
        (("--parallel", "zero2"), "--parallel zero2 shares among processes"),
    ],
)
def test_options_that_exclude_each_other(
    arguments: tuple[str, ...], message: str, adz: Any, registry: Registry, data_file: Path
) -> None:
    result = adz("train", "--data", data_file, *arguments)
    assert result.code == 2
    assert message in result.err
