"""Removing versions, and deleting what no live version needs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub_registry.store import LocalRegistry


def blobs(registry: Any) -> set[str]:
    return {path.name for path in registry.blobs.directory.iterdir()}


def age(folder: Path, seconds: float = 7200) -> None:
    """Make everything below `folder` look older."""
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


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


def test_collect_keeps_what_live_versions_need(commit: Any, registry: Any) -> None:
    kept, removed = commit("sql", seed=1), commit("sql", seed=2)
    shared = commit("french", seed=2)
    registry.path(kept), registry.path(removed)
    registry.remove("sql@2")
    registry.remove("french")
    before = blobs(registry)
    assert registry.collect().blobs == 0
    assert blobs(registry) == before
    report = registry.collect(grace_seconds=0)
    weights = removed.manifest.files["adapter_model.safetensors"]
    assert before - blobs(registry) == {weights.sha256.removeprefix("sha256:")}
    assert (report.blobs, report.views) == (1, 1)
    assert report.size >= weights.size
    assert shared.manifest.files["adapter_model.safetensors"] == weights
    assert registry.path(registry.resolve("sql")).is_dir()
    assert not list(registry.check())
    assert not list(registry.trash.iterdir())


def test_a_dry_run_deletes_nothing_and_says_the_same(commit: Any, registry: Any) -> None:
    commit("sql", seed=1), commit("sql", seed=2)
    registry.remove("sql@2")
    before = blobs(registry)
    planned = registry.collect(dry_run=True, grace_seconds=0)
    assert blobs(registry) == before
    assert registry.collect(grace_seconds=0) == planned
    assert planned.blobs == 1


def test_the_grace_counts_from_the_removal(commit: Any, registry: Any) -> None:
    version = commit("sql", seed=1)
    registry.path(version)
    commit("sql", seed=2)
    registry.remove("sql@1")
    age(registry.root)
    assert registry.collect(grace_seconds=3600) == registry.collect(grace_seconds=3600)
    assert registry.collect(grace_seconds=3600).blobs == 0
    assert registry.collect(grace_seconds=3600).views == 0
    assert registry.path(version).is_dir()


def test_abandoned_staging_is_deleted_after_the_grace(commit: Any, registry: Any) -> None:
    commit()
    left = registry.ingest / "left-by-a-kill"
    left.mkdir()
    (left / "half").write_bytes(b"x" * 100)
    registry.collect()
    assert left.is_dir()
    age(registry.ingest)
    assert registry.collect().size == 100
    assert not left.exists()


def test_gc_without_grace_takes_nothing_from_a_commit_in_flight(
    commit: Any, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterhub_registry import store

    removed = commit("sql", seed=1)
    registry.remove("sql")
    reports = []

    def collect_meanwhile(*_: object) -> None:
        reports.append(registry.collect(grace_seconds=0))

    # The gates run when the files are staged, and the same bytes still lie in the store.
    monkeypatch.setattr(store, "check_payload", collect_meanwhile)
    version = commit("french", seed=1)
    assert reports[0].blobs == len(removed.manifest.files)
    assert registry.path(version).is_dir()
    assert not list(registry.check())


def test_gc_cannot_run_between_a_new_blob_and_its_version(
    commit: Any, registry: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = LocalRegistry(home, busy_seconds=0.05)
    publish = registry.blobs.publish
    refused = []

    def publish_then_collect(staged: Any) -> None:
        publish(staged)
        with pytest.raises(AdzError, match="busy"):
            collector.collect(grace_seconds=0)
        refused.append(True)

    monkeypatch.setattr(registry.blobs, "publish", publish_then_collect)
    registry.path(commit())
    # Once for the payload, once for the manifest.
    assert len(refused) == 2
