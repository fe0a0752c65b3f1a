"""`adz ls --remote`: what a remote holds, without fetching it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from adapterhub.errors import EXIT_FAILED, EXIT_USAGE, AdzError
from adapterhub.exchange.listing import list_remote
from adapterhub.exchange.push import push
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry

from .conftest import MemoryRemote

QUIET = Silent()


class Heard(Silent):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def filled(sender: Registry, commit_small: Any, remote: MemoryRemote) -> MemoryRemote:
    """Three versions of sql, of which 1 is prod and 3 is canary, and one of team/french."""
    for seed in range(3):
        commit_small(sender, "sql", seed=seed)
    commit_small(sender, "team/french", seed=9, width=64)
    sender.tag("sql@1", "prod")
    sender.tag("sql@3", "canary")
    list(push(sender, remote, ["sql", "team/french"], QUIET, every=True))
    return remote


def test_it_is_what_the_registry_that_pushed_lists(filled: MemoryRemote, sender: Registry) -> None:
    assert list_remote(filled, QUIET) == sender.listing()
    assert list_remote(filled, QUIET, reverse=True) == sender.listing(reverse=True)
    for query in ({}, {"reverse": True}, {"sort": "size"}, {"sort": "created", "reverse": True}):
        every = list_remote(filled, QUIET, every=True, **query)
        assert every == sender.listing(scope="live", **query), query
    assert filled.reads == []


@pytest.mark.parametrize(
    "query",
    [
        {"name": "team/*"}, {"name": "sql"}, {"name": "nothing"}, {"alias": "prod"},
        {"method": "lora"}, {"sort": "size"}, {"sort": "size", "reverse": True, "limit": 1},
        {"limit": 1}, {"limit": 1, "offset": 1}, {"offset": 5},
    ],
)  # fmt: skip
def test_filters_are_those_of_the_registry(
    filled: MemoryRemote, sender: Registry, query: dict[str, Any]
) -> None:
    assert list_remote(filled, QUIET, **query) == sender.listing(**query)


def test_a_page_costs_a_page(filled: MemoryRemote, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(filled, "tags", lambda name: asked.append(name) or [])
    list_remote(filled, QUIET, limit=1, offset=1)
    assert asked == ["team/french"]


def test_a_remote_that_lists_no_names_lists_one(
    filled: MemoryRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> list[str]:
        raise AdzError("it does not list its repositories")

    monkeypatch.setattr(filled, "names", refuse)
    assert [one.version for one in list_remote(filled, QUIET, name="sql")] == [3]
    with pytest.raises(AdzError, match="--name NAME lists the versions of one adapter") as caught:
        list_remote(filled, QUIET, name="s*")
    assert caught.value.exit_code == EXIT_FAILED


def test_a_damaged_version_is_left_out_and_said(filled: MemoryRemote) -> None:
    key = ("sql", "3")
    damaged = dataclasses.replace(filled.published[key], manifest=b"{}")
    filled.published[key] = filled.published["sql", "canary"] = damaged
    heard = Heard()
    (sql,) = list_remote(filled, heard, name="sql")
    assert (sql.version, dict(sql.aliases)) == (2, {"prod": 1})
    assert sorted(warning.partition(":")[0] for warning in heard.warnings) == [
        "sql@3 is left out", "sql@canary is left out",
    ]  # fmt: skip


def test_the_command(adz: Any, sender: Registry, commit_small: Any, tmp_path: Any) -> None:
    share = str(tmp_path / "share")
    commit_small(sender, "sql", width=100_000)
    sender.tag("sql@1", "prod")
    assert adz("push", "sql@prod", "--to", share).code == 0
    rows = adz("ls", "--remote", share).out.splitlines()
    assert rows[1].split()[:4] == ["sql", "1", "1", "prod@1"]
    assert rows == adz("ls").out.splitlines()
    assert json.loads(adz("ls", "--remote", share, "--json").out)[0]["aliases"] == {"prod": 1}
    every = adz("ls", "--remote", share, "--all-versions").out
    assert every == adz("ls", "--all-versions").out
    for options in (["--removed"], ["--metric", "x"], ["--sort", "metric"]):
        refused = adz("ls", "--remote", share, *options)
        assert refused.code == EXIT_USAGE
        assert "leave out --remote" in refused.err
    empty = adz("ls", "--remote", str(tmp_path / "empty"))
    assert (empty.code, empty.out) == (0, "")
    assert "holds no adapter: is the address right?" in empty.err
