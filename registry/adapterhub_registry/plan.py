"""Where a listing begins, so that a page of a hundred thousand adapters looks at few of them.

SQLite keeps no statistics here, so the choice is made by counting: a filter that few versions
pass names its rows itself; else they are read in the order of the page, which ends early.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from adapterhub.reference import DERIVED

Scope = Literal["latest", "live", "removed"]

SORTS = ("name", "created", "size", "rank", "metric")

_SCOPES = {
    "latest": "v.latest = 1",
    "live": "v.state = 'live'",
    "removed": "v.state = 'removed'",
}
_FACTS = "v.method, v.made_by, v.rule, v.rank, v.base, v.size, v.created, v.ended"
_NOT_DERIVED = f"NOT (v.name > '{DERIVED}/' AND v.name < '{DERIVED}0')"
_FEW = 1000
# Columns that have indexes together.
_PAIR = {"weights", "method"}


@dataclass(frozen=True, slots=True)
class Filter:
    """What a line must pass. condition: tests one line `v`. count: a row for each that passes,
    without looking at `versions`. rows: the rowids that pass. column: what has an index
    `latest_by_COLUMN` in the order of names."""

    condition: str
    count: str
    rows: str
    column: str = ""


class Plan:
    """What is listed, in which order. scored: whether the filters read the score `s`. derived:
    whether what servers made for requests is listed, too."""

    def __init__(self, scope: Scope, sort: str, *, reverse: bool) -> None:
        self.scope: Scope = scope
        self.scored = False
        self.derived = False
        self.arguments: dict[str, Any] = {}
        self._sort = sort
        self._direction = " DESC" if reverse else ""
        self._filters: list[Filter] = []

    def add(self, filter_: Filter, **arguments: Any) -> None:
        """One more filter; `arguments` are the values of its parameters."""
        self._filters.append(filter_)
        self.arguments |= arguments

    def add_column(self, column: str, value: str) -> None:
        """A filter by a column of `versions`."""
        query = f"FROM versions WHERE latest = 1 AND {column} = :{column}"
        condition = f"v.{column} = :{column}"
        self.add(
            Filter(condition, f"SELECT 1 {query}", f"SELECT rowid {query}", column),
            **{column: value},
        )

    def sql(self, connection: sqlite3.Connection) -> str:
        """The page, and only for its lines what is known of their names: the columns are the
        fields of a `Listing`."""
        where = [_SCOPES[self.scope], *(f.condition for f in self._filters)]
        if not self.derived:
            where.append(_NOT_DERIVED)
        source = self._source(connection, where)
        score = "s.value" if self.scored else "NULL"
        order = self._order()
        return f"""
            WITH page AS MATERIALIZED (
                SELECT v.name, v.number, {_FACTS}, {score} AS score FROM {source}
                WHERE {" AND ".join(where)} ORDER BY {order} LIMIT :limit OFFSET :offset
            )
            SELECT v.name, v.number, ifnull(a.versions, 0),
                (SELECT group_concat(alias || '@' || number, ' ')
                 FROM aliases WHERE name = v.name),
                {_FACTS}, v.score
            FROM page v LEFT JOIN adapters a ON a.name = v.name
            ORDER BY {order.replace("s.value", "v.score")}
        """

    def _source(self, connection: sqlite3.Connection, where: list[str]) -> str:
        """The tables, with the index to begin at; `where` may get one more condition."""
        score = "scores s ON s.name = v.name AND s.number = v.number"
        joined = f" CROSS JOIN {score}" if self.scored else ""
        if self.scope != "latest":
            return f"versions v{joined}"
        index, covered = self._in_order()
        # Where all that pass lie together and in order, nothing needs to be counted.
        few = None if covered == len(self._filters) > 0 else self._rarest(connection)
        if few is not None:
            where.append(f"v.rowid IN ({few.rows})")
            return f"versions v NOT INDEXED{joined}"
        if self._sort == "metric":
            version = "versions v ON v.name = s.name AND v.number = s.number"
            return f"scores s INDEXED BY scores_by_value CROSS JOIN {version}"
        return f"versions v INDEXED BY latest_by_{index}{joined}"

    def _in_order(self) -> tuple[str, int]:
        """The index that has the versions in the order of the page, of those the one that most
        filters are columns of; and how many these are."""
        columns = {f.column for f in self._filters if f.column}
        if columns >= _PAIR and self._sort in ("name", "created"):
            ending = "" if self._sort == "name" else f"_{self._sort}"
            return f"weights_method{ending}", len(_PAIR)
        if columns and self._sort == "name":
            return min(columns), 1
        return self._sort, 0

    def _rarest(self, connection: sqlite3.Connection) -> Filter | None:
        """The filter that the fewest pass, where these are few."""
        counts = {}
        for filter_ in self._filters:
            query = f"SELECT count(*) FROM ({filter_.count} LIMIT {_FEW})"
            counts[filter_] = connection.execute(query, self.arguments).fetchone()[0]
        found = min(counts, key=lambda f: counts[f], default=None)
        return found if found is not None and counts[found] < _FEW else None

    def _order(self) -> str:
        column = "s.value" if self._sort == "metric" else f"v.{self._sort}"
        parts = [column] if self._sort == "name" else [column, "v.name"]
        # A name has one latest version.
        parts += ["v.number"] if self.scope != "latest" else []
        return ", ".join(part + self._direction for part in parts)
