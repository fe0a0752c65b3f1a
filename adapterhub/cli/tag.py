"""`adz tag`: set, move, split, roll back and remove aliases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import format_weights, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.protocols import Registry


@click.command(short_help="Point an alias at a version.")
@click.argument("reference")
@click.argument("alias", required=False)
@click.option(
    "--split", is_flag=True, help="Point NAME@ALIAS=7:90,8:10 at versions 7 and 8, by weight."
)
@click.option("--rollback", is_flag=True, help="Point NAME@ALIAS where it pointed before.")
@click.option("--delete", is_flag=True, help="Remove NAME@ALIAS; its history stays.")
@json_option
def command(
    reference: str, alias: str | None, split: bool, rollback: bool, delete: bool, as_json: bool
) -> None:
    """Point ALIAS at the version REFERENCE, as in 'adz tag sql@7 prod'.

    With --split, --rollback or --delete, REFERENCE is the alias itself: 'adz tag --rollback
    sql@prod', or 'adz tag --split sql@prod=7:90,8:10'. A server answers each user of a split alias
    with one version, by the weights; elsewhere it means the heaviest. The next 'adz tag' of the
    alias, or a rollback, ends the split.
    """
    from adapterhub.errors import usage_error
    from adapterhub.plugins import open_registry

    chosen = [f"--{n}" for n, on in _flags(split, rollback, delete).items() if on]
    if len(chosen) > 1:
        raise usage_error(f"{' and '.join(chosen)} exclude each other")
    if split:
        _split_alias(open_registry(), reference, alias, as_json=as_json)
    elif chosen:
        name, alias = _parse_alias(reference, alias)
        _change(open_registry(), name, alias, delete=delete, as_json=as_json)
    elif alias is None:
        raise usage_error(f"which alias should point at {reference}?", f"adz tag {reference} prod")
    else:
        version = open_registry().tag(reference, alias)
        _print(version.name, alias, version.number, as_json=as_json)


def _flags(split: bool, rollback: bool, delete: bool) -> dict[str, bool]:
    return {"split": split, "rollback": rollback, "delete": delete}


def _change(registry: Registry, name: str, alias: str, *, delete: bool, as_json: bool) -> None:
    if delete:
        registry.untag(name, alias)
        _print(name, alias, None, as_json=as_json)
    else:
        _print(name, alias, registry.rollback(name, alias).number, as_json=as_json)


def _split_alias(registry: Registry, text: str, more: str | None, *, as_json: bool) -> None:
    reference, _, parts = text.partition("=")
    name, alias = _parse_alias(reference, more)
    weights = _parse_weights(parts, f"{name}@{alias}")
    version = registry.split(name, alias, weights)
    result = {"name": name, "alias": alias, "version": version.number, "weights": weights}
    print_result(result, f"{name}@{alias} -> {format_weights(weights)}", as_json=as_json)


def _parse_alias(reference: str, more: str | None) -> tuple[str, str]:
    from adapterhub.errors import usage_error
    from adapterhub.reference import parse_reference

    parsed = parse_reference(reference)
    if more is not None or "@" not in reference or parsed.kind != "alias":
        raise usage_error(f"{reference!r} is not one alias", "write NAME@ALIAS, such as sql@prod")
    return parsed.name, parsed.selector


def _parse_weights(text: str, alias: str) -> Mapping[int, int]:
    from adapterhub.errors import usage_error

    weights: dict[int, int] = {}
    for part in text.split(","):
        number, _, weight = part.partition(":")
        if not all(p.isascii() and p.isdigit() and len(p) < 10 for p in (number, weight)):
            raise usage_error(
                f"{part!r} is not a version and its weight",
                f"write versions and weights, such as {alias}=7:90,8:10",
            )
        if int(number) in weights:
            raise usage_error(f"version {int(number)} has two weights in {text!r}")
        weights[int(number)] = int(weight)
    return weights


def _print(name: str, alias: str, number: int | None, *, as_json: bool) -> None:
    text = f"{name}@{alias} -> {name}@{number}" if number else f"{name}@{alias} removed"
    print_result({"name": name, "alias": alias, "version": number}, text, as_json=as_json)
