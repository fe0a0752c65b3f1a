"""Which engine serves."""

from __future__ import annotations

from typing import cast

from adapterhub import specs
from adapterhub.errors import AdzError
from adapterhub.plugins import is_installed, load_plugins
from adapterhub.protocols import Engine


def find_engine(name: str | None) -> specs.Engine:
    """The engine called `name`, or the best one whose requirements are installed.

    Raises AdzError for an unknown name.
    """
    plugins = load_plugins()
    if name is not None:
        return plugins.get(specs.Engine, name)
    engines = [p.component for p in plugins.provided(specs.Engine)]
    found = cast("list[specs.Engine]", engines)
    if not found:
        raise AdzError("no plugin provides an engine", "see 'adz plugins'")
    ready = [e for e in found if all(is_installed(module) for module in e.requires)]
    return max(ready or found, key=lambda engine: engine.priority)


def choose_engine(name: str | None) -> Engine:
    """What `find_engine` finds, loaded.

    Raises AdzError also with what to install where a requirement misses.
    """
    return cast("Engine", load_plugins().load_implementation(find_engine(name))())
