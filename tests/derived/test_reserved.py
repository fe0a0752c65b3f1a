"""`derived/` is where servers keep what they make for requests; nobody else puts anything there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub.plugins import open_registry

KEY = "f" * 64
MADE = f"derived/{KEY[:12]}"
MINE = "derived/0123456789ab"


@pytest.fixture
def made(home: Path, commit_small: Any) -> Any:
    """A version as a server commits it."""
    return commit_small(open_registry(), MADE, metrics={"derived": KEY})


def test_every_command_refuses_a_name_there(
    adz: Any, commit_adapter: Any, made: Any, tiny_base_dir: Path, tmp_path: Path
) -> None:
    commit_adapter("sql", seed=1)
    commit_adapter("french", seed=2)
    commit_adapter("wide", "dora", seed=3)
    registry = open_registry()
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n' * 8)
    for words in (
        ("import", registry.path(registry.resolve("sql")), "--name", MINE),
        ("import", MADE, "--base", "tiny"),
        ("merge", "sql", "french", "--linear", "--name", MINE),
        ("convert", "wide", "--name", MINE),
        ("train", "--data", data, "--name", MINE),
        ("base", "add", MINE, tiny_base_dir),
        ("tag", MADE, "prod"),
        ("tag", "--split", f"{MADE}@prod=1:1,2:1"),
    ):
        done = adz(*words)
        assert (done.code, done.err.count("\n")) == (2, 1), (words, done.err)
        assert "is reserved for what servers make for requests" in done.err
    assert [v.name for v in registry.versions()] == [MADE, "french", "sql", "wide"]


def test_only_what_was_made_for_that_very_name_comes_in(made: Any, commit_small: Any) -> None:
    registry = open_registry()
    for metrics in ({}, {"derived": "e" * 64}, {"derived": KEY[:8]}):
        with pytest.raises(AdzError, match="is reserved"):
            commit_small(registry, MADE, metrics=metrics)
    # A stranger's would answer for the merge that it claims to be.
    with pytest.raises(AdzError, match="is reserved"):
        registry.receive(made.manifest.canonical(), registry.path(made), source="somewhere")
    # It may leave, and come back.
    registry.remove(MADE)
    assert registry.restore(MADE)[0].digest == made.digest
