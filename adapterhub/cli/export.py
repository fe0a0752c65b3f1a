"""`adz export`: a plain PEFT directory."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import json_option, print_result

if TYPE_CHECKING:
    from adapterhub.manifest import Version
    from adapterhub.protocols import Registry


@click.command(short_help="Write a version as a plain directory.")
@click.argument("reference")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--with-artifacts", is_flag=True, help="Also metrics, curve and recipe.")
@json_option
def command(reference: str, directory: Path, with_artifacts: bool, as_json: bool) -> None:
    """Write the version REFERENCE into DIRECTORY, which PEFT and vLLM open.

    manifest.json beside the adapter says what it is and how it was made.
    """
    from adapterhub.errors import usage_error
    from adapterhub.plugins import open_registry

    registry = open_registry()
    version = registry.resolve(reference)
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise usage_error(f"{directory} is not a directory")
    if directory.is_dir() and any(directory.iterdir()):
        raise usage_error(f"{directory} is not empty", "give a new directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        made = staging / "export"
        _write(registry, version, made, with_artifacts=with_artifacts)
        made.rename(directory)
    finally:
        shutil.rmtree(staging)
    value = {"reference": version.reference, "directory": str(directory)}
    print_result(value, f"{version.reference} -> {directory}", as_json=as_json)


def _write(registry: Registry, version: Version, made: Path, *, with_artifacts: bool) -> None:
    # The view's files are read-only; what a user exports is the user's to change.
    shutil.copytree(registry.path(version), made, copy_function=shutil.copyfile)
    manifest = version.manifest.model_dump(mode="json", exclude_none=True)
    text = json.dumps(manifest, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    (made / "manifest.json").write_text(text, encoding="utf-8")
    if with_artifacts:
        registry.artifacts(version, made / "artifacts")
