"""The keys of this home: `$ADZ_HOME/keys.yaml`. Of a key only its SHA-256 is stored.

    ci:
      sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      models: [team/*]
      requests_per_minute: 60
      created: 2026-01-31 12:00:00+00:00

A key is 256 random bits, so one round of SHA-256 is enough: there is nothing to guess. A pattern
is compared with the whole name of a base or an adapter; `*` stands for any characters, `/` too.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from adapterhub.config import read_recipe, validate
from adapterhub.errors import unknown_name, usage_error
from adapterhub.home import adz_home
from adapterhub.reference import check_name

PREFIX = "adz_"
"""What every key begins with, so that scanners for leaked secrets find it."""

EVERYTHING = "*"

_PATTERN = re.compile(r"[a-z0-9._/*?-]+")


def _with_zone(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_with_zone)]


class Key(BaseModel):
    """What a key opens. None is no limit; `concurrent` counts requests that wait, too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    models: Annotated[tuple[str, ...], Field(min_length=1)] = (EVERYTHING,)
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    concurrent: Annotated[int, Field(ge=1)] | None = None
    created: Moment | None = None
    expires: Moment | None = None

    @property
    def opens_everything(self) -> bool:
        """Whether no name is out of its scope."""
        return EVERYTHING in self.models

    def allows(self, name: str) -> bool:
        """Whether the base or adapter `name` is in its scope."""
        return any(fnmatchcase(name, pattern) for pattern in self.models)

    def has_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and datetime.now(UTC) >= self.expires


def keys_file() -> Path:
    """`$ADZ_HOME/keys.yaml`."""
    return adz_home() / "keys.yaml"


def digest_of(key: str) -> str:
    """The SHA-256 of a key, as hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys() -> list[Key]:
    """Every key, by name; none where there is no file.

    Raises AdzError with the place for a file that cannot be read as keys.
    """
    file = keys_file()
    # A link to nowhere is no missing file: it must not do away with the keys.
    if not os.path.lexists(file):
        return []
    values = read_recipe(file)
    keys = []
    for name, value in values.items():
        if not isinstance(value, dict):
            raise usage_error(f"{file}: {name} is not a mapping")
        keys.append(validate(Key, {**value, "name": check_name(str(name))}, f"{file}: {name}"))
    return sorted(keys, key=lambda key: key.name)


def new_key(
    name: str,
    *,
    models: Sequence[str] = (EVERYTHING,),
    requests_per_minute: int | None = None,
    concurrent: int | None = None,
    days: int | None = None,
) -> tuple[Key, str]:
    """Store a new key and return it with its text, which nothing can show again.

    Raises AdzError when the name is taken or a pattern can match no name.
    """
    check_name(name)
    for pattern in models:
        if not _PATTERN.fullmatch(pattern):
            raise usage_error(f"{pattern!r} can match no name", "for example --models 'team/*'")
    text = PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC).replace(microsecond=0)
    key = Key(
        name=name,
        sha256=digest_of(text),
        models=tuple(models),
        requests_per_minute=requests_per_minute,
        concurrent=concurrent,
        created=now,
        expires=now + timedelta(days=days) if days else None,
    )
    with _locked():
        keys = read_keys()
        if any(other.name == name for other in keys):
            raise usage_error(f"there is a key {name} already", f"adz keys rm {name}")
        _write([*keys, key])
    return key, text


def remove_keys(names: Sequence[str]) -> None:
    """Remove keys; all or none. Raises AdzError for a name that is not there."""
    with _locked():
        keys = read_keys()
        known = [key.name for key in keys]
        for name in names:
            if name not in known:
                raise unknown_name("key", name, known)
        _write([key for key in keys if key.name not in names])


@contextmanager
def _locked() -> Iterator[None]:
    """One writer at a time."""
    keys_file().parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(keys_file().with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(keys: Sequence[Key]) -> None:
    """Replace the file in one step: a running server reads the old one or the new one."""
    values: dict[str, Any] = {
        key.name: {
            **key.model_dump(exclude={"name", "models"}, exclude_none=True),
            "models": list(key.models),
        }
        for key in sorted(keys, key=lambda key: key.name)
    }
    part = keys_file().with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yaml.safe_dump(values, file, sort_keys=False)
        file.flush()
        os.fsync(file.fileno())
    part.replace(keys_file())
