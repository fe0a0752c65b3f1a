"""What the Hub holds of others, what it does not take, and its errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hub_server import Fault
from made import CARD, Made

from adapterhub.errors import AdzError
from adapterhub.exchange.remotes import open_remote
from adapterhub.protocols import Remote


def test_tags_and_commits_of_others_are_no_versions(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    sha = hub.put("org/theirs", {"README.md": CARD.encode(), "x": b""})
    hub.repositories["org/theirs"].tags |= {"v1": sha, "prod": sha}
    assert remote.find("theirs", "1") is None
    assert remote.find("theirs", "prod") is None
    hub.put("org/--Odd", {"adapterhub.json": b"{}"})
    assert remote.names() == []
    # A payload's own README need not say whose it is.
    make(README__md=b"# mine").push(remote)
    assert remote.names() == ["sql"]


def test_a_prefix_keeps_apart(remote: Remote, make: Callable[..., Made]) -> None:
    adapters = open_remote("hub://org/adapters")
    make(7).push(adapters)
    assert adapters.names() == ["sql"]
    assert adapters.tags("sql") == ["7"]
    assert remote.tags("sql") == []
    assert remote.names() == ["adapters-sql"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("a--b", "'--'"), ("sql-", "at the end"), ("../x", "is not a valid name")],
)
def test_names_that_the_hub_does_not_take(remote: Remote, name: str, message: str) -> None:
    with pytest.raises(AdzError, match=message) as caught:
        remote.tags(name)
    assert caught.value.exit_code == 2


def test_an_alias_that_looks_like_a_number_is_refused(remote: Remote) -> None:
    with pytest.raises(AdzError, match="the alias v7 cannot go to the Hub"):
        remote.find("sql", "v7")


@pytest.mark.parametrize(
    "url", ["hub://", "hub:///x", "hub://a/b/c", "hub://me@org", "hub://o/ö ä"]
)
def test_urls_that_name_no_organisation(home: Path, url: str) -> None:
    with pytest.raises(AdzError, match="names no organisation"):
        open_remote(url)


def test_errors_are_one_line_with_what_to_do(
    remote: Remote,
    hub: Any,
    make: Callable[..., Made],
    set_token: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(call: Callable[[], object], *parts: str) -> None:
        with pytest.raises(AdzError) as caught:
            call()
        text = str(caught.value)
        assert "\n" not in text
        assert "hf_" not in text
        for part in parts:
            assert part in text, text

    make().push(remote)
    forbidden = open_remote("hub://forbidden")
    refused(lambda: make().push(forbidden), "403", "don't have the rights", "check its rights")
    set_token("hf_wrong")
    refused(lambda: open_remote("hub://org").find("sql", "7"), "401", "hf auth login")
    set_token(None)
    refused(lambda: make(name="new").push(open_remote("hub://org")), "401", "hf auth login")
    set_token("hf_testing")
    hub.faults.append(Fault("GET", "/refs", 500))
    refused(lambda: open_remote("hub://org").find("sql", "7"), "500", "try again later")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    refused(lambda: open_remote("hub://org").tags("sql"), "cannot be reached", "HF_ENDPOINT")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused(lambda: open_remote("hub://org").tags("sql"), "HF_HUB_OFFLINE is set")


def test_metadata_that_the_hub_refuses_are_an_error(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    made = make(README__md=b"---\ntags: 5\n---\n# mine")
    with pytest.raises(AdzError, match="must be an array"):
        made.push(remote)
    assert hub.repositories["org/sql"].tags == {}
