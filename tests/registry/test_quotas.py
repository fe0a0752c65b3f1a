"""Quotas of names: what would go over one is refused, and nothing of it is stored."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_FAILED, AdzError
from adapterhub_registry.store import LocalRegistry


@pytest.fixture
def policy(home: Path) -> Any:
    def write(text: str) -> None:
        home.mkdir(exist_ok=True)
        (home / "policy.yaml").write_text(text)

    return write


def test_a_version_too_many_is_refused(commit: Any, registry: Any, policy: Any) -> None:
    policy("quotas:\n  sql: {versions: 2}\n")
    commit(), commit(seed=1)
    blobs = set(registry.blobs.directory.iterdir())
    with pytest.raises(AdzError) as caught:
        commit(seed=2)
    assert str(caught.value) == (
        "the quota of sql is 2 versions, and 2 are live (remove what is not needed, such as "
        "'adz rm sql@1', or raise the quota in policy.yaml)"
    )
    assert caught.value.exit_code == EXIT_FAILED
    assert set(registry.blobs.directory.iterdir()) == blobs
    assert [v.number for v in registry.versions()] == [1, 2]
    commit("french"), commit("french"), commit("french")
    # What has an alias is not offered.
    registry.tag("sql@1", "prod")
    with pytest.raises(AdzError, match=r"'adz rm sql@2'"):
        commit()
    registry.remove("sql@2")
    assert commit().number == 3


def test_so_are_too_many_bytes(commit: Any, registry: Any, policy: Any) -> None:
    size = registry.listing() or commit().manifest.files
    used = sum(record.size for record in size.values())
    policy(f"quotas:\n  sql: {{size: {2 * used}}}\n")
    commit()
    with pytest.raises(
        AdzError, match=rf"sql is {2 * used} bytes: {2 * used} are used, {used} more"
    ):
        commit()
    assert len(registry.versions()) == 2


def test_what_is_restored_or_received_counts_too(
    commit: Any, registry: Any, policy: Any, tmp_path: Path, make_payload: Any, make_manifest: Any
) -> None:
    policy("quotas:\n  sql: {versions: 2}\n")
    commit(), commit()
    registry.remove("sql@2")
    commit()
    with pytest.raises(AdzError, match="2 are live"):
        registry.restore("sql@2")
    other = LocalRegistry(tmp_path / "other")
    for _ in range(7):
        version = other.commit(make_manifest(), make_payload())
    with pytest.raises(AdzError, match="2 are live"):
        registry.receive(version.manifest.canonical(), make_payload(), source="x")
    assert [v.number for v in registry.versions()] == [1, 3]


def test_committers_at_once_do_not_pass_it_together(
    commit: Any, registry: Any, policy: Any, make_payload: Any, make_manifest: Any
) -> None:
    policy("quotas:\n  sql: {versions: 3}\n")
    payload = make_payload()

    def try_commit(_: int) -> bool:
        try:
            registry.commit(make_manifest(), payload)
        except AdzError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(try_commit, range(8))) == 3
    assert len(registry.versions()) == 3


def test_a_policy_that_cannot_be_read_lets_nothing_through(
    commit: Any, registry: Any, policy: Any
) -> None:
    policy("quotas: 3\n")
    with pytest.raises(AdzError, match=r"policy\.yaml"):
        commit()
    assert registry.names() == []
