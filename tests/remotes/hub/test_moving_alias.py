"""An alias on the Hub is there at every moment of its move, also when the move is killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from adapterhub.exchange.push import push
from adapterhub.exchange.remotes import open_remote
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry

QUIET = Silent()


@pytest.fixture
def sender(open_home: Callable[[str], Registry], commit_small: Any, hub: Any) -> Registry:
    """Two versions of sql here and on the Hub, where prod is the first."""
    registry = open_home("sender")
    for seed in range(2):
        commit_small(registry, "sql", seed=seed)
    registry.tag("sql@1", "prod")
    list(push(registry, open_remote("hub://org"), ["sql"], QUIET, every=True))
    registry.tag("sql@2", "prod")
    return registry


def number_of(tag: str) -> int:
    """What someone else finds at this moment, with the alias in the list too."""
    reader = open_remote("hub://org")
    found = reader.find("sql", tag)
    assert found is not None
    assert reader.tags("sql") == ["1", "2", "prod"]
    number: int = json.loads(found.manifest)["version"]
    return number


def watched(monkeypatch: pytest.MonkeyPatch, then: Callable[[int], None]) -> Any:
    """A remote that calls `then`, with a count, after each change of a tag."""
    remote: Any = open_remote("hub://org")
    calls = iter(range(1, 100))
    for name in ("create_tag", "delete_tag"):
        change = getattr(remote._api, name)

        def changed(*given: Any, change: Any = change, **options: Any) -> None:
            change(*given, **options)
            then(next(calls))

        monkeypatch.setattr(remote._api, name, changed)
    return remote


def test_a_reader_always_finds_it(sender: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    remote = watched(monkeypatch, lambda _: seen.append(number_of("prod")))
    list(push(sender, remote, ["sql@prod"], QUIET))
    assert seen == [1, 2, 2, 2]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_killed_move_is_finished_by_the_next(
    sender: Registry, hub: Any, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    def die(count: int) -> None:
        if count == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(push(sender, watched(monkeypatch, die), ["sql@prod"], QUIET))
    assert number_of("prod") == (1 if step == 1 else 2)
    seen: list[int] = []
    remote = watched(monkeypatch, lambda _: seen.append(number_of("prod")))
    sender.tag("sql@1", "prod")
    list(push(sender, remote, ["sql@prod"], QUIET))
    assert seen == sorted(seen, reverse=True)
    if step == 1:
        # It had not moved yet: only its mark was in the way, and stays until it moves.
        sender.tag("sql@2", "prod")
        list(push(sender, remote, ["sql@prod"], QUIET))
    tags = hub.repositories["org/sql"].tags
    assert sorted(tags) == ["prod", "v1", "v2"]
    assert tags["prod"] == tags["v2" if step == 1 else "v1"]
