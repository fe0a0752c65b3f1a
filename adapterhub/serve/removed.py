"""What was removed from the registry while a server has it in memory."""

from __future__ import annotations

from collections.abc import Iterable

from adapterhub.errors import EXIT_USAGE, AdzError
from adapterhub.protocols import Registry

SWEEP_SECONDS = 2.0
"""How often an engine looks."""


def removed_digests(registry: Registry, held: Iterable[tuple[str, str]]) -> list[str]:
    """The digests among `held`, pairs of name and digest, that have no live version any more."""
    return [digest for name, digest in held if _is_removed(registry, f"{name}@{digest}")]


def _is_removed(registry: Registry, reference: str) -> bool:
    try:
        registry.resolve(reference)
    except AdzError as error:
        # A registry that is busy or damaged says nothing about the version.
        return error.exit_code == EXIT_USAGE
    return False
