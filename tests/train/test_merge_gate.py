"""The gate of mergeable methods: weight by weight where the method folds so, else on a copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from adapterhub.errors import AdzError
from adapterhub.protocols import Fold, Registry
from adapterhub.train import merge_gate
from adapterhub.train.pipeline import train
from adapterhub_peft.lora import Lora

Folds = Mapping[str, Fold]


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Folds], Folds | None]], None]:
    """`folding(change)`: from then on LoRA folds as `change` makes of how it should."""
    fold = Lora.fold

    def install(change: Callable[[Folds], Folds | None]) -> None:
        def changed(self: Lora, directory: Path, shapes: Any) -> Folds | None:
            folds = fold(self, directory, shapes)
            assert folds
            return change(folds)

        monkeypatch.setattr(Lora, "fold", changed)

    return install


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the merges of a copy differed by."""
    found: list[float] = []
    check = merge_gate._check_copy

    def watched(*arguments: Any) -> float:
        found.append(check(*arguments))
        return found[-1]

    monkeypatch.setattr(merge_gate, "_check_copy", watched)
    return found


def test_folds_are_checked_without_a_copy(
    plan_for: Any, registry: Registry, progress: Any, copied: list[float]
) -> None:
    version = train(plan_for(training={"max_steps": 4}), registry, progress)
    assert copied == []
    assert 0 < version.manifest.metrics["merge_difference"] < 1e-5


@pytest.mark.parametrize(
    "change",
    [lambda folds: None, lambda folds: {**folds, "model.elsewhere.weight": lambda weight: weight}],
    ids=["the adapter does not fold", "a layer is never called"],
)
def test_else_a_copy_is_merged(
    change: Any,
    plan_for: Any,
    registry: Registry,
    progress: Any,
    folding: Any,
    copied: list[float],
) -> None:
    folding(change)
    version = train(plan_for(training={"max_steps": 4}), registry, progress)
    assert copied == [version.manifest.metrics["merge_difference"]]


def _twice(fold: Fold) -> Fold:
    return lambda weight: 2 * fold(weight) - weight


def test_a_wrong_fold_is_refused(
    plan_for: Any, registry: Registry, progress: Any, folding: Any
) -> None:
    folding(lambda folds: {name: _twice(fold) for name, fold in folds.items()})
    with pytest.raises(AdzError, match="merged into the base the adapter differs"):
        train(plan_for(training={"max_steps": 4}), registry, progress)


def test_a_fold_that_writes_into_the_base_is_refused(
    plan_for: Any, registry: Registry, progress: Any, folding: Any
) -> None:
    def in_place(fold: Fold) -> Fold:
        def write(weight: torch.Tensor) -> torch.Tensor:
            return weight.copy_(fold(weight))

        return write

    folding(lambda folds: {name: in_place(fold) for name, fold in folds.items()})
    with pytest.raises(AdzError, match="the base was changed"):
        train(plan_for(training={"max_steps": 4}), registry, progress)
