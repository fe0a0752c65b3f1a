"""The extras of the distribution: which one brings a module that is not installed."""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement

from adapterhub.errors import AdzError


def requirements_by_extra() -> dict[str, list[Requirement]]:
    """What each extra asks for, as our own metadata says."""
    requirements = [Requirement(text) for text in metadata.requires("adapterhub") or ()]
    return {
        extra: [r for r in requirements if r.marker and r.marker.evaluate({"extra": extra})]
        for extra in metadata.metadata("adapterhub").get_all("Provides-Extra") or ()
    }


def missing_module(error: ModuleNotFoundError, command: str) -> AdzError | None:
    """What to tell a user whose installation lacks an extra; None for a module of none.

    The extra that is called like the command is preferred, then the first that has it all.
    """
    module = (error.name or "").partition(".")[0]
    extras = {
        extra: names
        for extra, requirements in requirements_by_extra().items()
        if module in (names := {r.name.replace("-", "_").lower() for r in requirements})
    }
    if not extras:
        return None
    order = [command, "train", "merge", "serve", *extras]
    extra = next(name for name in order if name in extras)
    return AdzError(
        f"adz {command} needs {module}, which is not installed",
        f"pip install 'adapterhub[{extra}]'",
    )
