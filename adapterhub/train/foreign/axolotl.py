"""Axolotl (docs.axolotl.ai, "Config Reference")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.train.foreign.hugging_face import READ, STEPS
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
    read_dora,
    read_rslora,
)

_FORMATS = {
    "alpaca": "alpaca", "chat_template": "messages", "sharegpt": "sharegpt", "completion": "text"
}  # fmt: skip
_OBJECTIVES = {"dpo": "dpo", "ipo": "dpo", "kto": "kto", "orpo": "orpo"}


def _adapter(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    if value == "qlora":
        return {"quantizer": {"name": "nf4"}}
    if value != "lora":
        context.refuse(f"adapter {value}", "lora and qlora are read")
    return {}


def _all_linear(value: Any, given: Mapping[str, Any], _: Context) -> dict[str, Any]:
    return {"method": {"targets": "all-linear"}} if value else {}


def _datasets(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    sources = []
    for entry in value:
        rest = {k: v for k, v in entry.items() if k not in ("path", "type") and v is not None}
        if rest:
            context.refuse(f"{', '.join(rest)} of a data set", "adz data convert writes another")
        kind = str(entry.get("type", "alpaca"))
        if kind.partition(".")[0] not in _FORMATS:
            context.refuse(f"the type {kind} of a data set", "known: " + ", ".join(_FORMATS))
        source = {"path": locate_data(str(entry["path"]), context)}
        sources.append({**source, "format": _FORMATS[kind.partition(".")[0]]})
    return {"data": {"train": sources}}


def _objective(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    if value not in _OBJECTIVES:
        context.refuse(f"rl {value}", "known: " + ", ".join(_OBJECTIVES))
    loss = {"loss": "ipo"} if value == "ipo" else {}
    return {"objective": {"name": _OBJECTIVES[value], **loss}}


def _holdout(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    if not 0 <= float(value) < 1:
        context.refuse(f"val_set_size {value}", "a share below 1 is read: -o data.holdout=0.05")
    return {"data": {"holdout": float(value)}}


def _inputs(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    if value:
        context.refuse("train_on_inputs: prompts are never learnt", "the format text learns all")
    return {}


PROJECT = Project(
    "Axolotl",
    (frozenset({"base_model", "datasets"}),),
    moved={
        **STEPS,
        "micro_batch_size": "training.batch_size",
        "num_epochs": "training.epochs",
        "lr_scheduler": "training.schedule",
        "sequence_len": "training.max_length",
        "group_by_length": "training.group_by_length",
        "lora_r": "method.r",
    },
    read={
        **READ,
        "base_model": read_base,
        "adapter": _adapter,
        "peft_use_dora": read_dora,
        "peft_use_rslora": read_rslora,
        "lora_target_linear": _all_linear,
        "datasets": _datasets,
        "rl": _objective,
        "val_set_size": _holdout,
        "train_on_inputs": _inputs,
    },
    unused={
        "bf16": HARDWARE, "fp16": HARDWARE, "tf32": HARDWARE, "float16": HARDWARE,
        "bfloat16": HARDWARE, "flash_attention": HARDWARE, "xformers_attention": HARDWARE,
        "sdp_attention": HARDWARE, "sample_packing": HARDWARE, "eval_sample_packing": HARDWARE,
        "pad_to_sequence_len": HARDWARE,
        "gradient_checkpointing_kwargs": HARDWARE,
        "optimizer": "AdamW is used",
        "model_type": "read from the base", "tokenizer_type": "read from the base",
        "special_tokens": "read from the base; padding is never the stop token",
        "output_dir": REGISTRY, "hub_model_id": REGISTRY, "saves_per_epoch": REGISTRY,
        "save_total_limit": REGISTRY, "save_safetensors": REGISTRY,
        "evals_per_epoch": "set training.eval_every",
        "dataset_prepared_path": LOADING, "wandb_*": TRACKING, "mlflow_*": TRACKING,
        "logging_steps": TRACKING, "resume_from_checkpoint": "use --resume",
        "deepspeed": STARTING, "fsdp": STARTING, "fsdp_config": STARTING, "local_rank": STARTING,
        "strict": "unknown keys are always told",
    },
)  # fmt: skip
