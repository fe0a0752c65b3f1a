"""A prepared run: what events and objectives get."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from adapterhub.manifest import BaseRecord
from adapterhub.moments import MeasuredMoments
from adapterhub.train.batches import Batch, Collator
from adapterhub.train.plan import Plan
from adapterhub.train.recipe import TrainRecipe
from adapterhub.train.rows import Rows


@dataclass(slots=True)
class Run:
    """A prepared run, as events and objectives get it.

    `model` has the adapter attached, to the modules named in `layers`; `steps` are optimizer
    steps; `directory` holds the checkpoints; `unused_parameters` says that some trainable ones
    took no part in the first loss.
    `facts` collects what the manifest keeps under `metrics`.
    """

    plan: Plan
    model: Any
    train_rows: Rows
    holdout_rows: Rows
    collate: Collator
    directory: Path
    device: torch.device
    steps: int
    layers: frozenset[str] = frozenset()
    unused_parameters: bool = True
    facts: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    moments: MeasuredMoments | None = None

    @property
    def recipe(self) -> TrainRecipe:
        """The resolved recipe."""
        return self.plan.recipe

    @property
    def base(self) -> BaseRecord:
        """The base that is adapted."""
        return self.plan.base

    @property
    def tokenizer(self) -> Any:
        """The base's tokenizer."""
        return self.plan.tokenizer


def first_batch(run: Run) -> Batch:
    """The first training rows as a batch on the run's device."""
    size = min(run.recipe.training.batch_size, len(run.train_rows))
    batch = run.collate([run.train_rows[index] for index in range(size)])
    return {key: value.to(run.device) for key, value in batch.items()}
