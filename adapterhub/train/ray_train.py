"""The processes of a run as workers of Ray Train: on the cluster at RAY_ADDRESS, or this machine.

Ray places the workers and connects them (`torch.distributed`); each then does what a process of
torchrun does. All machines of a cluster see the same ADZ_HOME, base and data.
"""

from __future__ import annotations

import json
import logging
import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapterhub.errors import AdzError, usage_error
from adapterhub.protocols import Progress
from adapterhub.ray_cluster import cluster_options

# Of the driver's environment, what a worker on another machine has to know.
_PASSED = ("ADZ_HOME", "ADZ_PLUGINS", "ADZ_STRICT_PLUGINS", "ADZ_TRAIN_RESULT",
           "ACCELERATE_USE_CPU", "OMP_NUM_THREADS", "HF_HUB_OFFLINE")  # fmt: skip


def run_on_ray(worker: list[str], workers: int, storage: Path, progress: Progress) -> str | None:
    """Run `python *worker` (`-m module arguments`) as each of `workers` Ray workers.

    Return how it ended, None where it was interrupted. storage: a directory for what Ray Train
    writes, which all machines see. Raises AdzError where the cluster is too small.
    """
    import ray
    from ray import train
    from ray.train.torch import TorchTrainer

    with _cluster(ray, workers, progress):
        use_gpu = _has_gpus(ray, workers)
        trainer = TorchTrainer(
            _work,
            train_loop_config={"worker": worker, "folder": str(Path.cwd())},
            scaling_config=train.ScalingConfig(num_workers=workers, use_gpu=use_gpu),
            run_config=train.RunConfig(name="adz", storage_path=str(storage)),
        )
        try:
            trainer.fit()
        except KeyboardInterrupt:
            return None
        except train.TrainingFailedError as error:
            return f"Ray Train failed: {_last_line(error)}"
    return "without a result"


def _work(config: dict[str, Any]) -> None:
    """What a worker does; it has RANK and WORLD_SIZE in its environment and its process group."""
    logging.disable(logging.INFO)
    os.chdir(config["folder"])
    _, module, *arguments = config["worker"]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__")
    # The process stays: without an error the others would wait for it until they time out.
    result = Path(os.environ["ADZ_TRAIN_RESULT"])
    if result.exists() and "error" in json.loads(result.read_text(encoding="utf-8")):
        raise RuntimeError("refused")


@contextmanager
def _cluster(ray: Any, workers: int, progress: Progress) -> Iterator[None]:
    """Connected to Ray within the block; one that was started here ends with it."""
    variables = {name: os.environ[name] for name in _PASSED if name in os.environ}
    options = cluster_options(workers, progress)
    options |= {"runtime_env": {"env_vars": variables}}
    try:
        ray.init(logging_level="error", **options)
    except (RuntimeError, ConnectionError, ValueError) as error:
        raise AdzError(f"Ray did not start: {_last_line(error)}", "see 'ray status'") from error
    try:
        yield
    finally:
        ray.shutdown()


def _has_gpus(ray: Any, workers: int) -> bool:
    """Whether each worker gets a GPU. A cluster that is too small would let them wait for ever."""
    have = ray.cluster_resources()
    if have.get("GPU", 0) >= workers:
        return True
    if have.get("CPU", 0) < workers:
        raise usage_error(
            f"Ray has {have.get('CPU', 0):.0f} CPUs for {workers} workers", "give fewer to --ray"
        )
    return False


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:400]
