"""The input moments of an operand: an artifact of its version, or a file in its directory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from adapterhub.errors import AdzError
from adapterhub.merge.operands import Operand
from adapterhub.moments import INPUT_MOMENTS, MomentsFile
from adapterhub.protocols import Registry
from adapterhub.staging import home_staging, staging_folder


def open_moments(operand: Operand, modules: Iterable[str], registry: Registry) -> MomentsFile:
    """The file, with moments of every one of `modules`; an error that says how to get it.

    In a directory it lies beside the weights or in `artifacts`, where `adz export
    --with-artifacts` puts it.
    """
    if operand.version is None:
        folders = (operand.directory, operand.directory / "artifacts")
        file = _open(operand.label, folders)
    elif INPUT_MOMENTS not in operand.version.manifest.artifacts:
        file = None
    else:
        with staging_folder(home_staging()) as folder:
            registry.artifacts(operand.version, folder / "artifacts")
            # The open file outlives its name.
            file = _open(operand.label, (folder / "artifacts",))
    if file is None:
        raise AdzError(
            f"{operand.label} has no input moments",
            "train it with --input-moments 32",
        )
    for module in modules:
        if module not in file:
            raise AdzError(
                f"{operand.label} has no input moments of {module}",
                "this rule cannot merge it",
            )
    return file


def _open(label: str, folders: Iterable[Path]) -> MomentsFile | None:
    for folder in folders:
        if (folder / INPUT_MOMENTS).is_file():
            return MomentsFile(label, folder / INPUT_MOMENTS)
    return None
