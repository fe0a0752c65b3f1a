"""Who we are at a registry: the environment, else what `docker login` wrote."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.errors import usage_error

_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a password, or why there is none (`hint`, for the error of a refused request)."""

    username: str = ""
    password: str = ""
    hint: str = "use 'docker login', or ADZ_OCI_USERNAME and ADZ_OCI_PASSWORD"

    def __bool__(self) -> bool:
        return bool(self.username)

    def __repr__(self) -> str:
        # A password must not reach a log.
        return f"Credentials(username={self.username!r})"

    @property
    def basic(self) -> str:
        """The value of an `Authorization` header."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


def find_credentials(account: str) -> Credentials:
    """The credentials for a registry; none is no error before the registry asks for them."""
    username = os.environ.get("ADZ_OCI_USERNAME")
    password = os.environ.get("ADZ_OCI_PASSWORD")
    if username and password:
        return Credentials(username, password, "ADZ_OCI_USERNAME and ADZ_OCI_PASSWORD are set")
    if username or password:
        raise usage_error("ADZ_OCI_USERNAME and ADZ_OCI_PASSWORD go together", "set both")
    return _from_docker(account)


def _from_docker(account: str) -> Credentials:
    file = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    config = _read(file)
    entry = _mapping(config.get("auths")).get(account) or {}
    auth = _mapping(entry).get("auth")
    if isinstance(auth, str) and auth:
        try:
            username, separator, password = base64.b64decode(auth).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            separator = ""
        if not separator:
            raise usage_error(f"{file} has a damaged entry for {account}", "use 'docker login'")
        return Credentials(username, password.rstrip("\0"), f"those of {file} were sent")
    helper = _mapping(config.get("credHelpers")).get(account) or config.get("credsStore")
    if isinstance(helper, str):
        return Credentials(
            hint=f"docker keeps the password in its helper {helper!r}, which adz does not call: "
            "set ADZ_OCI_USERNAME and ADZ_OCI_PASSWORD"
        )
    return Credentials()


def _read(file: Path) -> Mapping[str, Any]:
    try:
        with file.open("rb") as opened:
            return _mapping(json.loads(opened.read(_LARGEST)))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise usage_error(f"{file} is not JSON", "use 'docker login'") from error


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
