"""Which versions a reference means here and at a remote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adapterhub.errors import EXIT_USAGE, AdzError
from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.manifest import Version
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry, RemoteVersion

OpenHome = Callable[[str], Registry]
Commit = Callable[..., Version]

QUIET = Silent()


def actions(results: Any) -> list[tuple[str, str]]:
    return [(result.reference, result.action) for result in results]


def test_all_takes_every_version_and_alias(
    sender: Registry, open_home: OpenHome, commit_small: Commit, remote: Any
) -> None:
    for seed in range(3):
        commit_small(sender, seed=seed)
    sender.tag("sql@1", "stable")
    sender.tag("sql@3", "prod")
    sender.remove("sql@2")
    list(push(sender, remote, ["sql"], QUIET, every=True))
    assert sorted(remote.tags("sql")) == ["1", "3", "prod", "stable"]
    receiver = open_home("receiver")
    list(pull(receiver, remote, ["sql"], QUIET, every=True))
    assert [(v.number, v.aliases) for v in receiver.versions("sql")] == [
        (1, ("stable",)),
        (3, ("prod",)),
    ]
    with pytest.raises(AdzError, match="--all means every version") as caught:
        list(pull(receiver, remote, ["sql@3"], QUIET, every=True))
    assert caught.value.exit_code == EXIT_USAGE


def test_an_alias_moves_at_the_remote(sender: Registry, commit_small: Commit, remote: Any) -> None:
    commit_small(sender, seed=0)
    second = commit_small(sender, seed=1)
    sender.tag("sql@1", "prod")
    list(push(sender, remote, ["sql@prod", "sql@2"], QUIET))
    sender.tag("sql@2", "prod")
    (result,) = push(sender, remote, ["sql@prod"], QUIET)
    assert (result.action, result.aliases) == ("already there", ("prod",))
    assert remote.find("sql", "prod").manifest == second.manifest.canonical()


@pytest.mark.parametrize(
    ("reference", "message", "hint"),
    [
        ("sqll", "unknown adapter 'sqll'", "did you mean sql"),
        ("sql@9", "has no sql@9", "it has 1"),
        ("sql@prod", "has no sql@prod", "it has 1"),
        ("sql@sha256:" + "0" * 64, "numbers and aliases only", "adz pull sql@N"),
        ("SQL", "not a valid name", ""),
    ],
)
def test_what_is_not_at_the_remote_is_a_usage_error(
    sender: Registry, commit_small: Commit, remote: Any, reference: str, message: str, hint: str
) -> None:
    commit_small(sender)
    list(push(sender, remote, ["sql"], QUIET))
    with pytest.raises(AdzError, match=message) as caught:
        list(pull(sender, remote, [reference], QUIET))
    assert caught.value.exit_code == EXIT_USAGE
    assert hint in caught.value.hint


def test_tags_of_other_tools_are_no_versions(
    sender: Registry, open_home: OpenHome, commit_small: Commit, remote: Any
) -> None:
    commit_small(sender)
    list(push(sender, remote, ["sql"], QUIET))
    for tag in ("Latest", "007", "latest", "²", "a..b"):
        remote.published["sql", tag] = RemoteVersion(b"not ours")
    receiver = open_home("receiver")
    assert actions(pull(receiver, remote, ["sql"], QUIET, every=True)) == [("sql@1", "pulled")]
