"""The registry and the bases that its adapters need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from adapterhub.bases.verify import verify_base
from adapterhub.doctor.check import Check, wrong
from adapterhub.errors import AdzError
from adapterhub.home import adz_home
from adapterhub.plugins import open_registry
from adapterhub.protocols import Lease, Registry

# What needs a version asks for it again before this: a longer lease is a mistake.
_LONG_LEASE = timedelta(days=7)


def check_registry() -> Iterator[Check]:
    """Whether it opens, what it finds wrong with itself, its bases and leases."""
    if not (adz_home() / "registry").exists() and "ADZ_REGISTRY" not in os.environ:
        yield Check("registry", "absent", "none yet: the first command that stores makes it")
        return
    try:
        registry = open_registry()
        problems = list(registry.diagnose())
        names, bases, leases = registry.names(), registry.bases(), registry.leases()
    except AdzError as error:
        yield wrong("registry", error.message, error.hint or "run 'adz fsck'")
        return
    for problem in problems:
        yield wrong(problem.subject, problem.problem, problem.advice)
    yield Check("registry", "ok", f"{len(names)} adapters, {len(bases)} bases")
    yield from _check_bases(registry)
    yield from _check_leases(leases)


def _check_bases(registry: Registry) -> Iterator[Check]:
    """Hashes a base only when size, time or inode of a file is not what it was."""
    for record in registry.bases():
        try:
            verify_base(record)
        except AdzError as error:
            yield wrong(f"base {record.name}", error.message, error.hint)
        except OSError as error:
            advice = "make it readable for this user"
            yield wrong(f"base {record.name}", f"{error.strerror}: {error.filename}", advice)


def _check_leases(leases: list[Lease]) -> Iterator[Check]:
    if not leases:
        return
    late = datetime.now(UTC) + _LONG_LEASE
    long = [lease for lease in leases if datetime.fromisoformat(lease.until) > late]
    if long:
        holders = ", ".join(sorted({lease.holder for lease in long}))
        advice = "is the clock of that machine right? 'adz gc' keeps these versions until then"
        yield wrong("leases", f"{holders} holds versions until {long[0].until}", advice)
    else:
        holders = ", ".join(sorted({lease.holder for lease in leases}))
        yield Check("leases", "ok", f"{len(leases)} versions are held by {holders}")
