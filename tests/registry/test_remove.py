"""Removing versions and bringing them back."""

from __future__ import annotations

from typing import Any

import pytest

from adapterhub.errors import EXIT_FAILED, EXIT_USAGE, AdzError
from adapterhub_registry.store import LocalRegistry


def test_a_removed_version_is_gone_and_its_number_too(commit: Any, registry: Any) -> None:
    commit(), commit()
    assert [v.reference for v in registry.remove("sql@2")] == ["sql@2"]
    with pytest.raises(AdzError, match="sql@2 was removed"):
        registry.resolve("sql@2")
    assert commit().number == 3
    assert [e.action for e in registry.log("sql")] == ["commit", "commit", "remove", "commit"]


def test_a_removed_name_keeps_its_numbers_and_its_history(commit: Any, registry: Any) -> None:
    commit(), commit()
    registry.tag("sql@1", "prod")
    assert [v.number for v in registry.remove("sql")] == [1, 2]
    assert registry.names() == []
    assert registry.versions("sql") == []
    with pytest.raises(AdzError, match="every version of sql was removed"):
        registry.resolve("sql")
    assert commit().number == 3
    assert [e.action for e in registry.log("sql")][3:] == ["untag", "remove", "remove", "commit"]
    assert not list(registry.check())


def test_removing_latest_by_name_removes_one_version(commit: Any, registry: Any) -> None:
    commit(), commit()
    assert [v.number for v in registry.remove("sql@latest")] == [2]
    assert registry.resolve("sql").number == 1


def test_a_version_with_an_alias_stays(commit: Any, registry: Any) -> None:
    commit(), commit()
    registry.tag("sql@1", "prod")
    with pytest.raises(AdzError, match="sql@1 is prod"):
        registry.remove("sql@1")
    assert registry.resolve("sql@prod").number == 1


def test_a_removed_version_comes_back_as_it_was(commit: Any, registry: Any) -> None:
    first, second = commit(seed=1), commit(seed=2)
    registry.remove("sql@2")
    restored = registry.restore("sql@2")
    assert restored == [second]
    assert registry.resolve("sql") == second
    registry.remove("sql@1")
    assert registry.restore(f"sql@{first.digest[:20]}") == [first]
    registry.path(first)
    assert [e.action for e in registry.log("sql")][2:] == ["remove", "restore"] * 2
    assert not list(registry.check())


def test_a_name_comes_back_with_the_aliases_that_went_with_it(commit: Any, registry: Any) -> None:
    commit(), commit(), commit()
    registry.tag("sql@1", "prod")
    registry.tag("sql@2", "beta")
    registry.tag("sql@3", "old")
    registry.untag("sql", "old")
    registry.remove("sql@3")
    registry.remove("sql")
    assert [v.reference for v in registry.restore("sql")] == ["sql@1", "sql@2", "sql@3"]
    with registry.database.reading() as connection:
        rows = connection.execute("SELECT alias, number FROM aliases ORDER BY alias")
        assert [tuple(row) for row in rows] == [("beta", 2), ("prod", 1)]
    assert registry.resolve("sql").number == 3


def test_an_alias_that_was_set_anew_meanwhile_stays(commit: Any, registry: Any) -> None:
    commit()
    registry.tag("sql@1", "prod")
    registry.remove("sql")
    commit()
    registry.tag("sql@2", "prod")
    assert [v.reference for v in registry.restore("sql")] == ["sql@1"]
    assert registry.resolve("sql@prod").number == 2


@pytest.mark.parametrize(
    ("reference", "message", "code"),
    [
        ("sql@1", "sql@1 is not removed", EXIT_USAGE),
        ("sql@9", "sql has no version 9", EXIT_USAGE),
        ("sql", "no version of sql can be restored (see 'adz log sql')", EXIT_USAGE),
        ("sqll", "unknown adapter 'sqll' (did you mean sql?)", EXIT_USAGE),
        ("sql@prod", "sql has no alias 'prod'", EXIT_USAGE),
        ("../sql", "'../sql' is not a valid name", EXIT_USAGE),
        ("gone@1", "gone@1 was removed, and 'adz gc' deleted its files", EXIT_USAGE),
        ("broken@1", "broken@1 cannot be restored: its file sha256:", EXIT_FAILED),
    ],
)
def test_what_cannot_be_restored_says_why(
    commit: Any, registry: Any, reference: str, message: str, code: int
) -> None:
    commit(), commit("gone", seed=1)
    registry.remove("gone")
    registry.collect(grace_seconds=0, retention_seconds=0)
    broken = commit("broken", seed=2)
    registry.remove("broken")
    registry.blobs.path(broken.manifest.files["adapter_model.safetensors"].sha256).unlink()
    before = registry.listing(scope="live")
    with pytest.raises(AdzError) as caught:
        registry.restore(reference)
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == code
    assert registry.listing(scope="live") == before


def test_a_removal_says_how_to_undo_it(commit: Any, registry: Any) -> None:
    commit(), commit()
    registry.remove("sql@2")
    with pytest.raises(AdzError, match=r"sql@2 was removed \(bring it back: adz restore sql@2; "):
        registry.resolve("sql@2")


def test_a_rebuild_knows_what_was_removed_restored_and_collected(
    commit: Any, registry: Any, home: Any
) -> None:
    commit(seed=1), commit(seed=2), commit(seed=3)
    registry.remove("sql@1")
    registry.collect(grace_seconds=0, retention_seconds=0)
    registry.remove("sql@2")
    registry.remove("sql@3")
    registry.restore("sql@3")
    registry.database.path.unlink()
    rebuilt = LocalRegistry(home)
    with rebuilt.database.reading() as connection:
        rows = connection.execute("SELECT state, latest FROM versions ORDER BY number")
        assert [tuple(row) for row in rows] == [("collected", 0), ("removed", 0), ("live", 1)]
    assert not list(rebuilt.check())
