"""`adz tag`: set, move, roll back and remove aliases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import json_option, print_result

if TYPE_CHECKING:
    from adapterhub.protocols import Registry


@click.command(short_help="Point an alias at a version.")
@click.argument("reference")
@click.argument("alias", required=False)
@click.option("--rollback", is_flag=True, help="Point NAME@ALIAS where it pointed before.")
@click.option("--delete", is_flag=True, help="Remove NAME@ALIAS; its history stays.")
@json_option
def command(reference: str, alias: str | None, rollback: bool, delete: bool, as_json: bool) -> None:
    """Point ALIAS at the version REFERENCE, as in 'adz tag sql@7 prod'.

    With --rollback or --delete, REFERENCE is the alias itself: 'adz tag --rollback sql@prod'.
    """
    from adapterhub.errors import usage_error
    from adapterhub.plugins import open_registry

    if rollback and delete:
        raise usage_error("--rollback and --delete exclude each other")
    if rollback or delete:
        name, alias = _split(reference, alias)
        _change(open_registry(), name, alias, delete=delete, as_json=as_json)
        return
    if alias is None:
        raise usage_error(f"which alias should point at {reference}?", f"adz tag {reference} prod")
    version = open_registry().tag(reference, alias)
    _print(version.name, alias, version.number, as_json=as_json)


def _change(registry: Registry, name: str, alias: str, *, delete: bool, as_json: bool) -> None:
    if delete:
        registry.untag(name, alias)
        _print(name, alias, None, as_json=as_json)
    else:
        _print(name, alias, registry.rollback(name, alias).number, as_json=as_json)


def _split(reference: str, alias: str | None) -> tuple[str, str]:
    from adapterhub.errors import usage_error
    from adapterhub.reference import parse_reference

    parsed = parse_reference(reference)
    if alias is not None or "@" not in reference or parsed.kind != "alias":
        raise usage_error(f"{reference!r} is not one alias", "write NAME@ALIAS, such as sql@prod")
    return parsed.name, parsed.selector


def _print(name: str, alias: str, number: int | None, *, as_json: bool) -> None:
    text = f"{name}@{alias} -> {name}@{number}" if number else f"{name}@{alias} removed"
    print_result({"name": name, "alias": alias, "version": number}, text, as_json=as_json)
