"""`adz import`: an adapter that was made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result


@click.command(short_help="Store a copy of an adapter that was made elsewhere.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The adapter's name in the registry.")
@click.option("--base", help="The base that it was trained on; the default is the only one.")
@json_option
def command(directory: Path, name: str, base: str | None, as_json: bool) -> None:
    """Store a copy of the PEFT adapter in DIRECTORY.

    Only safetensors, adapter_config.json and README.md are taken, and checked: values, ranks,
    and that every tensor fits a module of the base. DIRECTORY is not changed.
    """
    from adapterhub.imports.pipeline import import_adapter
    from adapterhub.plugins import open_registry

    version = import_adapter(
        open_registry(), directory.expanduser(), name, base, TerminalProgress()
    )
    link = version.manifest.base
    value = {
        "reference": version.reference,
        "digest": version.digest,
        "method": version.manifest.method,
        "base": link.model_dump(mode="json"),
        "adapter": version.manifest.adapter,
    }
    on = f"on {link.name} ({link.status})" if link.name else "on an unknown base"
    print_result(value, f"{version.reference}  {version.manifest.method} {on}", as_json=as_json)
