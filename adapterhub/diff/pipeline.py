"""Comparing two adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapterhub.diff.distance import Distance, distances, total
from adapterhub.diff.factors import AdapterTensors
from adapterhub.diff.facts import (
    Difference,
    Scores,
    configuration,
    lineage,
    scores,
)
from adapterhub.diff.sides import open_side
from adapterhub.protocols import Registry


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two adapters. distances: the farthest apart first."""

    labels: tuple[str, str]
    digests: tuple[str | None, str | None]
    configuration: list[Difference]
    lineage: list[Difference]
    distances: list[Distance]
    total: Distance
    scores: list[Scores]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "adapters": self.labels,
            "digests": self.digests,
            "configuration": {d.key: d.values for d in self.configuration},
            "lineage": {d.key: d.values for d in self.lineage},
            "total": _as_dict(self.total),
            "modules": {d.name: _as_dict(d) for d in self.distances if d.ranks is not None},
            "tensors": {d.name: _as_dict(d) for d in self.distances if d.ranks is None},
            "scores": [
                {
                    "metric": s.metric,
                    "data": s.data,
                    "shots": s.shots,
                    "rows": s.rows,
                    "scores": s.values,
                    "difference": s.difference,
                }
                for s in self.scores
            ],
        }


def compare(registry: Registry, first: str, second: str) -> Comparison:
    """Compare two references or directories. Raises AdzError for what cannot be found or read."""
    one, two = open_side(registry, first), open_side(registry, second)
    tensors = [AdapterTensors(side.directory, side.config) for side in (one, two)]
    parts = sorted(distances(*tensors), key=lambda part: (-part.relative, part.name))
    return Comparison(
        labels=(one.label, two.label),
        digests=(
            one.version.digest if one.version else None,
            two.version.digest if two.version else None,
        ),
        configuration=configuration(one, two),
        lineage=lineage(one, two),
        distances=parts,
        total=total(parts),
        scores=scores(one, two),
    )


def _as_dict(distance: Distance) -> dict[str, Any]:
    return {
        "norms": distance.norms,
        "distance": distance.absolute,
        "relative": distance.relative,
        "cosine": distance.cosine,
        **({"ranks": distance.ranks} if distance.ranks is not None else {}),
    }
