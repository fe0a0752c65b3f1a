"""References to bases and adapters: `name`, `name@3`, `name@alias`, `name@sha256:hex`.

The same string works in `adz`, in Python and as the `model` of a request. Names, aliases and
file names come from an allowlist here and nowhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from adapterhub.errors import usage_error

_PART = r"[a-z0-9][a-z0-9._-]{0,63}"
_NAME = re.compile(rf"{_PART}(?:/{_PART})?")
_ALIAS = re.compile(_PART)
_DIGEST = re.compile(r"sha256:[0-9a-f]{8,64}")
_FILE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
LATEST = "latest"
DERIVED = "derived"
"""The team of the versions that servers make for requests, and the entry of a manifest's `metrics`
that holds what such a version was made for."""
_DERIVED_DIGITS = 12

NAME_RULE = "lower-case letters, digits, '.', '_' and '-', at most 64, optionally team/name"


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference. `selector` is a version number, an alias or a digest prefix as text."""

    name: str
    kind: Literal["number", "alias", "digest"]
    selector: str

    def __str__(self) -> str:
        return self.name if self.selector == LATEST else f"{self.name}@{self.selector}"


def check_name(name: str) -> str:
    """Return `name` when the allowlist admits it; raise a usage error otherwise."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise usage_error(f"{name!r} is not a valid name", f"use {NAME_RULE}")
    return name


def check_new_name(name: str, made_for: object = None) -> str:
    """Return `name` when a new version or base may have it; raise a usage error otherwise.

    made_for: what a server makes the version for, the only way into `derived/`.
    """
    check_name(name)
    if name.startswith(f"{DERIVED}/") and name != derived_name(str(made_for)):
        raise usage_error(
            f"the name {name!r} is reserved for what servers make for requests",
            f"choose one that does not begin with {DERIVED}/",
        )
    return name


def derived_name(key: str) -> str:
    """The name of the version that a server makes for what has this key, 64 hexadecimal digits."""
    return f"{DERIVED}/{key[:_DERIVED_DIGITS]}"


def check_alias(alias: str) -> str:
    """Return `alias` when it may be set by a user; raise a usage error otherwise."""
    if alias == LATEST:
        raise usage_error("the alias 'latest' is reserved", "it always means the highest version")
    if alias.isdigit() or not _ALIAS.fullmatch(alias) or ".." in alias:
        raise usage_error(
            f"{alias!r} is not a valid alias",
            "use lower-case letters, digits, '.', '_' and '-', and not digits alone",
        )
    return alias


def check_file_name(name: str) -> str:
    """Return a payload's file name when it is a plain relative path; refuse it otherwise."""
    parts = PurePosixPath(name).parts
    if not parts or "/".join(parts) != name or not all(_FILE_PART.fullmatch(p) for p in parts):
        raise usage_error(
            f"the file name {name!r} is not allowed", "use letters, digits, '.', '_' and '-'"
        )
    return name


def parse_reference(text: str) -> Reference:
    """Parse `text`; raise a usage error that says what is wrong with it."""
    name, separator, selector = text.partition("@")
    check_name(name)
    if not separator:
        return Reference(name, "alias", LATEST)
    if selector.isdigit() and selector.isascii():
        if int(selector) == 0 or selector.startswith("0"):
            raise usage_error(f"{text!r} names version {selector}", "versions count from 1")
        return Reference(name, "number", selector)
    if _DIGEST.fullmatch(selector):
        return Reference(name, "digest", selector)
    if selector == LATEST:
        return Reference(name, "alias", LATEST)
    if selector.startswith("sha256:"):
        raise usage_error(f"{text!r} has a malformed digest", "give 8 to 64 hexadecimal digits")
    check_alias(selector)
    return Reference(name, "alias", selector)


def is_directory_reference(text: str) -> bool:
    """Whether `text` is a path (`./dir`, `/dir`, `~/dir`, `..`) rather than a name.

    Paths are accepted by `adz` and in Python only, never in a request.
    """
    return text in {".", ".."} or text.startswith(("./", "../", "/", "~"))
