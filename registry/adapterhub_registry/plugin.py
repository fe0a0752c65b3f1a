"""Hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_registries() -> Iterator[specs.Registry]:
    """The registry on this machine."""
    yield specs.Registry(
        name="local",
        summary="A directory below ADZ_HOME: content-addressed files and SQLite",
        impl="adapterhub_registry.store:LocalRegistry",
    )
