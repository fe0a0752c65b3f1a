"""What `adz push` and `adz pull` did with one version."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Action = Literal["pushed", "pulled", "already there", "would push", "would pull"]


@dataclass(frozen=True, slots=True)
class Transferred:
    """One version. `size` is of its files in bytes, `sent` what went over the network of them.

    aliases: those that point at it on the side that received it. source: what it is called on
    the other side, where that differs. base: what is known here about its base, if it matters.
    signature: what is known about its signature, empty where it has none.
    """

    reference: str
    digest: str
    action: Action
    size: int
    sent: int = 0
    aliases: tuple[str, ...] = ()
    source: str = ""
    base: str = ""
    signature: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)
