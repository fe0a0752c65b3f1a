"""One line for each adapter or version, from the index alone: no manifest is read.

A page costs about the same whatever the number of adapters: `plan.py` chooses where to begin.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping

from adapterhub.errors import unknown_name, usage_error
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Listing
from adapterhub.reference import DERIVED
from adapterhub.specs import MergeRule, Method
from adapterhub_registry.plan import SORTS, Filter, Plan, Scope

_CONDITION = re.compile(r"\s*([^\s<>=!]+)\s*(?:(>=|<=|==|=|>|<)\s*(\S+)\s*)?")


def listing(
    connection: sqlite3.Connection,
    filters: Mapping[str, str | None],
    *,
    scope: Scope,
    sort: str,
    reverse: bool,
    limit: int | None,
    offset: int,
) -> list[Listing]:
    """See `protocols.Registry.listing`. filters: base, method, rule, alias, name and metric."""
    if sort not in SORTS:
        raise unknown_name("order", sort, SORTS)
    if sort == "metric" and filters["metric"] is None:
        raise usage_error("by which metric should the adapters be sorted?", "give --metric NAME")
    plan = Plan(scope, sort, reverse=reverse)
    for key, value in filters.items():
        if value is not None:
            _FILTERS[key](connection, plan, value)
    plan.arguments |= {"limit": -1 if limit is None else limit, "offset": offset}
    rows = connection.execute(plan.sql(connection), plan.arguments)
    return [Listing(row[0], row[1], row[2], _aliases(row[3]), *row[4:]) for row in rows]


def _by_base(connection: sqlite3.Connection, plan: Plan, base: str) -> None:
    """By the weights of a base that is known here, by the recorded name of any other."""
    row = connection.execute("SELECT weights FROM bases WHERE name = ?", (base,)).fetchone()
    if row:
        plan.add_column("weights", row["weights"])
        return
    plan.add_column("base", base)
    if not _is_there(connection, "base", base):
        known = {r["name"] for r in connection.execute("SELECT name FROM bases")}
        raise unknown_name("base", base, known | _distinct(connection, "base"))


def _by_method(connection: sqlite3.Connection, plan: Plan, method: str) -> None:
    plan.add_column("method", method)
    if not _is_there(connection, "method", method):
        _require("method", method, _distinct(connection, "method"), Method)


def _by_rule(connection: sqlite3.Connection, plan: Plan, rule: str) -> None:
    plan.add_column("rule", rule)
    if not _is_there(connection, "rule", rule):
        _require("merge rule", rule, _distinct(connection, "rule"), MergeRule)


def _by_alias(connection: sqlite3.Connection, plan: Plan, alias: str) -> None:
    """Of the latest versions those whose name has it, else the versions that have it."""
    same = "a.name = v.name" + (" AND a.number = v.number" * (plan.scope != "latest"))
    of_latest = "SELECT v.rowid FROM aliases a JOIN versions v ON v.name = a.name AND v.latest = 1"
    plan.add(
        Filter(
            condition=f"EXISTS (SELECT 1 FROM aliases a WHERE a.alias = :alias AND {same})",
            count="SELECT 1 FROM aliases WHERE alias = :alias",
            rows=f"{of_latest} WHERE a.alias = :alias",
        ),
        alias=alias,
    )


def _by_name(connection: sqlite3.Connection, plan: Plan, pattern: str) -> None:
    # GLOB alone would look at every name.
    prefix = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    plan.derived = prefix.startswith(f"{DERIVED}/")
    span = "{0}name >= :low AND {0}name < :high AND {0}name GLOB :pattern"
    plan.add(
        Filter(
            condition=span.format("v."),
            count=f"SELECT 1 FROM adapters WHERE {span.format('')}",
            rows=f"SELECT rowid FROM versions WHERE latest = 1 AND {span.format('')}",
        ),
        pattern=pattern,
        low=prefix,
        high=prefix + "\U0010ffff",
    )


def _by_metric(connection: sqlite3.Connection, plan: Plan, condition: str) -> None:
    match = _CONDITION.fullmatch(condition)
    if not match:
        raise usage_error(f"{condition!r} is no condition", "write it as 'exact_match>=0.8'")
    metric, operator, bound = match.groups()
    within = "s.metric = :metric" + (f" AND s.value {operator} :bound" if operator else "")
    same = "v.name = s.name AND v.number = s.number"
    plan.scored = True
    plan.add(
        Filter(
            condition=within,
            count=f"SELECT 1 FROM scores s WHERE {within}",
            rows=f"SELECT v.rowid FROM scores s JOIN versions v ON {same} WHERE {within}",
        ),
        metric=metric,
        bound=_number(bound) if operator else None,
    )
    known = "SELECT 1 FROM scores WHERE metric = ? LIMIT 1"
    if connection.execute(known, (metric,)).fetchone() is None:
        rows = connection.execute("SELECT DISTINCT metric FROM scores")
        raise unknown_name("metric", metric, [row["metric"] for row in rows])


_FILTERS: dict[str, Callable[[sqlite3.Connection, Plan, str], None]] = {
    "base": _by_base,
    "method": _by_method,
    "rule": _by_rule,
    "alias": _by_alias,
    "name": _by_name,
    "metric": _by_metric,
}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise usage_error(f"{text!r} is not a number", "write it as 'exact_match>=0.8'") from None


def _is_there(connection: sqlite3.Connection, column: str, value: str) -> bool:
    query = f"SELECT 1 FROM versions WHERE latest = 1 AND {column} = ? LIMIT 1"
    return connection.execute(query, (value,)).fetchone() is not None


def _distinct(connection: sqlite3.Connection, column: str) -> set[str]:
    query = f"SELECT DISTINCT {column} FROM versions WHERE latest = 1 AND {column} NOT NULL"
    return {row[0] for row in connection.execute(query)}


def _require(word: str, name: str, stored: set[str], kind: type[Method | MergeRule]) -> None:
    known = stored | load_plugins().components(kind).keys()
    if name not in known:
        raise unknown_name(word, name, known)


def _aliases(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    pairs = [pair.rpartition("@") for pair in text.split(" ")]
    return {alias: int(number) for alias, _, number in sorted(pairs)}
