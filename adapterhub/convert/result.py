"""What a conversion hands back, and the command line prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.convert.logits import LogitDifference
from adapterhub.manifest import Version

# What is left of an exact conversion is the rounding to float32.
ROUNDING = 1e-6
# More than this lost is worth a warning, if a higher rank can cure it.
_TOLERABLE = 0.1


@dataclass(frozen=True, slots=True)
class LogitCheck:
    """The adapter's logits beside the result's and, as a measure of both, beside the base's."""

    prompts: str
    result: LogitDifference
    base: LogitDifference

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "prompts": self.prompts,
            "result": self.result.as_dict(),
            "base": self.base.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class ConvertResult:
    """A conversion that was done.

    relative_error: Frobenius, of all modules together, against the source's update in float64.
    largest: the five modules that lost most. possible: the highest rank that has a meaning.
    logits: None where the base is not known.
    """

    source: str
    method: str
    rank: int
    possible: int
    modules: int
    parameters: int
    relative_error: float
    largest: tuple[tuple[str, float], ...]
    logits: LogitCheck | None = None
    version: Version | None = None
    directory: Path | None = None

    @property
    def exact(self) -> bool:
        """Whether nothing but rounding to float32 was lost."""
        return self.relative_error < ROUNDING

    @property
    def warning(self) -> str | None:
        """One line where much was lost and an option can cure it."""
        if self.relative_error <= _TOLERABLE or self.rank >= self.possible:
            return None
        higher = min(self.possible, 2 * self.rank)
        return f"rank {self.rank} lost {self.relative_error:.1%}: --rank {higher} loses less"

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "source": self.source,
            "method": self.method,
            "rank": self.rank,
            "possible": self.possible,
            "modules": self.modules,
            "parameters": self.parameters,
            "relative_error": self.relative_error,
            "exact": self.exact,
            "largest": [{"module": m, "relative_error": e} for m, e in self.largest],
            "logits": self.logits.as_dict() if self.logits else None,
            "reference": self.version.reference if self.version else None,
            "digest": self.version.digest if self.version else None,
            "payload": self.version.manifest.payload if self.version else None,
            "directory": str(self.directory) if self.directory else None,
            "warning": self.warning,
        }
