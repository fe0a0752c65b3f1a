"""`adz restore`: bring back what was removed."""

from __future__ import annotations

import click

from adapterhub.cli.output import json_option, print_result


@click.command(short_help="Bring back what was removed.")
@click.argument("reference")
@json_option
def command(reference: str, as_json: bool) -> None:
    """Bring back the version REFERENCE, or every removed version where it is a name alone.

    'adz ls --removed' shows what can be brought back. The aliases that were removed with a name
    come back with it.
    """
    from adapterhub.plugins import open_registry

    restored = [version.reference for version in open_registry().restore(reference)]
    print_result({"restored": restored}, f"restored {', '.join(restored)}", as_json=as_json)
