"""A tiny base in the registry, a small data set, and runs over them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapterhub.bases.add import add_base
from adapterhub.manifest import Version
from adapterhub.plugins import open_registry
from adapterhub.protocols import Registry
from adapterhub.train.pipeline import train
from adapterhub.train.plan import Plan, make_plan
from adapterhub.train.recipe import TrainRecipe


class SilentTask:
    def advance(self, amount: float = 1, note: str = "") -> None:
        pass


@dataclass
class Silent:
    """A Progress that keeps what it was told."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def task(self, description: str, total: float | None) -> Iterator[SilentTask]:
        self.notes.append(description)
        yield SilentTask()

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def progress() -> Silent:
    return Silent()


@pytest.fixture
def registry(home: Path, tiny_base_dir: Path) -> Registry:
    """A registry that knows the tiny base as `tiny`."""
    opened = open_registry()
    add_base(opened, "tiny", str(tiny_base_dir), copy=False, progress=Silent())
    return opened


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """40 rows that a model of two layers can begin to learn: the word doubled."""
    path = tmp_path / "double.jsonl"
    rows = [
        {"prompt": f"Word: {word}\nTwice:", "completion": f" {word}{word}"}
        for word in (f"{chr(97 + n % 26)}{n}" + "x" * (n % 5) for n in range(40))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


PlanFor = Callable[..., Plan]


@pytest.fixture
def plan_for(registry: Registry, data_file: Path) -> PlanFor:
    """A plan over the data file: `plan_for(method="lora", training={...})`."""

    def build(**changes: Any) -> Plan:
        training = {"max_steps": 3, "batch_size": 4, "lr": 1e-2} | changes.pop("training", {})
        data = {"train": data_file, "holdout": 0.2} | changes.pop("data", {})
        return make_plan(TrainRecipe(data=data, training=training, **changes), registry)

    return build


@pytest.fixture
def trained(plan_for: PlanFor, registry: Registry, progress: Silent) -> Callable[..., Version]:
    """Train such a plan and return the version."""

    def build(**changes: Any) -> Version:
        resume = changes.pop("resume", False)
        return train(plan_for(**changes), registry, progress, resume=resume)

    return build
