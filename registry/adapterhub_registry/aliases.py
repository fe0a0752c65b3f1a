"""Moving, splitting, rolling back and removing aliases, each in a write transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from adapterhub.errors import AdzError, usage_error
from adapterhub.manifest import Manifest
from adapterhub.reference import Reference, check_alias, check_new_name, parse_reference
from adapterhub_registry import lookup, splits
from adapterhub_registry.database import Change


def tag(change: Change, reference: str, alias: str) -> sqlite3.Row:
    """Point `alias` at the version of `reference`; return that version's row."""
    parsed = parse_reference(reference)
    check_new_name(parsed.name)
    check_alias(alias)
    found = lookup.find(change.connection, parsed)
    number = found["number"]
    previous = lookup.alias_target(change.connection, parsed.name, alias)
    ended = splits.ended(change.connection, parsed.name, alias)
    if previous != number or ended:
        change.record(
            "tag", parsed.name, version=number, alias=alias, previous=previous, body=ended
        )
    return lookup.find(change.connection, parse_reference(f"{parsed.name}@{number}"))


def split(change: Change, name: str, alias: str, weights: Mapping[int, int]) -> sqlite3.Row:
    """Point `alias` at several versions by weight; return the row of the heaviest."""
    target = parse_reference(f"{check_new_name(name)}@{check_alias(alias)}")
    splits.check_weights(target, weights)
    _require_one_base(change.connection, target, weights)
    heaviest = splits.heaviest(weights)
    if splits.weights_of(change.connection, name, alias) != dict(weights):
        body = {"weights": splits.as_body(weights)}
        body |= splits.ended(change.connection, name, alias)
        previous = lookup.alias_target(change.connection, name, alias)
        change.record("split", name, version=heaviest, alias=alias, previous=previous, body=body)
    return lookup.find(change.connection, parse_reference(f"{name}@{heaviest}"))


def rollback(change: Change, name: str, alias: str) -> sqlite3.Row:
    """Point `alias` at the version before its last move that was not undone, or before it was
    split; a split is never returned to."""
    target = parse_reference(f"{name}@{check_alias(alias)}")
    lookup.find(change.connection, target)
    earlier = lookup.alias_moves(change.connection, name, alias)[:-1]
    number = next((version for version in reversed(earlier) if version is not None), None)
    if number is None:
        raise usage_error(f"{target} has no earlier version", f"see 'adz log {name}'")
    reference = parse_reference(f"{name}@{number}")
    lookup.find(change.connection, reference)
    change.record(
        "rollback",
        name,
        version=number,
        alias=alias,
        previous=lookup.alias_target(change.connection, name, alias),
        body=splits.ended(change.connection, name, alias),
    )
    return lookup.find(change.connection, reference)


def untag(change: Change, name: str, alias: str) -> None:
    """Remove an alias; its history stays."""
    target = parse_reference(f"{name}@{check_alias(alias)}")
    lookup.require_name(change.connection, name)
    if lookup.alias_target(change.connection, name, alias) is None:
        lookup.find(change.connection, target)
    drop(change, name, alias)


def drop(change: Change, name: str, alias: str) -> None:
    """Record that an alias which is there is removed."""
    previous = lookup.alias_target(change.connection, name, alias)
    ended = splits.ended(change.connection, name, alias)
    change.record("untag", name, alias=alias, previous=previous, body=ended)


def _require_one_base(
    connection: sqlite3.Connection, target: Reference, weights: Mapping[int, int]
) -> None:
    """Who asks for one alias must not get answers over two bases."""
    seen: dict[str, str] = {}
    for number in weights:
        row = lookup.find(connection, parse_reference(f"{target.name}@{number}"))
        digests = Manifest.model_validate_json(row["body"]).base.digests
        if digests is None:
            raise AdzError(
                f"{target} cannot be split: the base of {target.name}@{number} is not known",
                f"if you know it: adz import {target.name}@{number} --base NAME",
            )
        identity = digests.model_dump_json(exclude={"chat_template"})
        seen.setdefault(identity, f"{target.name}@{number}")
    if len(seen) > 1:
        raise AdzError(f"{target} cannot be split: {' and '.join(seen.values())} are of two bases")
