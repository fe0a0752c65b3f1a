"""Versions between two registries: identity, aliases, what is sent, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.exchange.bounds import Bounds
from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import BaseDigests, BaseLink, BaseRecord, Version
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry, RemoteVersion

OpenHome = Callable[[str], Registry]
Commit = Callable[..., Version]

QUIET = Silent()


def actions(results: Any) -> list[tuple[str, str]]:
    return [(result.reference, result.action) for result in results]


def test_identity_survives_a_push_and_a_pull(
    tmp_path: Path, sender: Registry, open_home: OpenHome, commit_small: Commit
) -> None:
    share = open_remote(str(tmp_path / "share"))
    versions = [commit_small(sender, seed=seed, width=200_000) for seed in range(3)]
    sender.tag("sql@2", "prod")
    assert actions(push(sender, share, ["sql@prod", "sql"], QUIET)) == [
        ("sql@2", "pushed"),
        ("sql@3", "pushed"),
    ]
    receiver = open_home("receiver")
    assert actions(pull(receiver, share, ["sql@prod", "sql"], QUIET)) == [
        ("sql@2", "pulled"),
        ("sql@3", "pulled"),
    ]
    for version in versions[1:]:
        found = receiver.resolve(version.reference)
        assert found.digest == version.digest
        assert found.manifest == version.manifest
        there, here = sender.path(version), receiver.path(found)
        for name in version.manifest.files:
            assert (here / name).read_bytes() == (there / name).read_bytes()
    receiver.artifacts(receiver.resolve("sql@3"), tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "metrics.json").read_text() == '{"loss": 1.5}'
    assert receiver.resolve("sql@prod").number == 2
    assert {entry.action for entry in receiver.log("sql")} == {"pull", "tag"}
    assert actions(pull(receiver, share, ["sql@prod"], QUIET)) == [("sql@2", "already there")]


def test_what_the_remote_has_is_not_sent_again(
    sender: Registry, commit_small: Commit, remote: Any
) -> None:
    commit_small(sender, seed=0)
    commit_small(sender, seed=1)
    list(push(sender, remote, ["sql@1"], QUIET))
    assert sorted(remote.writes) == [
        "adapter_config.json", "adapter_model.safetensors", "artifacts/deep/metrics.json",
    ]  # fmt: skip
    remote.writes.clear()
    (second,) = push(sender, remote, ["sql@2"], QUIET)
    assert remote.writes == ["adapter_model.safetensors"]
    assert second.sent == sender.resolve("sql@2").manifest.files["adapter_model.safetensors"].size
    remote.writes.clear()
    (third,) = push(sender, remote, ["sql@2"], QUIET)
    assert (third.action, third.sent, remote.writes) == ("already there", 0, [])


def test_a_push_mends_a_remote_that_lost_a_file(
    sender: Registry, commit_small: Commit, remote: Any
) -> None:
    version = commit_small(sender)
    list(push(sender, remote, ["sql"], QUIET))
    lost = version.manifest.files["adapter_model.safetensors"].sha256
    del remote.blobs[lost]
    (result,) = push(sender, remote, ["sql"], QUIET)
    assert result.action == "pushed"
    assert lost in remote.blobs


def test_what_is_here_is_not_read_again(
    sender: Registry, open_home: OpenHome, commit_small: Commit, remote: Any
) -> None:
    commit_small(sender, seed=0)
    commit_small(sender, seed=1)
    list(push(sender, remote, ["sql"], QUIET, every=True))
    receiver = open_home("receiver")
    list(pull(receiver, remote, ["sql@1"], QUIET))
    remote.reads.clear()
    (result,) = pull(receiver, remote, ["sql@2"], QUIET)
    assert remote.reads == [("adapter_model.safetensors", 0)]
    assert 0 < result.sent < result.size
    remote.reads.clear()
    list(pull(receiver, remote, ["sql@2"], QUIET))
    assert remote.reads == []


def test_another_version_of_the_number_is_refused_on_both_sides(
    sender: Registry, open_home: OpenHome, commit_small: Commit, remote: Any
) -> None:
    commit_small(sender, seed=0)
    list(push(sender, remote, ["sql"], QUIET))
    other = open_home("other")
    mine = commit_small(other, seed=1)
    before = dict(remote.published)
    with pytest.raises(AdzError, match="has another sql@1") as caught:
        list(push(other, remote, ["sql"], QUIET))
    assert caught.value.exit_code == EXIT_VERIFICATION
    assert remote.published == before
    with pytest.raises(AdzError, match="another version than the one here") as caught:
        list(pull(other, remote, ["sql@1"], QUIET))
    assert caught.value.exit_code == EXIT_VERIFICATION
    assert "--as" in caught.value.hint
    assert [v.digest for v in other.versions("sql")] == [mine.digest]


def test_a_push_that_lost_a_race_says_so(
    sender: Registry, commit_small: Commit, remote: Any
) -> None:
    commit_small(sender, seed=0)
    commit_small(sender, "other", seed=1)
    theirs = sender.resolve("other").manifest.model_copy(update={"name": "sql"}).canonical()
    publish = remote.publish

    def race(name: str, version: RemoteVersion, tags: Any, card: str) -> None:
        publish(name, version, tags, card)
        publish(name, RemoteVersion(theirs), tags, card)

    remote.publish = race
    with pytest.raises(AdzError, match="another version after the push") as caught:
        list(push(sender, remote, ["sql"], QUIET))
    assert caught.value.exit_code == EXIT_VERIFICATION


def test_as_stores_a_version_of_another_name_with_its_source(
    sender: Registry, open_home: OpenHome, commit_small: Commit, remote: Any
) -> None:
    source = commit_small(sender, seed=0)
    sender.tag("sql@1", "prod")
    list(push(sender, remote, ["sql@prod"], QUIET))
    receiver = open_home("receiver")
    commit_small(receiver, "mine", seed=5)
    (result,) = pull(receiver, remote, ["sql@prod"], QUIET, rename="mine")
    assert (result.reference, result.source) == ("mine@2", "sql@1")
    stored = receiver.resolve("mine@2")
    (parent,) = stored.manifest.parents
    assert (parent.name, parent.version, parent.digest, parent.role) == (
        "sql", 1, source.digest, "source",
    )  # fmt: skip
    assert stored.manifest.files == source.manifest.files
    assert stored.manifest.artifacts == source.manifest.artifacts
    assert receiver.names() == ["mine"]
    assert stored.aliases == ()
    with pytest.raises(AdzError, match="one reference"):
        list(pull(receiver, remote, ["sql", "sql@1"], QUIET, rename="mine"))


def test_a_dry_run_changes_nothing(
    sender: Registry, open_home: OpenHome, commit_small: Commit, remote: Any
) -> None:
    commit_small(sender)
    (would,) = push(sender, remote, ["sql"], QUIET, dry_run=True)
    assert (would.action, remote.blobs, remote.published) == ("would push", {}, {})
    list(push(sender, remote, ["sql"], QUIET))
    receiver = open_home("receiver")
    (would,) = pull(receiver, remote, ["sql"], QUIET, dry_run=True)
    assert (would.action, receiver.names(), remote.reads) == ("would pull", [], [])


def test_a_pull_says_whether_the_base_is_known(
    sender: Registry, open_home: OpenHome, commit_small: Commit, remote: Any
) -> None:
    digests = BaseDigests(weights=f"sha256:{7:064x}", arch="sha256:a", tokenizer="sha256:b")
    link = BaseLink(status="recorded", name="tiny", digests=digests)
    commit_small(sender, base=link)
    commit_small(sender, "nobase", seed=1)
    list(push(sender, remote, ["sql", "nobase"], QUIET))
    receiver = open_home("receiver")
    (other, none) = pull(receiver, remote, ["sql", "nobase"], QUIET)
    assert "adz base add tiny" in other.base
    assert digests.weights[7:19] in other.base
    assert "neither served nor merged" in none.base
    receiver.add_base(
        BaseRecord(
            name="small", source="/", path="/", digests=digests, architecture="LlamaForCausalLM",
            parameters=1, dtype="F32", created="2026-01-01T00:00:00Z",
        )
    )  # fmt: skip
    (known,) = pull(receiver, remote, ["sql"], QUIET)
    assert known.base == "its base is small"


def test_a_version_larger_than_the_bound_is_refused_before_it_is_read(
    sender: Registry, open_home: OpenHome, commit_small: Commit, remote: Any
) -> None:
    commit_small(sender)
    list(push(sender, remote, ["sql"], QUIET))
    receiver = open_home("receiver")
    with pytest.raises(AdzError, match="more than 100") as caught:
        list(pull(receiver, remote, ["sql"], QUIET, bounds=Bounds(version_bytes=100)))
    assert caught.value.exit_code == EXIT_VERIFICATION
    assert "--max-bytes" in caught.value.hint
    assert remote.reads == []


def test_a_stored_file_that_is_damaged_is_not_pushed(
    sender: Registry, commit_small: Commit, remote: Any, tmp_path: Path
) -> None:
    version = commit_small(sender)
    digest = version.manifest.files["adapter_model.safetensors"].sha256
    blob = tmp_path / "sender" / "registry" / "blobs" / "sha256" / digest.removeprefix("sha256:")
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    with pytest.raises(AdzError):
        list(push(sender, remote, ["sql"], QUIET))
    assert remote.published == {}
    assert digest not in remote.blobs


def test_a_running_push_keeps_its_versions(
    sender: Registry, commit_small: Commit, remote: Any
) -> None:
    commit_small(sender, seed=0)
    commit_small(sender, seed=1)
    pushing = push(sender, remote, ["sql"], QUIET, every=True)
    next(pushing)
    assert {lease.version for lease in sender.leases()} == {"sql@1", "sql@2"}
    list(pushing)
    assert sender.leases() == []


def test_a_large_version_is_pushed_whoever_may_pull_it(
    sender: Registry, commit_small: Commit, remote: Any
) -> None:
    commit_small(sender)
    (result,) = push(sender, remote, ["sql"], QUIET, bounds=Bounds(version_bytes=1))
    assert result.action == "pushed"


def test_what_nobody_could_pull_is_not_pushed(
    sender: Registry, commit_small: Commit, remote: Any
) -> None:
    commit_small(sender, recipe={"note": "\x1b[2J"})
    with pytest.raises(AdzError, match="control characters"):
        list(push(sender, remote, ["sql"], QUIET))
    assert (remote.blobs, remote.published) == ({}, {})


def test_text_in_a_recipe_may_have_lines(
    sender: Registry, open_home: OpenHome, commit_small: Commit, remote: Any
) -> None:
    commit_small(sender, recipe={"prompt": "one\r\n\ttwo \u00e9 \u2028 \U0001f600"})
    list(push(sender, remote, ["sql"], QUIET))
    (result,) = pull(open_home("receiver"), remote, ["sql"], QUIET)
    assert result.action == "pulled"
