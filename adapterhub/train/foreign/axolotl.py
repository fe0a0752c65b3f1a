"""Axolotl (docs.axolotl.ai, "Config Reference")."""

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
    checkpointing,
    locate_data,
    read_base,
    read_dora,
    read_eight_bit,
    read_four_bit,
    read_rslora,
    read_targets,
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
        "learning_rate": "training.lr",
        "micro_batch_size": "training.batch_size",
        "gradient_accumulation_steps": "training.accumulation",
        "num_epochs": "training.epochs",
        "max_steps": "training.max_steps",
        "lr_scheduler": "training.schedule",
        "warmup_ratio": "training.warmup",
        "weight_decay": "training.weight_decay",
        "max_grad_norm": "training.clip",
        "sequence_len": "training.max_length",
        "seed": "training.seed",
        "save_steps": "training.save_every",
        "eval_steps": "training.eval_every",
        "lora_r": "method.r",
        "lora_alpha": "method.alpha",
        "lora_dropout": "method.dropout",
    },
    read={
        "base_model": read_base,
        "adapter": _adapter,
        "load_in_4bit": read_four_bit,
        "load_in_8bit": read_eight_bit,
        "peft_use_dora": read_dora,
        "peft_use_rslora": read_rslora,
        "lora_target_modules": read_targets,
        "lora_target_linear": _all_linear,
        "datasets": _datasets,
        "rl": _objective,
        "val_set_size": _holdout,
        "train_on_inputs": _inputs,
        "gradient_checkpointing": checkpointing,
    },
    unused={
        "bf16": HARDWARE, "fp16": HARDWARE, "tf32": HARDWARE, "float16": HARDWARE,
        "bfloat16": HARDWARE, "flash_attention": HARDWARE, "xformers_attention": HARDWARE,
        "sdp_attention": HARDWARE, "sample_packing": HARDWARE, "eval_sample_packing": HARDWARE,
        "pad_to_sequence_len": HARDWARE, "group_by_length": HARDWARE,
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
