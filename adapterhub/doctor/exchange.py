"""The remotes and keys that `config.yaml` names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapterhub.doctor.check import Check, wrong
from adapterhub.errors import AdzError
from adapterhub.exchange.remotes import open_remote

_REMOTES = {"push": "to", "pull": "from"}
_OTHERS = 0o077


def check_exchange(defaults: Mapping[str, Any]) -> Iterator[Check]:
    """Whether the remotes can be opened, without connecting, and the signing key is private.

    defaults: a user's own, by command and option.
    """
    for command, option in _REMOTES.items():
        url = _value(defaults, command, option)
        if url is not None:
            yield _remote(f"{command} --{option}", str(url))
    key = _value(defaults, "push", "sign")
    if key is not None:
        yield _key(Path(str(key)).expanduser())


def _value(defaults: Mapping[str, Any], command: str, option: str) -> Any:
    options = defaults.get(command)
    return options.get(option) if isinstance(options, Mapping) else None


def _remote(name: str, url: str) -> Check:
    try:
        return Check(name, "ok", open_remote(url).url)
    except AdzError as error:
        return wrong(name, error.message, error.hint)
    except ModuleNotFoundError as error:
        return wrong(name, f"{url} needs {error.name}", f"pip install {error.name}")


def _key(key: Path) -> Check:
    if not key.is_file():
        return wrong("push --sign", f"the key {key} is missing", "put it there")
    if key.stat().st_mode & _OTHERS:
        return wrong("push --sign", f"others can read the key {key}", f"chmod 600 {key}")
    return Check("push --sign", "ok", str(key))
