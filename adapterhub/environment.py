"""What the bytes of a result depend on beside its inputs: versions, and the kind of CPU."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata
from typing import TYPE_CHECKING

from adapterhub.plugins import load_plugins

if TYPE_CHECKING:
    from adapterhub import specs


THREADS = "threads"
"""The entry of a training's environment that says how many threads computed."""


def environment(libraries: Iterable[str], *components: specs.Component) -> dict[str, str]:
    """Versions of Python, of the `libraries` that are installed and of every plugin that took
    part, and the CPU's vector instructions as torch names them (`AVX2`)."""
    names = ("python", "cpu", *libraries)
    found = {name: now for name in names if (now := current(name)) is not None}
    return found | load_plugins().versions_of(*components)


def current(name: str) -> str | None:
    """What an entry of a recorded environment is now; None where it is not installed."""
    if name == "python":
        return platform.python_version()
    if name == "cpu":
        import torch

        return torch.backends.cpu.get_cpu_capability()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
