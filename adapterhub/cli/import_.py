"""`adz import`: an adapter that was made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result


@click.command(short_help="Store a copy of an adapter that was made elsewhere.")
@click.argument("source")
@click.option("--name", help="The adapter's name in the registry.")
@click.option(
    "--base",
    help="The base that it was trained on, or unknown; by default the one that it names, or "
    "the only one; else it stays unknown, and the bases that it fits are named.",
)
@click.option(
    "--convert", is_flag=True, help="Read pickled weights in a locked-down process (needs torch)."
)
@json_option
def command(source: str, name: str | None, base: str | None, convert: bool, as_json: bool) -> None:
    """Store a copy of the PEFT adapter in the directory SOURCE, or in the repository
    "hub:organisation/name" of the Hugging Face Hub ("hub:organisation/name@revision").

    Only safetensors, adapter_config.json and README.md are taken, and checked: values, ranks,
    and that every tensor fits a module of the base. SOURCE is not changed.

    SOURCE can also be a version whose base is not known yet, or was asserted wrongly:
    "adz import sql@3 --base smollm2" checks that it fits, and stores it as the next version.
    """
    from adapterhub.errors import usage_error
    from adapterhub.imports.claim import claim_base
    from adapterhub.imports.hub import SCHEME, import_from_hub
    from adapterhub.imports.pipeline import import_adapter
    from adapterhub.plugins import open_registry
    from adapterhub.reference import is_directory_reference

    registry, progress = open_registry(), TerminalProgress()
    directory = Path(source).expanduser()
    is_hub = source.startswith(SCHEME)
    if is_hub or is_directory_reference(source) or directory.exists():
        if name is None:
            raise usage_error("the adapter needs a name", "give one with --name")
        if is_hub:
            version = import_from_hub(registry, source, name, base, progress, convert=convert)
        else:
            version = import_adapter(registry, directory, name, base, progress, convert=convert)
    else:
        version = claim_base(registry, source, base, progress, name=name)
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
