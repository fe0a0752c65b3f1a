"""What an export hands back, and the command line prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adapterhub.export.compare import Comparison
from adapterhub.export.fold import Loss


@dataclass(frozen=True, slots=True)
class Exported:
    """One export.

    format: `merged`, `gguf` or `lora-gguf`. dtype: of what was written. size: in bytes.
    changed: tensors that the adapter changed. losses: what number formats cost, by format.
    files: what else was written beside `path`.
    """

    reference: str
    format: str
    path: Path
    dtype: str
    size: int
    changed: int
    untied: bool = False
    losses: Mapping[str, Loss] = field(default_factory=dict)
    comparison: Comparison | None = None
    files: tuple[Path, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "reference": self.reference,
            "format": self.format,
            "path": str(self.path),
            "files": [str(file) for file in self.files],
            "dtype": self.dtype,
            "size": self.size,
            "changed": self.changed,
            "untied": self.untied,
            "losses": {name: loss.as_dict() for name, loss in self.losses.items()},
            "comparison": asdict(self.comparison) if self.comparison else None,
        }
