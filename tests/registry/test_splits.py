"""An alias that points to several versions by weight."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub.manifest import BaseLink
from adapterhub_registry.store import LocalRegistry

KEYS = [f"user {number}" for number in range(1500)]


@pytest.fixture
def three(commit: Any, registry: Any, make_base: Any) -> Any:
    base = make_base()
    registry.add_base(base)
    for seed in range(3):
        commit(seed=seed, base=BaseLink(status="recorded", name="llama", digests=base.digests))
    return registry


def who_gets(registry: Any) -> dict[str, int]:
    return {key: registry.resolve("sql@prod", key).number for key in KEYS}


def test_each_version_gets_its_share_and_each_key_one_version(three: Any) -> None:
    assert three.split("sql", "prod", {1: 90, 2: 10}).number == 1
    got = who_gets(three)
    assert got == who_gets(three)
    share = Counter(got.values())[2] / len(KEYS)
    # Three standard deviations of a binomial share.
    assert abs(share - 0.1) < 3 * math.sqrt(0.1 * 0.9 / len(KEYS))


def test_the_choice_is_that_of_weighted_rendezvous_hashing(three: Any) -> None:
    """Computed again as it is defined; it must not change from one release to the next."""
    weights = {1: 3, 2: 2, 3: 1}
    three.split("sql", "prod", weights)

    def expected(key: str) -> int:
        scores = {}
        for number, weight in weights.items():
            digest = hashlib.sha256(f"sql@prod\0{number}\0{key}".encode()).hexdigest()
            scores[number] = weight / -math.log((int(digest[:13], 16) + 0.5) / 2**52)
        return max(scores, key=lambda number: scores[number])

    got = who_gets(three)
    assert {key: expected(key) for key in KEYS} == got
    assert set(got.values()) == {1, 2, 3}


def test_a_larger_share_keeps_whom_it_had(three: Any) -> None:
    three.split("sql", "prod", {1: 90, 2: 10})
    before = who_gets(three)
    three.split("sql", "prod", {1: 80, 2: 20})
    after = who_gets(three)
    assert all(after[key] == 2 for key in KEYS if before[key] == 2)
    assert Counter(after.values())[2] > 1.5 * Counter(before.values())[2]


def test_without_a_key_it_is_the_heaviest_and_of_equal_ones_the_older(three: Any) -> None:
    three.split("sql", "prod", {3: 20, 2: 80})
    assert three.resolve("sql@prod").number == 2
    three.split("sql", "prod", {3: 1, 2: 1})
    assert three.resolve("sql@prod").number == 2
    assert three.resolve("sql@2").aliases == ("prod",)


def test_a_tag_or_a_rollback_ends_it_at_once(three: Any) -> None:
    three.tag("sql@1", "prod")
    three.split("sql", "prod", {1: 50, 2: 50})
    three.split("sql", "prod", {1: 20, 2: 80})
    assert three.rollback("sql", "prod").number == 1
    assert set(who_gets(three).values()) == {1}
    assert three.splits() == {}
    three.split("sql", "prod", {1: 50, 2: 50})
    # To the version that was the heaviest all along.
    three.tag("sql@1", "prod")
    assert set(who_gets(three).values()) == {1}
    three.split("sql", "prod", {1: 50, 2: 50})
    three.tag("sql@2", "prod")
    # A canary that was ended is not begun again by undoing what came after it.
    assert three.rollback("sql", "prod").number == 1
    assert three.splits("sql") == {}


def test_a_split_with_nothing_before_it_cannot_be_rolled_back(three: Any) -> None:
    three.split("sql", "prod", {1: 50, 2: 50})
    with pytest.raises(AdzError, match="sql@prod has no earlier version"):
        three.rollback("sql", "prod")
    assert three.splits("sql") == {"sql@prod": {1: 50, 2: 50}}


def test_the_history_tells_the_weights(three: Any) -> None:
    three.tag("sql@1", "prod")
    three.split("sql", "prod", {1: 90, 2: 10})
    three.split("sql", "prod", {1: 90, 2: 10})
    three.rollback("sql", "prod")
    told = [(e.action, e.previous, e.version, e.weights, e.ended) for e in three.log("sql")[4:]]
    assert told == [
        ("split", 1, 1, {1: 90, 2: 10}, {}),
        ("rollback", 1, 1, {}, {1: 90, 2: 10}),
    ]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({1: 100}, "split over 1 versions"),
        ({}, "split over 0 versions"),
        ({1: 0, 2: 100}, "weight of sql@1 is 0"),
        ({1: -1, 2: 2}, "weight of sql@1 is -1"),
        ({1: 10**7, 2: 1}, "weight of sql@1"),
        ({1: 50, 9: 50}, "sql has no version 9"),
        (dict.fromkeys(range(1, 18), 1), "split over 17 versions"),
    ],
)
def test_what_is_no_split_is_refused(three: Any, weights: dict[int, int], words: str) -> None:
    three.tag("sql@1", "prod")
    before = three.log("sql")
    with pytest.raises(AdzError, match=words):
        three.split("sql", "prod", weights)
    assert three.log("sql") == before
    assert three.splits() == {}


def test_versions_of_two_bases_or_of_none_are_refused(
    three: Any, commit: Any, make_base: Any
) -> None:
    commit(seed=3)
    with pytest.raises(AdzError, match="the base of sql@4 is not known"):
        three.split("sql", "prod", {1: 50, 4: 50})
    other = make_base("other", seed=1)
    three.add_base(other)
    commit(seed=4, base=BaseLink(status="recorded", name="other", digests=other.digests))
    with pytest.raises(AdzError, match=r"sql@1 and sql@5 are of two bases"):
        three.split("sql", "prod", {1: 50, 5: 50})


def test_a_part_cannot_be_removed_and_a_whole_name_comes_back_split(three: Any) -> None:
    three.split("sql", "prod", {1: 90, 2: 10})
    with pytest.raises(AdzError, match="sql@2 is a part of sql@prod") as raised:
        three.remove("sql@2")
    assert raised.value.hint == "first end the split: adz tag sql@1 prod"
    with pytest.raises(AdzError, match="sql@1 is prod"):
        three.remove("sql@1")
    three.remove("sql")
    assert three.splits() == {}
    three.restore("sql")
    assert three.splits() == {"sql@prod": {1: 90, 2: 10}}


def test_it_is_rebuilt_from_the_journal(three: Any, home: Any) -> None:
    three.split("sql", "prod", {1: 90, 2: 10})
    three.split("sql", "beta", {1: 1, 3: 1})
    three.tag("sql@3", "beta")
    before = who_gets(three)
    for file in three.database.path.parent.glob("registry.sqlite3*"):
        file.unlink()
    again = LocalRegistry(home)
    assert again.splits() == {"sql@prod": {1: 90, 2: 10}}
    assert again.resolve("sql@beta", "anyone").number == 3
    assert who_gets(again) == before


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE splits SET weight = 99 WHERE number = 2",
        "DELETE FROM splits WHERE number = 2",
        "INSERT INTO splits VALUES ('sql', 'prod', 3, 1)",
    ],
)
def test_fsck_compares_it_with_the_history_and_repairs_it(
    three: Any, home: Any, damage: str
) -> None:
    three.split("sql", "prod", {1: 90, 2: 10})
    with three.database.reading() as connection:
        connection.execute(damage)
    found = list(three.check())
    assert any("splits" in finding.problem for finding in found)
    list(three.mend(found))
    again = LocalRegistry(home)
    assert again.splits() == {"sql@prod": {1: 90, 2: 10}}
    assert list(again.check()) == []


def test_a_registry_from_before_splits_is_taken_over(three: Any, home: Any) -> None:
    three.tag("sql@1", "prod")
    with three.database.reading() as connection:
        connection.execute("DROP TABLE splits")
        connection.execute("DROP INDEX latest_by_weights_method")
        connection.execute("DROP INDEX latest_by_weights_method_created")
        connection.execute("PRAGMA user_version = 2")
    opened = LocalRegistry(home)
    assert opened.splits() == {}
    opened.split("sql", "prod", {1: 1, 2: 1})
    assert list(opened.check()) == []


def test_the_revision_grows_with_each_change_and_with_nothing_else(three: Any) -> None:
    version = three.resolve("sql@1")
    before = three.revision()
    three.resolve("sql@2", "somebody")
    three.lease([version], "somebody", 60)
    assert three.revision() == before
    three.split("sql", "prod", {1: 1, 2: 1})
    assert three.revision() == before + 1
