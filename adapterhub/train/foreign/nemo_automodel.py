"""NeMo AutoModel (its `examples/llm_finetune`): nested sections, of which `_target_` names code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.train.foreign.project import (
    HARDWARE,
    LOADING,
    REGISTRY,
    STARTING,
    TRACKING,
    Context,
    Project,
    locate_data,
    read_base,
    read_targets,
)


def _accumulation(value: Any, given: Mapping[str, Any], context: Context) -> dict[str, Any]:
    local = given.get("step_scheduler.local_batch_size", 1)
    if value % local:
        context.refuse(f"global_batch_size {value}, no multiple of local_batch_size {local}")
    return {"training": {"accumulation": value // local}}


def _all_linear(value: Any, given: Mapping[str, Any], _: Context) -> dict[str, Any]:
    return {"method": {"targets": "all-linear"}} if value else {}


def _dataset(value: Any, given: Mapping[str, Any], context: Context) -> dict[str, Any]:
    maker = given.get("dataset._target_")
    if maker:
        context.notes.append(f"{maker} is not run: the rows are read as they are")
    return {"data": {"train": locate_data(str(value), context)}}


def _code(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    return {}


PROJECT = Project(
    "NeMo AutoModel",
    (frozenset({"step_scheduler", "model"}),),
    moved={
        "step_scheduler.local_batch_size": "training.batch_size",
        "step_scheduler.num_epochs": "training.epochs",
        "step_scheduler.max_steps": "training.max_steps",
        "step_scheduler.ckpt_every_steps": "training.save_every",
        "step_scheduler.val_every_steps": "training.eval_every",
        "rng.seed": "training.seed",
        "optimizer.lr": "training.lr",
        "optimizer.weight_decay": "training.weight_decay",
        "lr_scheduler.lr_decay_style": "training.schedule",
        "peft.dim": "method.r",
        "peft.alpha": "method.alpha",
        "peft.dropout": "method.dropout",
    },
    read={
        "model.pretrained_model_name_or_path": read_base,
        "step_scheduler.global_batch_size": _accumulation,
        "peft.match_all_linear": _all_linear,
        "peft.target_modules": read_targets,
        "dataset.dataset_name": _dataset,
        "dataset.path_or_dataset": _dataset,
        "dataset._target_": _code,
    },
    unused={
        "optimizer._target_": "AdamW is used", "optimizer.betas": "AdamW's own are used",
        "optimizer.eps": "AdamW's own is used",
        "lr_scheduler.min_lr": "schedules end at 0",
        "dataset.split": "name the set with --data hub:owner/name/PATH",
        "model._target_": "read from the base", "peft._target_": "LoRA is used",
        "peft.use_triton": HARDWARE, "packed_sequence.*": HARDWARE, "compile.*": HARDWARE,
        "rng.*": "the seed is used", "loss_fn.*": "the objective says it",
        "dist_env.*": STARTING, "distributed.*": STARTING, "distributed_config.*": STARTING,
        "dataloader.*": LOADING, "validation_dataloader.*": LOADING,
        "validation_dataset.*": "data.holdout says what is held out",
        "checkpoint.*": REGISTRY, "wandb.*": TRACKING,
    },
    deep=True,
)  # fmt: skip
