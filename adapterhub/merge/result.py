"""What a merge hands back, and the command line prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapterhub.manifest import Version

if TYPE_CHECKING:
    from adapterhub.merge.diagnostics import Diagnosis
    from adapterhub.merge.prediction import Prediction


@dataclass(frozen=True, slots=True)
class MergeResult:
    """A merge as it was planned (`--dry-run`) or done.

    relative_error: Frobenius, of all modules together, against the rule's uncompressed result;
    None in a plan. error_of: what it measures; `outputs` are those on the adapters' own inputs.
    errors: of every module, by name. possible: the highest rank.
    """

    rule: str
    space: str
    adapters: tuple[str, ...]
    weights: tuple[float, ...]
    scale: float
    options: dict[str, Any]
    rank: int
    possible: int
    modules: int
    parameters: int
    base_checked: bool
    error_of: Literal["weights", "outputs"] = "weights"
    relative_error: float | None = None
    errors: tuple[tuple[str, float], ...] = ()
    version: Version | None = None
    directory: Path | None = None
    warnings: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None
    prediction: Prediction | None = None

    @property
    def largest(self) -> tuple[tuple[str, float], ...]:
        """The five modules that lost most, and what share."""
        return tuple(sorted(self.errors, key=lambda pair: (-pair[1], pair[0]))[:5])

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "rule": self.rule,
            "space": self.space,
            "adapters": list(self.adapters),
            "weights": list(self.weights),
            "scale": self.scale,
            "options": self.options,
            "rank": self.rank,
            "modules": self.modules,
            "parameters": self.parameters,
            "base_checked": self.base_checked,
            "error_of": self.error_of,
            "relative_error": self.relative_error,
            "largest": [{"module": m, "relative_error": e} for m, e in self.largest],
            "reference": self.version.reference if self.version else None,
            "digest": self.version.digest if self.version else None,
            "payload": self.version.manifest.payload if self.version else None,
            "directory": str(self.directory) if self.directory else None,
            "warnings": list(self.warnings),
            "diagnosis": self.diagnosis.as_dict() if self.diagnosis else None,
            "prediction": self.prediction.as_dict() if self.prediction else None,
        }
