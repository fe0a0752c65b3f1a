"""What a merge hands back, and the command line prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adapterhub.manifest import Version

# More than this lost is worth a warning, if a higher rank can cure it.
_TOLERABLE = 0.1


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

    @property
    def largest(self) -> tuple[tuple[str, float], ...]:
        """The five modules that lost most, and what share."""
        return tuple(sorted(self.errors, key=lambda pair: (-pair[1], pair[0]))[:5])

    @property
    def warning(self) -> str | None:
        """One line where much was lost and an option can cure it."""
        if (self.relative_error or 0) <= _TOLERABLE or self.rank >= self.possible:
            return None
        higher = min(self.possible, 2 * self.rank)
        return f"rank {self.rank} lost {self.relative_error:.1%}: --rank {higher} loses less"

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
            "warning": self.warning,
        }
