"""`adz plugins`: what came from where, and new plugins."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import format_table, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.plugin_description import Description
    from adapterhub.plugin_records import PluginRecord


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
    from adapterhub.plugins import Plugins

    # What is remembered says neither what fails now nor what takes time.
    complaints: list[str] = []
    records = Plugins(complaints.append, anew=True).records
    for complaint in complaints:
        click.echo(f"adz: {complaint}", err=True)
    rows = [_row(record) for record in records]
    header = ("plugin", "from", "status", "ms", "hooks", "components")
    print_result([asdict(r) for r in records], format_table(header, rows), as_json=as_json)


@command.command(short_help="Say what a component is, and its options.")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Say what the method, merge rule, metric, ... called NAME is, and which options it takes.

    NAME may be DISTRIBUTION:NAME.
    """
    from adapterhub.plugin_description import describe

    found = describe(name)
    text = "\n\n".join(map(_described, found))
    print_result([asdict(one) for one in found], text, as_json=as_json)


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


@command.command(short_help="Load a plugin no more.")
@click.argument("distribution")
@json_option
def disable(distribution: str, as_json: bool) -> None:
    """Load no plugin of DISTRIBUTION, until it is enabled. ADZ_PLUGINS wins over this."""
    from adapterhub.entry_points import GROUP, find_entry_points
    from adapterhub.plugin_choice import disable as write

    found = write(distribution, find_entry_points(GROUP))
    print_result({"disabled": found}, f"{found} is disabled", as_json=as_json)


@command.command(short_help="Load a plugin again.")
@click.argument("distribution")
@json_option
def enable(distribution: str, as_json: bool) -> None:
    """Load the plugins of DISTRIBUTION again."""
    from adapterhub.plugin_choice import enable as write

    found = write(distribution)
    print_result({"enabled": found}, f"{found} is enabled", as_json=as_json)


def _described(one: Description) -> str:
    lines = [
        f"{one.kind} {one.name}: {one.summary}",
        f"  from {one.distribution} {one.version}, {one.status}",
    ]
    if one.requires:
        lines.append(f"  needs {', '.join(one.requires)}")
    lines += [f"  {name}: {_plain(value)}" for name, value in one.facts.items() if _is_said(value)]
    for option in one.options:
        default = "" if option.default is None else f"={_plain(option.default)}"
        lines.append(f"  -o {option.name}{default}  ({option.values})")
        if option.description:
            words = " ".join(option.description.split())
            indent = " " * 6
            lines.append(textwrap.fill(words, 92, initial_indent=indent, subsequent_indent=indent))
    return "\n".join(lines)


def _is_said(value: object) -> bool:
    """A flag that is off is said too; what is empty, or holds descriptors of its own, is not."""
    if isinstance(value, tuple):
        return bool(value) and all(isinstance(part, str) for part in value)
    return value is not None and value != ""


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


def _row(record: PluginRecord) -> tuple[object, ...]:
    source = f"{record.distribution} {record.version}"
    hooks = ", ".join(hook.removeprefix("adapterhub_") for hook in record.hooks)
    milliseconds = round(record.seconds * 1000, 1)
    said = "; ".join(filter(None, [record.problem, _components(record)]))
    return record.name, source, record.status, milliseconds, hooks, said


def _components(record: PluginRecord) -> str:
    """By kind; a name that another plugin has too stands with its distribution."""
    parts = []
    for kind, names in record.components.items():
        shared = record.shared.get(kind, ())
        full = [f"{record.distribution}:{n}" if n in shared else n for n in names]
        parts.append(f"{kind}: {', '.join(full)}")
    return "; ".join(parts)
