"""Leases: who needs which version until when."""

from __future__ import annotations

from typing import Any

import pytest

from adapterhub.errors import EXIT_USAGE, AdzError
from adapterhub_registry import leases


def held(registry: Any) -> list[tuple[str, str]]:
    return [(lease.holder, lease.version) for lease in registry.leases()]


def test_a_holder_holds_what_it_asked_for_last(commit: Any, registry: Any) -> None:
    first, second, french = commit(), commit(), commit("french")
    registry.lease([first, french], "a server", 60)
    registry.lease([first], "a push", 60)
    assert held(registry) == [("a push", "sql@1"), ("a server", "french@1"), ("a server", "sql@1")]
    registry.lease([second, second], "a server", 60)
    assert held(registry) == [("a push", "sql@1"), ("a server", "sql@2")]
    registry.lease([], "a server", 0)
    assert held(registry) == [("a push", "sql@1")]


def test_it_runs_out(commit: Any, registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    version = commit()
    registry.lease([version], "a server", 60)
    until = registry.leases()[0].until
    assert until.endswith("Z")
    monkeypatch.setattr(leases, "utc_now", lambda: until)
    assert registry.leases() == []
    # What ran out goes with the next lease.
    registry.lease([version], "a push", 60)
    with registry.database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM leases").fetchone()[0] == 1


def test_it_is_no_part_of_the_history(commit: Any, registry: Any) -> None:
    version = commit()
    before = registry.database.journal.path.read_bytes()
    registry.lease([version], "a server", 60)
    assert registry.database.journal.path.read_bytes() == before
    registry.database.path.unlink()
    assert registry.leases() == []


def test_what_is_gone_cannot_be_held(commit: Any, registry: Any) -> None:
    version = commit()
    registry.remove("sql")
    registry.lease([version], "a server", 60)
    registry.lease([], "a server", 0)
    registry.collect(grace_seconds=0, retention_seconds=0)
    with pytest.raises(AdzError, match="'adz gc' deleted its files") as caught:
        registry.lease([version], "a server", 60)
    assert caught.value.exit_code == EXIT_USAGE
    with pytest.raises(AdzError, match="a lease needs the name of its holder"):
        registry.lease([], "", 60)
