"""Deleting what no version needs, and nothing else."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub_registry import disk
from adapterhub_registry.store import LocalRegistry


def blobs(registry: Any) -> set[str]:
    return {path.name for path in registry.blobs.directory.iterdir()}


def age(folder: Path, seconds: float = 7200) -> None:
    """Make everything below `folder` look older."""
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def test_collect_keeps_what_live_versions_need(commit: Any, registry: Any) -> None:
    kept, removed = commit("sql", seed=1), commit("sql", seed=2)
    shared = commit("french", seed=2)
    registry.path(kept), registry.path(removed)
    registry.remove("sql@2")
    registry.remove("french")
    before = blobs(registry)
    assert registry.collect().blobs == 0
    assert blobs(registry) == before
    time.sleep(0.01)
    report = registry.collect(grace_seconds=0, retention_seconds=0)
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
    time.sleep(0.01)
    planned = registry.collect(dry_run=True, grace_seconds=0, retention_seconds=0)
    assert blobs(registry) == before
    assert registry.collect(grace_seconds=0, retention_seconds=0) == planned
    assert (planned.versions, planned.blobs) == (1, 1)


def test_a_removed_version_stays_for_its_retention(commit: Any, registry: Any) -> None:
    version = commit("sql", seed=1)
    registry.path(version)
    registry.remove("sql@1")
    age(registry.root)
    for _ in range(2):
        report = registry.collect(grace_seconds=0, retention_seconds=60)
        assert (report.versions, report.blobs, report.views) == (0, 0, 0)
        assert report.kept["restorable"] == 1
    assert registry.restore("sql@1") == [version]
    registry.remove("sql@1")
    time.sleep(0.01)
    report = registry.collect(grace_seconds=0, retention_seconds=0)
    assert (report.versions, report.blobs, report.views) == (1, 2, 1)
    assert registry.log("sql")[-1].action == "collect"
    assert registry.collect(grace_seconds=0, retention_seconds=0).versions == 0


def test_young_files_of_a_collected_version_go_later(commit: Any, registry: Any) -> None:
    commit("sql", seed=1)
    registry.remove("sql@1")
    time.sleep(0.01)
    report = registry.collect(retention_seconds=0)
    assert (report.versions, report.blobs, report.kept["young"]) == (1, 0, 2)
    assert registry.collect(grace_seconds=0).blobs == 2


def test_what_is_leased_stays_also_when_it_is_removed(commit: Any, registry: Any) -> None:
    version, other = commit("sql", seed=1), commit("sql", seed=2)
    view = registry.path(version)
    registry.path(other)
    registry.lease([version], "a server", 60)
    registry.remove("sql")
    time.sleep(0.01)
    report = registry.collect(grace_seconds=0, retention_seconds=0)
    assert (report.versions, report.views, report.kept["leased"]) == (1, 1, 1)
    assert (view / "adapter_model.safetensors").is_file()
    assert registry.path(version) == view
    assert registry.restore("sql@1") == [version]
    registry.remove("sql@1")
    registry.lease([], "a server", 0)
    time.sleep(0.01)
    assert registry.collect(grace_seconds=0, retention_seconds=0).versions == 1
    assert not view.exists()


def test_a_kill_between_the_steps_loses_nothing(
    commit: Any, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, _ = commit("sql", seed=1), commit("sql", seed=2)
    registry.path(kept)
    registry.remove("sql@2")
    time.sleep(0.01)
    rename = disk.rename
    for at in range(1, 10):
        calls = []

        def rename_until(source: Path, target: Path, at: int = at, calls: Any = calls) -> None:
            calls.append(target)
            if len(calls) == at:
                raise KeyboardInterrupt
            rename(source, target)

        with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
            patched.setattr(disk, "rename", rename_until)
            registry.collect(grace_seconds=0, retention_seconds=0)
            break
        assert not list(registry.check())
    assert at > 1
    registry.path(kept)
    assert not list(registry.trash.iterdir())
    assert not list(registry.check())


def test_a_needed_file_in_the_trash_goes_back(commit: Any, registry: Any) -> None:
    version = commit()
    record = version.manifest.files["adapter_model.safetensors"]
    blob = registry.blobs.path(record.sha256)
    for name in ("one", "two"):
        shutil.copy(blob, registry.trash / f"sha256-{blob.name}.{name}")
    blob.unlink()
    registry.collect(grace_seconds=0)
    assert registry.path(version).is_dir()
    assert not list(registry.trash.iterdir())
    assert not list(registry.check())


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
    from adapterhub_registry import storing

    removed = commit("sql", seed=1)
    registry.remove("sql")
    reports = []

    def collect_meanwhile(*_: object) -> None:
        reports.append(registry.collect(grace_seconds=0, retention_seconds=0))

    # The gates run when the files are staged, and the same bytes still lie in the store.
    monkeypatch.setattr(storing, "check_payload", collect_meanwhile)
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
            collector.collect(grace_seconds=0, retention_seconds=0)
        refused.append(True)

    monkeypatch.setattr(registry.blobs, "publish", publish_then_collect)
    registry.path(commit())
    assert refused == [True]
