"""Recipes of TRL's scripts and of the alignment handbook: ModelConfig, ScriptArguments and
TrainingArguments in one file. Which trainer they are for is not in them: `--objective` says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.train.foreign.hugging_face import MOVED, READ, UNUSED
from adapterhub.train.foreign.project import (
    Context,
    Project,
    locate_data,
    read_base,
    read_dora,
    read_rslora,
)


def _dataset(value: Any, given: Mapping[str, Any], context: Context) -> dict[str, Any]:
    source = locate_data(str(value), context)
    split = given.get("dataset_train_split")
    if source.startswith("hub:") and split:
        context.notes.append(f"of several sets of rows name one: --data {source}/PATH ({split})")
    return {"data": {"train": source}}


def _split(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    return {}


def _peft(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    if not value:
        context.refuse("use_peft: false", "adapters are trained: --method lora")
    return {}


PROJECT = Project(
    "TRL",
    (frozenset({"model_name_or_path", "dataset_name"}),),
    moved={
        **MOVED,
        "max_length": "training.max_length",
        "max_seq_length": "training.max_length",
        "lora_r": "method.r",
        "beta": "objective.beta",
    },
    read={
        **READ,
        "model_name_or_path": read_base,
        "dataset_name": _dataset,
        "dataset_train_split": _split,
        "use_peft": _peft,
        "use_dora": read_dora,
        "use_rslora": read_rslora,
    },
    unused={**UNUSED, "dataset_test_split": "data.holdout says what is held out"},
)
