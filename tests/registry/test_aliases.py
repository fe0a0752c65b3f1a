"""Aliases and their history."""

from __future__ import annotations

from typing import Any

import pytest

from adapterhub.errors import AdzError


@pytest.fixture
def three(commit: Any, registry: Any) -> Any:
    for _ in range(3):
        commit()
    return registry


def test_an_alias_moves(three: Any) -> None:
    assert three.tag("sql@1", "prod").aliases == ("prod",)
    three.tag("sql@3", "prod")
    assert three.resolve("sql@prod").number == 3
    assert three.resolve("sql@1").aliases == ()


def test_the_history_names_who_when_from_and_to(three: Any) -> None:
    three.tag("sql@1", "prod")
    three.tag("sql@3", "prod")
    three.rollback("sql", "prod")
    three.untag("sql", "prod")
    entries = three.log("sql")[3:]
    assert [(e.action, e.previous, e.version) for e in entries] == [
        ("tag", None, 1),
        ("tag", 1, 3),
        ("rollback", 3, 1),
        ("untag", 1, None),
    ]
    assert all(e.actor and e.time.endswith("Z") and e.alias == "prod" for e in entries)
    assert [e.time for e in entries] == sorted(e.time for e in entries)


def test_setting_an_alias_where_it_is_records_nothing(three: Any) -> None:
    three.tag("sql@1", "prod")
    before = three.log("sql")
    three.tag("sql@1", "prod")
    assert three.log("sql") == before


def test_each_rollback_undoes_one_move(three: Any) -> None:
    for number in (1, 2, 3):
        three.tag(f"sql@{number}", "prod")
    assert three.rollback("sql", "prod").number == 2
    assert three.rollback("sql", "prod").number == 1
    with pytest.raises(AdzError, match="sql@prod has no earlier version"):
        three.rollback("sql", "prod")
    three.tag("sql@3", "prod")
    assert three.rollback("sql", "prod").number == 1
    assert three.resolve("sql@prod").number == 1


def test_a_removed_alias_begins_anew(three: Any) -> None:
    three.tag("sql@1", "prod")
    three.untag("sql", "prod")
    with pytest.raises(AdzError, match="has no alias 'prod'"):
        three.resolve("sql@prod")
    three.tag("sql@2", "prod")
    with pytest.raises(AdzError, match="no earlier version"):
        three.rollback("sql", "prod")


def test_a_rollback_to_a_removed_version_is_refused(three: Any) -> None:
    three.tag("sql@1", "prod")
    three.tag("sql@2", "prod")
    three.remove("sql@1")
    with pytest.raises(AdzError, match="sql@1 was removed"):
        three.rollback("sql", "prod")
    assert three.resolve("sql@prod").number == 2


@pytest.mark.parametrize("alias", ["latest", "7", "../x", "a..b", "", "Prod"])
def test_an_alias_outside_the_rule_is_refused(three: Any, alias: str) -> None:
    with pytest.raises(AdzError):
        three.tag("sql@1", alias)
    assert three.resolve("sql@1").aliases == ()


def test_an_unknown_alias_is_said_so(three: Any) -> None:
    for action in (three.rollback, three.untag):
        with pytest.raises(AdzError, match="sql has no alias 'prod'"):
            action("sql", "prod")
        with pytest.raises(AdzError, match="unknown adapter 'sq'"):
            action("sq", "prod")


def test_latest_is_the_highest_live_version(three: Any) -> None:
    three.remove("sql@3")
    assert three.resolve("sql").number == 2
    assert three.resolve("sql@latest").number == 2
