"""`adz plugins`: what came from where."""

from __future__ import annotations

from dataclasses import asdict

import click

from adapterhub.cli.output import format_table, json_option, print_result


@click.command(short_help="Show what came from which plugin.")
@json_option
def command(as_json: bool) -> None:
    """Show every plugin, where it came from, its components, and what went wrong with it."""
    from adapterhub.plugins import load_plugins

    plugins = load_plugins()
    rows = [
        (r.name, f"{r.distribution} {r.version}", r.status, r.problem or _components(r.components))
        for r in plugins.records
    ]
    text = format_table(("plugin", "from", "status", "components"), rows)
    print_result([asdict(r) for r in plugins.records], text, as_json=as_json)


def _components(by_kind: dict[str, list[str]]) -> str:
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in by_kind.items() if names)
