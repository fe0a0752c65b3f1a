"""`adz export`: a plain PEFT directory."""

from __future__ import annotations

from pathlib import Path

import click

from adapterhub.cli.output import json_option, print_result


@click.command(short_help="Write a version as a plain directory.")
@click.argument("reference")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--with-artifacts", is_flag=True, help="Also metrics, curve and recipe.")
@json_option
def command(reference: str, directory: Path, with_artifacts: bool, as_json: bool) -> None:
    """Write the version REFERENCE into DIRECTORY, which PEFT and vLLM open.

    manifest.json beside the adapter says what it is and how it was made.
    """
    from adapterhub.export import export_version
    from adapterhub.plugins import open_registry

    version = export_version(open_registry(), reference, directory, with_artifacts=with_artifacts)
    value = {"reference": version.reference, "directory": str(directory)}
    print_result(value, f"{version.reference} -> {directory}", as_json=as_json)
