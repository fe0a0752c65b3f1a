"""The input moments of an operand: an artifact of its version, or a file in its directory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from adapterhub.errors import AdzError
from adapterhub.merge.operands import Operand
from adapterhub.moments import INPUT_MOMENTS, MomentsFile
from adapterhub.protocols import Registry
from adapterhub.staging import home_staging, staging_folder


def open_moments(operand: Operand, registry: Registry) -> MomentsFile | None:
    """The operand's file; None where none was recorded. AdzError where it cannot be read.

    In a directory it lies beside the weights or in `artifacts`, where `adz export
    --with-artifacts` puts it.
    """
    if operand.version is None:
        return _open(operand.label, (operand.directory, operand.directory / "artifacts"))
    if INPUT_MOMENTS not in operand.version.manifest.artifacts:
        return None
    with staging_folder(home_staging()) as folder:
        registry.artifacts(operand.version, folder / "artifacts")
        # The open file outlives its name.
        return _open(operand.label, (folder / "artifacts",))


def missing_moments(
    operand: Operand, modules: Iterable[str], file: MomentsFile | None
) -> AdzError | None:
    """What is to be said where the moments of one of `modules` were not recorded."""
    if file is None:
        return AdzError(f"{operand.label} has no input moments", "train it with --input-moments 32")
    for module in modules:
        if module not in file:
            return AdzError(
                f"{operand.label} has no input moments of {module}", "this rule cannot merge it"
            )
    return None


def _open(label: str, folders: Iterable[Path]) -> MomentsFile | None:
    for folder in folders:
        if (folder / INPUT_MOMENTS).is_file():
            return MomentsFile(label, folder / INPUT_MOMENTS)
    return None
