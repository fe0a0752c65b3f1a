"""LLaMA-Factory (its `examples/train_lora`); data sets are looked up in `dataset_info.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adapterhub.train.foreign.hugging_face import MOVED, UNUSED
from adapterhub.train.foreign.project import (
    Context,
    Project,
    checkpointing,
    read_base,
    read_dora,
    read_rslora,
    read_targets,
)

_STAGES = {"pt": "sft", "sft": "sft", "dpo": "dpo", "kto": "kto", "rm": "reward", "ppo": "ppo"}
_QUANTIZERS = {4: "nf4", 8: "int8"}
_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output",
            "system": "system", "history": "history", "messages": "conversations",
            "tools": "tools", "chosen": "chosen", "rejected": "rejected"}  # fmt: skip


def _stage(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    if value not in _STAGES:
        context.refuse(f"stage {value}", "known: " + ", ".join(_STAGES))
    return {"objective": {"name": _STAGES[value]}}


def _type(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    if value != "lora":
        context.refuse(f"finetuning_type {value}", "lora is read")
    return {}


def _quantization(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    if value not in _QUANTIZERS:
        context.refuse(f"quantization_bit {value}", "4 and 8 are read")
    return {"quantizer": {"name": _QUANTIZERS[value]}}


def _datasets(value: Any, given: Mapping[str, Any], context: Context) -> dict[str, Any]:
    directory = context.folder / str(given.get("dataset_dir", "data"))
    names = value.split(",") if isinstance(value, str) else list(value)
    info = directory / "dataset_info.json"
    if not info.is_file():
        context.notes.append(f"dataset {value}: there is no {info}, name the data with --data")
        return {}
    known = json.loads(info.read_text(encoding="utf-8"))
    sources = []
    for name in (name.strip() for name in names):
        entry = known.get(name)
        if entry is None:
            context.refuse(f"the dataset {name}, which {info} does not have")
        sources.append(_source(name, entry, str(directory), context))
    return {"data": {"train": sources}}


def _source(name: str, entry: dict[str, Any], directory: str, context: Context) -> dict[str, Any]:
    taken = {"file_name", "hf_hub_url", "formatting", "columns", "ranking"}
    rest = [key for key in entry if key not in taken]
    if rest:
        context.refuse(f"{', '.join(rest)} of the dataset {name}")
    path = f"{directory}/{entry['file_name']}" if "file_name" in entry else None
    source: dict[str, Any] = {"path": path or f"hub:{entry['hf_hub_url']}"}
    if not entry.get("ranking"):
        source["format"] = entry.get("formatting", "alpaca")
    columns = {_COLUMNS[ours]: theirs for ours, theirs in entry.get("columns", {}).items()}
    renamed = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    return {**source, "columns": renamed} if renamed else source


def _directory(value: Any, given: Mapping[str, Any], context: Context) -> dict[str, Any]:
    return {}


def _holdout(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    if not 0 <= float(value) < 1:
        context.refuse(f"val_size {value}", "a share below 1 is read: -o data.holdout=0.05")
    return {"data": {"holdout": float(value)}}


PROJECT = Project(
    "LLaMA-Factory",
    (frozenset({"model_name_or_path", "stage"}),
     frozenset({"model_name_or_path", "finetuning_type"})),
    moved={
        **MOVED,
        "cutoff_len": "training.max_length",
        "lora_rank": "method.r",
        "pref_beta": "objective.beta",
    },
    read={
        "model_name_or_path": read_base,
        "stage": _stage,
        "finetuning_type": _type,
        "lora_target": read_targets,
        "quantization_bit": _quantization,
        "use_dora": read_dora,
        "use_rslora": read_rslora,
        "dataset": _datasets,
        "dataset_dir": _directory,
        "val_size": _holdout,
        "gradient_checkpointing": checkpointing,
    },
    unused={
        **UNUSED,
        "template": "the base's own chat template is used",
        "quantization_method": "bitsandbytes is used",
    },
)  # fmt: skip
