"""Moving, rolling back and removing aliases, each in a write transaction."""

from __future__ import annotations

import sqlite3

from adapterhub.errors import usage_error
from adapterhub.reference import check_alias, parse_reference
from adapterhub_registry import lookup
from adapterhub_registry.database import Change


def tag(change: Change, reference: str, alias: str) -> sqlite3.Row:
    """Point `alias` at the version of `reference`; return that version's row."""
    parsed = parse_reference(reference)
    check_alias(alias)
    found = lookup.find(change.connection, parsed)
    previous = lookup.alias_target(change.connection, parsed.name, alias)
    if previous != found["number"]:
        change.record("tag", parsed.name, version=found["number"], alias=alias, previous=previous)
    return lookup.find(change.connection, parsed)


def rollback(change: Change, name: str, alias: str) -> sqlite3.Row:
    """Point `alias` where it pointed before its last move that was not undone."""
    target = parse_reference(f"{name}@{check_alias(alias)}")
    lookup.find(change.connection, target)
    moves = lookup.alias_moves(change.connection, name, alias)
    if len(moves) < 2:
        raise usage_error(f"{target} has no earlier version", f"see 'adz log {name}'")
    earlier = parse_reference(f"{name}@{moves[-2]}")
    lookup.find(change.connection, earlier)
    change.record("rollback", name, version=moves[-2], alias=alias, previous=moves[-1])
    return lookup.find(change.connection, earlier)


def untag(change: Change, name: str, alias: str) -> None:
    """Remove an alias; its history stays."""
    target = parse_reference(f"{name}@{check_alias(alias)}")
    lookup.require_name(change.connection, name)
    previous = lookup.alias_target(change.connection, name, alias)
    if previous is None:
        lookup.find(change.connection, target)
    change.record("untag", name, alias=alias, previous=previous)
