"""What a rebuild hands back, and the command line prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from adapterhub.rebuild.compare import FileDifference


@dataclass(frozen=True, slots=True)
class RebuildResult:
    """One version that was made again.

    recorded and rebuilt are payload digests. environment: what is recorded of the versions and
    the CPU and is another one now, as (then, now).
    """

    reference: str
    made_by: str
    recorded: str
    rebuilt: str
    differences: tuple[FileDifference, ...]
    environment: Mapping[str, tuple[str, str | None]]

    @property
    def same(self) -> bool:
        """Whether the payload is the same, byte for byte."""
        return self.recorded == self.rebuilt

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "reference": self.reference,
            "made_by": self.made_by,
            "same": self.same,
            "recorded": self.recorded,
            "rebuilt": self.rebuilt,
            "differences": [asdict(difference) for difference in self.differences],
            "environment": {
                name: {"then": then, "now": now} for name, (then, now) in self.environment.items()
            },
        }
