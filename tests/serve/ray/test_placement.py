"""Which replica an adapter belongs to."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest


@pytest.fixture
def placement() -> Any:
    pytest.importorskip("ray")
    from adapterhub_ray.router import Placement

    return Placement(most=4)


NONE_HELD: dict[str, list[str]] = {"x": [], "y": []}


def test_an_adapter_keeps_its_replica_and_new_ones_spread(placement: Any) -> None:
    first = {name: placement.replica(name, NONE_HELD) for name in "abcdef"}
    assert Counter(first.values()) == {"x": 3, "y": 3}
    assert {name: placement.replica(name, NONE_HELD) for name in "fedcba"} == first


def test_an_adapter_moves_when_its_replica_is_gone(placement: Any) -> None:
    home = placement.replica("a", NONE_HELD)
    (other,) = NONE_HELD.keys() - {home}
    assert placement.replica("a", {other: []}) == other
    assert placement.replica("a", NONE_HELD) == other


def test_a_new_router_believes_the_replicas(placement: Any) -> None:
    assert placement.replica("a", {"x": [], "y": ["a"]}) == "y"
    assert placement.replica("b", {"x": ["b"], "y": []}) == "x"


def test_what_was_not_asked_for_long_is_forgotten(placement: Any) -> None:
    for number in range(100):
        placement.replica(f"n{number}", NONE_HELD)
    assert len(placement._home) == 8
    assert set(placement._home) == {f"n{number}" for number in range(92, 100)}
