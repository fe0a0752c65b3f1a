"""What the doors of one server are told, also across a process border."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from adapterhub.protocols import Limits, ServeSettings
from adapterhub.serve.address import is_loopback
from adapterhub.serve.doors.keys import digest_of


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """`digests` are the SHA-256 of keys that open everything, beside the file's; `at_once` of
    `limits` is set. `keys` is that of `ServeSettings`, never None beyond this machine."""

    digests: tuple[str, ...]
    keys: bool | None
    limits: Limits

    def to_json(self) -> str:
        """For `from_json` in another process; it holds no key."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> DoorSettings:
        """What `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        limits = Limits(**values.pop("limits"))
        return cls(**{**values, "digests": tuple(values["digests"]), "limits": limits})


def door_settings(settings: ServeSettings, at_once: int, *more_keys: str) -> DoorSettings:
    """The doors that `settings` ask for; `at_once` is the engine's own number of requests."""
    keys = [*([settings.api_key] if settings.api_key else []), *more_keys]
    limits = settings.limits
    needed = settings.keys
    if needed is None and (settings.api_key or not is_loopback(settings.host)):
        needed = True
    return DoorSettings(
        digests=tuple(digest_of(key) for key in keys),
        keys=needed,
        limits=replace(limits, at_once=limits.at_once or at_once),
    )
