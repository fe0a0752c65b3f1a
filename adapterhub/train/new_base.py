"""What a method that trains the base itself leaves: a new base with its derivation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from adapterhub import protocols
from adapterhub.bases.add import add_made_base
from adapterhub.bases.digests import copy_companions, read_config
from adapterhub.bases.identity import derivation_from
from adapterhub.manifest import BaseRecord
from adapterhub.plugins import load_plugins
from adapterhub.staging import home_staging, staging_folder
from adapterhub.train import gates
from adapterhub.train.pipeline import Ground, carry_out, holdout_loss, method_of
from adapterhub.train.plan import Plan
from adapterhub.train.result import made_with, write_artifacts
from adapterhub.train.run import Run

KIND = "fine-tuned"
"""The `kind` of the derivation."""
TRAINING = "training"
"""The folder in the base's directory that holds its metrics, curve and recipe."""

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def train_base(
    plan: Plan,
    registry: protocols.Registry,
    progress: protocols.Progress,
    *,
    resume: bool = False,
) -> BaseRecord:
    """Train the base of `plan` and record the result as a base of its own.

    The original stays as it is. The new one has its dtype. Raises AdzError when a gate refuses;
    nothing is recorded then.
    """

    def end(run: Run, ground: Ground) -> BaseRecord:
        return _finish(run, ground, registry, progress)

    return carry_out(plan, progress, end, resume=resume)


def _finish(
    run: Run, ground: Ground, registry: protocols.Registry, progress: protocols.Progress
) -> BaseRecord:
    with staging_folder(home_staging()) as folder:
        made = folder / "base"
        _write(run, made)
        if "holdout_loss_base" in run.facts:
            run.facts["holdout_loss"] = holdout_loss(run, run.model)
        trained = gates.probe(run.model, run.train_rows, run.collate)
        gates.check_effect(ground.logits, trained)
        stored: Any = method_of(run.plan).load(ground.base, made)
        gates.check_reload(trained, gates.probe(stored, run.train_rows, run.collate))
        load_plugins().call_event("adapterhub_after_train", run=run, result=run.facts)
        (made / TRAINING).mkdir()
        write_artifacts(run, made / TRAINING)
        return add_made_base(registry, run.plan.name, made, _derivation(run), progress)


def _write(run: Run, directory: Path) -> None:
    """Store the model in the base's dtype, and leave it with the numbers that were stored."""
    dtype = _DTYPES.get(run.base.dtype, torch.float32)
    for parameter in run.model.parameters():
        parameter.data = parameter.data.to(dtype)
    method_of(run.plan).save(run.model, directory)
    for parameter in run.model.parameters():
        parameter.data = parameter.data.float()
    source = Path(run.base.path)
    copy_companions(source, directory)
    # The configuration of the model in memory says how it was trained here.
    config = read_config(source) | {"dtype": str(dtype).removeprefix("torch.")}
    config.pop("torch_dtype", None)
    text = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    (directory / "config.json").write_text(text, encoding="utf-8")


def _derivation(run: Run) -> dict[str, Any]:
    plan = run.plan
    return derivation_from(plan.base, KIND) | {
        "method": plan.recipe.method.name,
        "objective": plan.recipe.objective.name,
        "prompt_format": plan.prompt_format,
        "recipe": plan.resolved,
        "data": [data.record() for data in plan.files],
        "metrics": run.facts,
        "environment": made_with(plan),
    }
