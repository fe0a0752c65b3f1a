"""Aliases that point to several versions, each with a weight: a canary beside what it may replace.

An alias that is split stands in `aliases` too, at its heaviest version, which is what it means
where nobody says who asks.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from typing import Any

from adapterhub.errors import usage_error
from adapterhub.manifest import sha256_of
from adapterhub.reference import Reference
from adapterhub_registry.journal import Event

# The parts of an alias that is split; `aliases` has the heaviest one.
SCHEMA = (
    """CREATE TABLE splits (
        name TEXT NOT NULL, alias TEXT NOT NULL, number INTEGER NOT NULL, weight INTEGER NOT NULL,
        PRIMARY KEY (name, alias, number),
        FOREIGN KEY (name, number) REFERENCES versions (name, number)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX splits_by_version ON splits (name, number)",
)

MOST_VERSIONS = 16
MOST_WEIGHT = 10**6


def check_weights(reference: Reference, weights: Mapping[int, int]) -> None:
    """Refuse what is no split: fewer than two versions, or weights that are no counts."""
    if not 2 <= len(weights) <= MOST_VERSIONS:
        raise usage_error(
            f"{reference} cannot be split over {len(weights)} versions",
            f"give 2 to {MOST_VERSIONS}, such as {reference}=7:90,8:10",
        )
    for number, weight in weights.items():
        if not 1 <= weight <= MOST_WEIGHT:
            raise usage_error(
                f"the weight of {reference.name}@{number} is {weight}",
                f"weights are whole numbers from 1 to {MOST_WEIGHT}",
            )


def heaviest(weights: Mapping[int, int]) -> int:
    """The version with the largest weight; of equal ones the older."""
    return min(weights, key=lambda number: (-weights[number], number))


def choose(alias: str, weights: Mapping[int, int], key: str) -> int:
    """The version for `key`, the same one each time (weighted rendezvous hashing).

    alias: `name@alias`. A version whose weight rises keeps every key that it has, and one that
    leaves gives its keys to the others by their weights.
    """

    def score(number: int) -> float:
        digest = sha256_of(f"{alias}\0{number}\0{key}".encode()).removeprefix("sha256:")
        chance = (int(digest[:13], 16) + 0.5) / 2**52
        return -weights[number] / math.log(chance)

    return max(sorted(weights), key=score)


def weights_of(connection: sqlite3.Connection, name: str, alias: str) -> dict[int, int]:
    """version -> weight of an alias that is split; empty where it is not."""
    rows = connection.execute(
        "SELECT number, weight FROM splits WHERE name = ? AND alias = ? ORDER BY number",
        (name, alias),
    )
    return {row["number"]: row["weight"] for row in rows}


def having(connection: sqlite3.Connection, name: str, number: int) -> list[str]:
    """The aliases of which a version is a part."""
    query = "SELECT alias FROM splits WHERE name = ? AND number = ? ORDER BY alias"
    return [row["alias"] for row in connection.execute(query, (name, number))]


def read(connection: sqlite3.Connection, name: str | None) -> dict[str, dict[int, int]]:
    """`name@alias` -> version -> weight, of one name or of all."""
    where = "" if name is None else "WHERE name = ?"
    found: dict[str, dict[int, int]] = {}
    for row in connection.execute(
        f"SELECT * FROM splits {where} ORDER BY name, alias, number",  # noqa: S608
        () if name is None else (name,),
    ):
        alias = found.setdefault(f"{row['name']}@{row['alias']}", {})
        alias[row["number"]] = row["weight"]
    return found


def as_body(weights: Mapping[int, int]) -> dict[str, int]:
    """How an event carries weights: JSON's keys are texts."""
    return {str(number): weight for number, weight in weights.items()}


def from_body(body: Mapping[str, Any], field: str) -> dict[int, int]:
    """The weights in a field of an event's body; empty where it has none."""
    return {int(number): int(weight) for number, weight in body.get(field, {}).items()}


def ended(connection: sqlite3.Connection, name: str, alias: str) -> dict[str, Any]:
    """What an event must tell of the split that it ends, for its body."""
    weights = weights_of(connection, name, alias)
    return {"ended": as_body(weights)} if weights else {}


def point(connection: sqlite3.Connection, event: Event) -> None:
    """Where an alias points after an event. A damaged journal can lack the version."""
    alias = (event.name, event.alias)
    connection.execute("DELETE FROM splits WHERE name = ? AND alias = ?", alias)
    if event.action == "untag":
        connection.execute("DELETE FROM aliases WHERE name = ? AND alias = ?", alias)
        return
    known = "FROM versions WHERE name = ?1 AND number = ?3"
    connection.execute(
        f"INSERT OR REPLACE INTO aliases SELECT ?1, ?2, number {known}",
        (*alias, event.version),
    )
    connection.executemany(
        f"INSERT INTO splits SELECT ?1, ?2, number, ?4 {known}",
        [(*alias, *part) for part in from_body(event.body, "weights").items()],
    )
