"""The base with the adapter folded in, one tensor at a time, and what storing it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from adapterhub import specs
from adapterhub.errors import AdzError
from adapterhub.export.base import StoredBase
from adapterhub.manifest import Version
from adapterhub.models import load_adapter, load_base
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Fold, FoldingMethod, Progress


@dataclass(slots=True)
class Loss:
    """What a coarser number format costs; Frobenius norms of all tensors together."""

    _squares: dict[str, float] = field(default_factory=lambda: {"error": 0, "update": 0, "norm": 0})

    def add(self, before: torch.Tensor, after: torch.Tensor, stored: torch.Tensor) -> None:
        """Count one tensor: the base's, the folded one, and what is read back of it."""
        parts = {"error": stored.to(after.dtype) - after, "update": after - before, "norm": after}
        for name, part in parts.items():
            self._squares[name] += float(torch.linalg.vector_norm(part, dtype=torch.float64)) ** 2

    @property
    def of_weights(self) -> float:
        """The error as a share of the weights."""
        return self._share("norm")

    @property
    def of_update(self) -> float | None:
        """The error as a share of what the adapter changed; None where it changed nothing."""
        return self._share("update") if self._squares["update"] else None

    def as_dict(self) -> dict[str, float | None]:
        """For `--json`."""
        return {"of_weights": self.of_weights, "of_update": self.of_update}

    def _share(self, name: str) -> float:
        return math.sqrt(self._squares["error"] / (self._squares[name] or 1))


class FoldedModel:
    """The base's tensors, some of them changed.

    shards: the names in each file. shapes: of each. untied: the head was one with the
    embedding and no longer is, because the adapter changed one of them alone.
    """

    def __init__(self, base: StoredBase, folds: Mapping[str, Fold]) -> None:
        self.base = base
        self._folds = folds
        # Unmerged, an adapter of the embedding leaves a head that is tied to it as it was.
        changed = {head for head, other in base.tied.items() if {head, other} & folds.keys()}
        self._sources = {head: base.tied[head] for head in changed}
        self.untied = bool(changed)
        added = tuple(head for head in sorted(changed) if head not in base.shapes)
        self.shards = [*base.shards[:-1], base.shards[-1] + added]
        self.shapes = {**base.shapes, **{head: base.shapes[base.tied[head]] for head in added}}
        unknown = sorted(folds.keys() - self.shapes.keys())
        if unknown:
            raise AdzError(
                f"the adapter changes {unknown[0]}, which the base {base.record.name} lacks",
                "is it an adapter of this base?",
            )

    @property
    def changed(self) -> int:
        """How many tensors the adapter changes."""
        return len(self._folds)

    def is_changed(self, name: str) -> bool:
        """Whether the adapter changes this tensor."""
        return name in self._folds

    def is_stored(self, name: str, dtype: torch.dtype) -> bool:
        """Whether the base's own bytes are this tensor in `dtype`."""
        return (
            name not in self._folds
            and name not in self._sources
            and self.base.stored_dtype(name) == dtype
        )

    def stored_dtype(self, name: str) -> torch.dtype | None:
        """The dtype in which the base holds it; None where it is packed."""
        return self.base.stored_dtype(self._sources.get(name, name))

    def read(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The tensor before and after, in float32, or in float64 where the base is."""
        before = self.base.read(self._sources.get(name, name))
        if before.is_floating_point() and before.dtype != torch.float64:
            before = before.float()
        fold = self._folds.get(name)
        if fold is None:
            return before, before
        after = fold(before)
        if after.shape != before.shape or not torch.isfinite(after).all():
            raise AdzError(f"folded in, {name} is not {tuple(before.shape)} finite numbers")
        return before, after


ALONE = "adz serve answers with it, adz export NAME DIR writes it alone"
"""The advice where a method cannot be folded into a base."""


def fold_model(
    base: StoredBase, version: Version | None, directory: Path | None, progress: Progress
) -> FoldedModel:
    """`version`, stored in `directory`, over its base; the base as it is for None.

    Raises AdzError for a method that cannot be merged into a base.
    """
    if version is None or directory is None:
        return FoldedModel(base, {})
    plugins = load_plugins()
    component = plugins.get(specs.Method, version.manifest.method)
    if not component.mergeable:
        raise AdzError(
            f"{version.reference} is {component.name}, which cannot be folded into a base",
            ALONE,
        )
    method = plugins.load_implementation(component)()
    shapes = {**{head: base.shapes[other] for head, other in base.tied.items()}, **base.shapes}
    folds = method.fold(directory, shapes) if isinstance(method, FoldingMethod) else None
    if folds is None:
        folds = _merge_in_memory(base, version, directory, progress)
    return FoldedModel(base, folds)


def _merge_in_memory(
    base: StoredBase, version: Version, directory: Path, progress: Progress
) -> dict[str, Fold]:
    """The method's own merge, of the whole model."""
    if base.packing:
        raise AdzError(
            f"{version.reference} cannot be folded tensor by tensor, and its base is stored "
            f"in {base.packing.name}",
            "fold it into the same base in plain floats",
        )
    size = 4 * sum(torch.Size(shape).numel() for shape in base.shapes.values())
    progress.note(
        f"{version.reference} cannot be folded tensor by tensor: "
        f"the whole model is loaded, {size / 1e9:.1f} GB in float32"
    )
    merged: Any = load_adapter(load_base(base.record, dtype="float32"), version, directory)
    state = merged.merge_and_unload().state_dict()
    folds: dict[str, Fold] = {}
    for name in state.keys() & base.shapes.keys():
        if not torch.equal(state[name], base.read(name).to(state[name].dtype)):
            folds[name] = _Value(state[name])
    for head in (state.keys() & base.tied.keys()) - base.shapes.keys():
        # A head of the same memory is still one with the embedding, and follows it.
        if state[head].data_ptr() != state[base.tied[head]].data_ptr():
            folds[head] = _Value(state[head])
    return folds


class _Value:
    """A fold whose result is known."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        return self._tensor.to(weight.dtype)
