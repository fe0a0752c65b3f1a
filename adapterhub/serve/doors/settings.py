"""What the doors of one server are told, also across a process border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from adapterhub.errors import usage_error
from adapterhub.protocols import Limits, LogFormat, Progress, ServeSettings
from adapterhub.serve.address import is_loopback
from adapterhub.serve.doors.keys import digest_of, read_keys


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """`digests` are the SHA-256 of keys that open everything, beside the file's; `at_once` of
    `limits` is set. `keys` is that of `ServeSettings`, never None beyond this machine, and so
    are the others; `requests_log` is a path."""

    digests: tuple[str, ...]
    keys: bool | None
    limits: Limits
    drain_seconds: float = 30.0
    requests_log: str | None = None
    log_format: LogFormat = "text"

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> DoorSettings:
        """The settings that `dataclasses.asdict` and JSON brought from another process."""
        limits = Limits(**values["limits"])
        return cls(**{**values, "digests": tuple(values["digests"]), "limits": limits})


def needs_key(host: str, api_key: str | None, keys: bool | None, progress: Progress) -> bool:
    """Whether clients of a server on `host` need a key from its start on; `keys` is what was
    asked for, None for what is safe.

    Raises AdzError for a server that nobody could use, one that other machines could use without
    a key, and a file of keys that cannot be read.
    """
    if keys is False:
        if api_key is not None:
            raise usage_error("--api-key and --no-keys exclude each other")
        if not is_loopback(host):
            progress.warn(f"whoever reaches {host} may use this server: it asks for no key")
        return False
    if api_key == "":
        raise usage_error("--api-key is empty", "give a key, or make one: adz keys new NAME")
    if api_key is not None or read_keys():
        return True
    if not is_loopback(host):
        raise usage_error(
            f"other machines reach {host}, and there is no key",
            "adz keys new NAME makes one; --no-keys where something else keeps strangers out",
        )
    if keys:
        raise usage_error("there is no key", "adz keys new NAME makes one")
    return False


def door_settings(settings: ServeSettings, at_once: int) -> DoorSettings:
    """The doors that `settings` ask for; `at_once` is the engine's own number of requests."""
    keys = [key for key in (settings.api_key, settings.own_key) if key]
    limits = settings.limits
    needed = settings.keys
    if needed is None and (settings.api_key or not is_loopback(settings.host)):
        needed = True
    return DoorSettings(
        digests=tuple(digest_of(key) for key in keys),
        keys=needed,
        limits=replace(limits, at_once=limits.at_once or at_once),
        drain_seconds=settings.drain_seconds,
        requests_log=str(settings.requests_log) if settings.requests_log else None,
        log_format=settings.log_format,
    )
