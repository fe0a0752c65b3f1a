"""The registry benchmark's logic: what is filled, what is asked of it, the ratios to the peers."""

from __future__ import annotations

from pathlib import Path

import pytest
from registry_speed import lookups, peers, timing
from registry_speed.fill import BASES, fill


@pytest.fixture
def many(home: Path):
    return fill(home, 800)


def test_a_filled_registry_is_what_commits_would_have_made(many):
    registry, names = many
    assert len(registry.versions()) == 800
    assert len(names) == len(set(names)) == 440
    assert len(registry.versions(names[0])) == 10
    assert registry.resolve(f"{names[0]}@prod").number == 1
    # Only the stored files are not there, and the base models.
    found = {finding.problem for finding in registry.check(bases=False)}
    assert found == {"missing"}


def test_every_operation_asks_for_what_its_label_says(many):
    registry, names = many
    calls = lookups.operations(registry, names)
    assert {label.partition(":")[0] for label in calls} == {"page", "filter", "resolve"}
    for label, make in calls.items():
        answer = make(1)()
        if label.startswith("resolve"):
            assert answer.name in names
        else:
            fewest = lookups.PAGE if label.startswith("page") else 1
            assert fewest <= len(answer) <= lookups.PAGE
    assert {line.base for line in calls["filter: base"](1)()} == {"base-1"}
    assert BASES == 5
    best = [line.score for line in calls["filter: metric, sorted by it"](0)()]
    assert best == sorted(best)


def test_ratios_are_of_medians():
    ours = {"commit": [0.002, 0.001, 0.9], "list": [0.001]}
    found = peers.ratios({"adapterhub": ours, "peer": {"commit": [0.004, 0.006], "version": "1"}})
    assert found == {"peer": {"commit": pytest.approx(2.5)}}
    assert timing.median([0.003, 0.001, 0.002]) == pytest.approx(2)
    assert timing.p99([0.001] * 99 + [0.5]) == pytest.approx(500)
