"""Which base, or which version, a command means."""

from __future__ import annotations

from adapterhub.errors import UnknownNameError, unknown_name, usage_error
from adapterhub.manifest import BaseRecord, Version
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


def base_or_version(registry: Registry, reference: str) -> BaseRecord | Version:
    """The base of that name, or the version that the reference means now.

    Raises a usage error that offers near names of both.
    """
    bases = {base.name: base for base in registry.bases()}
    if reference in bases:
        return bases[reference]
    try:
        return registry.resolve(reference)
    except UnknownNameError as error:
        known = {*error.known, *bases}
        raise unknown_name("adapter or base", error.name, known) from None
