"""`adz plugins`: what came from where, and new plugins."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from adapterhub.cli.output import format_table, json_option, print_result


@click.group(
    name="plugins", short_help="Show what came from which plugin.", invoke_without_command=True
)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show every plugin, where it came from, its components, and what went wrong with it.

    A plugin is code that runs with all of your rights. Install those that you trust.
    """
    if ctx.invoked_subcommand is not None:
        return
    from adapterhub.plugins import load_plugins

    plugins = load_plugins()
    rows = [
        (r.name, f"{r.distribution} {r.version}", r.status, r.problem or _components(r.components))
        for r in plugins.records
    ]
    text = format_table(("plugin", "from", "status", "components"), rows)
    print_result([asdict(r) for r in plugins.records], text, as_json=as_json)


@command.command(short_help="Write a new plugin, with its tests.")
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    required=True,
    metavar="KIND[=NAME]",
    help="merge-rule, merge-space, method, quantizer, objective, engine, format, remote, metric "
    "or command, and what it is called; may be given several times.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The folder; ./NAME by default.")
@json_option
def new(name: str, kinds: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Write the distribution NAME: complete, installable, and its tests pass.

    A component is called like the distribution, without 'adz-', where it has no name.
    """
    from adapterhub.scaffold import parse_part, render, write

    folder = Path(name) if out is None else out
    made = write(render(name, [parse_part(kind, name) for kind in kinds]), folder)
    text = "\n".join([*map(str, made), f"next: cd {folder} && pip install -e '.[test]' && pytest"])
    print_result({"folder": str(folder), "files": list(map(str, made))}, text, as_json=as_json)


def _components(by_kind: dict[str, list[str]]) -> str:
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in by_kind.items() if names)
