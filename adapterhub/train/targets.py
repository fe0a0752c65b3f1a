"""What an adapter was put on, and what it leaves as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from adapterhub.bases.outline import Layout, matrices


@dataclass(frozen=True, slots=True)
class TargetReport:
    """How many layers of each name are adapted, and how many that could be are not.

    parameters: the trainable ones.
    """

    parameters: int
    adapted: dict[str, int]
    frozen: dict[str, int]

    def text(self) -> str:
        """In one line."""
        left = f"; frozen: {_listed(self.frozen)}" if self.frozen else ""
        return f"{_listed(self.adapted)} ({self.parameters:,} parameters){left}"


def report_targets(model: Any, layers: Collection[str]) -> TargetReport:
    """Look at a model with a fresh adapter on `layers`. Frozen are named that are matrices of the
    base: the linear layers, embeddings and fused experts without a trainable parameter."""
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen: Counter[str] = Counter()
    for name, module in model.named_modules():
        if name and not any(name == one or name.startswith(f"{one}.") for one in layers):
            frozen.update(matrices(name, module))
    return TargetReport(
        sum(p.numel() for p in trained),
        _count(_name(layer) or type(model).__name__ for layer in layers),
        dict(sorted(frozen.items())),
    )


def foretell_targets(layout: Layout, adapted: Mapping[str, int]) -> TargetReport:
    """The report of a model that need not be made. adapted: the trainable parameters in each
    adapted module, by its name; all of them are new ones."""
    # A name ends where the next begins with a point, so the whole ones of a path are its starts.
    frozen: Counter[str] = Counter()
    for module in layout.modules:
        parts = module.name.split(".")
        if not any(".".join(parts[:end]) in adapted for end in range(1, len(parts) + 1)):
            frozen.update(module.matrices)
    return TargetReport(
        sum(adapted.values()), _count(map(_name, adapted)), dict(sorted(frozen.items()))
    )


def _name(layer: str) -> str:
    """The last part of its path that is no number: the layers of a list have no names."""
    return next((part for part in reversed(layer.split(".")) if not part.isdigit()), "")


def _count(names: Any) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} x{count}" for name, count in counts.items()) or "nothing"
