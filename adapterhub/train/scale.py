"""One run on several processes: by torchrun on this machine, accelerate's launcher or Ray Train.

The parent resolves the recipe and hands it over as a file; each process
(adapterhub.cli.train_worker) finds RANK and WORLD_SIZE in its environment and takes its share of
every batch. The first one commits and leaves the reference in a file, or whichever fails its
error.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import yaml

from adapterhub.errors import AdzError, usage_error
from adapterhub.protocols import Progress
from adapterhub.staging import home_staging, staging_folder
from adapterhub.train.ray_train import run_on_ray

if TYPE_CHECKING:
    from adapterhub.train.plan import Plan

RESULT = "ADZ_TRAIN_RESULT"
"""The variable that names the file for the result."""

Parallel = Literal["ddp", "zero1", "zero2", "zero3", "fsdp"]
Launcher = Literal["local", "ray"]


def rank() -> int:
    """This process's number among those of the run; 0 where there is one."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def report(values: dict[str, Any]) -> None:
    """Leave the result where the parent looks for it. An error that all processes met is the
    first one's."""
    path = Path(os.environ[RESULT])
    if rank() == 0 or not path.exists():
        path.write_text(json.dumps(values), encoding="utf-8")


def hand_over(
    plan: Plan,
    processes: int,
    parallel: Parallel,
    progress: Progress,
    *,
    resume: bool,
    launcher: Launcher = "local",
) -> str:
    """Train on `processes` processes, of this machine or of Ray's; return the reference of the
    new version, or the new base's name.

    Raises AdzError for what cannot work, and what the run itself raised.
    """
    check(plan, processes, parallel, on_gpu=_has_gpu())
    # Below ADZ_HOME, which the machines of a cluster share.
    with staging_folder(home_staging()) as folder:
        recipe, result = folder / "recipe.yaml", folder / "result.json"
        recipe.write_text(yaml.safe_dump(plan.resolved, allow_unicode=True), encoding="utf-8")
        worker = ["-m", "adapterhub.cli.train_worker", str(recipe)]
        worker += ["--resume"] if resume else []
        with _environment(processes, result):
            if launcher == "ray":
                end = run_on_ray(worker, processes, folder, progress)
            elif parallel == "ddp":
                end = _torchrun(worker, processes)
            else:
                end = _accelerate(worker, accelerate_config(parallel, processes), folder)
        with suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
            if "error" in found:
                raise AdzError(*found["error"], exit_code=found["exit_code"])
            return str(found["reference"])
    if end is None:
        raise KeyboardInterrupt
    raise AdzError(f"the processes of the run ended: {end}", "the reason is above")


def _torchrun(worker: list[str], processes: int) -> str | None:
    """What `torchrun --standalone` does, whose own command answers Ctrl-C with a traceback;
    return how it ended, None where it was interrupted."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        run_id=uuid4().hex,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    # It tells of every signal that it hands on.
    logging.disable(logging.WARNING)
    try:
        elastic_launch(config, sys.executable)(*worker)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return f"exit code {failure.exitcode}"
    except SignalException:
        return None
    finally:
        logging.disable(logging.NOTSET)
    return "without a result"


def _accelerate(worker: list[str], config: dict[str, Any], folder: Path) -> str | None:
    """`accelerate launch`; return as `_torchrun` does."""
    path = folder / "accelerate.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(path)]
    with subprocess.Popen([sys.executable, *launcher, *worker]) as process:
        try:
            return f"exit code {process.wait()}"
        except KeyboardInterrupt:
            # The terminal has told the children too; they say how to go on.
            process.wait()
            return None


@contextmanager
def _environment(processes: int, result: Path) -> Iterator[None]:
    """Within the block, that of the processes that are started."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    before = dict(os.environ)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ[RESULT] = str(result)
    if not _has_gpu():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _has_gpu() -> bool:
    import torch

    return torch.accelerator.is_available()


def check(plan: Plan, processes: int, parallel: Parallel, *, on_gpu: bool) -> None:
    """Raise AdzError for a combination that is known not to work, with the reason."""
    training, quantizer = plan.recipe.training, plan.quantizer
    if training.batch_size % processes:
        raise usage_error(
            f"a batch of {training.batch_size} rows cannot be shared among {processes} processes",
            f"make training.batch_size a multiple of {processes}",
        )
    if parallel != "ddp" and not on_gpu:
        raise usage_error(
            f"--parallel {parallel} needs GPUs", "on a CPU, --nproc alone trains with ddp"
        )
    if plan.makes_base and parallel in ("zero3", "fsdp"):
        raise usage_error(
            f"--parallel {parallel} spreads the weights, and no process could store them whole",
            "use --parallel ddp, zero1 or zero2",
        )
    if quantizer is None or parallel == "ddp":
        return
    if parallel == "fsdp":
        # huggingface/trl#6343
        raise usage_error(
            "FSDP2 cannot shard a base that is quantised",
            f"train without {quantizer.name}, or with --parallel ddp",
        )
    if parallel == "zero3":
        raise usage_error(
            f"ZeRO-3 cannot shard weights that {quantizer.name} has packed",
            "use --parallel zero2, or no quantizer",
        )


def accelerate_config(parallel: Parallel, processes: int) -> dict[str, Any]:
    """The configuration for `accelerate launch` on one machine. GPU unproven."""
    common: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "machine_rank": 0,
        "num_machines": 1,
        "num_processes": processes,
        "mixed_precision": "bf16",
    }
    if parallel == "fsdp":
        return common | {
            "distributed_type": "FSDP",
            "fsdp_config": {
                "fsdp_version": 2,
                "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
                "fsdp_reshard_after_forward": True,
                "fsdp_state_dict_type": "FULL_STATE_DICT",
                "fsdp_cpu_ram_efficient_loading": True,
            },
        }
    stage = int(parallel.removeprefix("zero"))
    return common | {
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {
            "zero_stage": stage,
            "zero3_init_flag": stage == 3,
            "zero3_save_16bit_model": stage == 3,
            "gradient_accumulation_steps": "auto",
            "offload_optimizer_device": "none",
            "offload_param_device": "none",
        },
    }
