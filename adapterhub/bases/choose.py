"""Which base a command means."""

from __future__ import annotations

from adapterhub.errors import usage_error
from adapterhub.manifest import BaseRecord
from adapterhub.protocols import Registry


def choose_base(registry: Registry, name: str | None) -> BaseRecord:
    """The base called `name`, or the only one there is.

    Raises a usage error that offers near names, lists the bases when there are several and
    none was named, or says how to add the first one.
    """
    bases = registry.bases()
    if not bases:
        raise usage_error("there is no base model yet", "add one: adz base add NAME SOURCE")
    if name is None:
        if len(bases) == 1:
            return bases[0]
        names = ", ".join(base.name for base in bases)
        raise usage_error(f"there are {len(bases)} base models", f"choose one with --base: {names}")
    return registry.base(name)
