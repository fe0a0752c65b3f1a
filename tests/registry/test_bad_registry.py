"""A registry that cannot be used just now, at the shell: one line, nothing lost."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from adapterhub_registry.database import SCHEMA_VERSION
from adapterhub_registry.store import LocalRegistry

CHANGES = [
    ("tag", "sql@1", "beta"),
    ("tag", "--rollback", "sql@prod"),
    ("tag", "--delete", "sql@prod"),
    ("rm", "sql@2", "--yes"),
    ("restore", "sql@3"),
    ("gc", "--grace", "0", "--retention-days", "0"),
]
READS = [("ls",), ("show", "sql"), ("log", "sql")]


@pytest.fixture
def stored(commit: Any, registry: Any) -> Any:
    for seed in range(3):
        commit(seed=seed)
    registry.tag("sql@1", "prod")
    registry.tag("sql@2", "prod")
    registry.tag("sql@1", "prod")
    registry.remove("sql@3")
    return registry


def files(home: Path) -> dict[str, bytes]:
    """Everything but what SQLite makes anew for each process."""
    return {
        path.relative_to(home).as_posix(): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def said(result: Any) -> str:
    """The one line of a command that failed."""
    assert (result.code, result.out) == (1, "")
    assert result.err.count("\n") == 1
    text: str = result.err
    return text


@pytest.mark.parametrize("arguments", CHANGES, ids=" ".join)
def test_a_locked_database(
    stored: Any, adz: Any, home: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    defaults = {"busy_seconds": 0.05}
    monkeypatch.setattr(LocalRegistry.__init__, "__kwdefaults__", defaults)
    with stored.database.changing():
        before = files(home)
        assert said(adz(*arguments)) == (
            f"adz: the registry {home / 'registry'} is busy: another process is writing "
            "(try again when it is done)\n"
        )
        assert files(home) == before
        for reading in READS:
            assert adz(*reading).code == 0
    assert adz(*arguments).code == 0


def test_a_registry_of_a_newer_version(stored: Any, adz: Any, home: Path) -> None:
    path = stored.database.path
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("ALTER TABLE versions RENAME TO something_else")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    before = files(home)
    for arguments in [*CHANGES, *READS]:
        assert said(adz(*arguments)) == (
            f"adz: the registry {home / 'registry'} was made by a newer adapterhub: its schema is "
            f"99, this one knows {SCHEMA_VERSION} (upgrade adapterhub, or set another ADZ_HOME)\n"
        ), arguments
        assert files(home) == before


def test_a_name_with_dots_reaches_no_file(stored: Any, adz: Any, home: Path) -> None:
    before = files(home)
    for command in ("show", "log", "rm", "restore", "tag"):
        more = {"rm": ["--yes"], "tag": ["prod"]}.get(command, [])
        for name in ("..", "../sql", "sql/..", "a/../b", "/sql", "sql@../x", "a..b"):
            result = adz(command, name, *more)
            assert (result.code, result.out) == (2, ""), (command, name)
            assert "is not a valid" in result.err
            assert result.err.count("\n") == 1
    assert files(home) == before


UNKNOWN = [
    (("restore", "sqll"), "unknown adapter 'sqll' (did you mean sql?)"),
    (("restore", "sql@7"), "sql has no version 7 (it has 1, 2)"),
    (("restore", "sql@1"), "sql@1 is not removed"),
    (("rm", "sq", "--yes"), "unknown adapter 'sq' (did you mean sql?)"),
    (("rm", "sql@9", "--yes"), "sql has no version 9 (it has 1, 2)"),
    (("show", "sql@3"), "sql@3 was removed (bring it back: adz restore sql@3; it has 1, 2)"),
    (
        ("tag", "sql@3", "x"),
        "sql@3 was removed (bring it back: adz restore sql@3; it has 1, 2)",
    ),
    (("tag", "--rollback", "sql@prd"), "sql has no alias 'prd' (its aliases are prod)"),
    (("ls", "--metric", "x"), "unknown metric 'x' (there is no metric yet)"),
    (("ls", "--method", "lorra"), "unknown method 'lorra' (did you mean lora"),
    (("ls", "--rule", "tise"), "unknown merge rule 'tise' (did you mean ties"),
    (("ls", "--sort", "metric"), "by which metric should the adapters be sorted?"),
    (("ls", "--limit", "0"), "Invalid value for '--limit'"),
]


def test_what_matches_nothing_offers_what_is_near(stored: Any, adz: Any, home: Path) -> None:
    before = files(home)
    for arguments, message in UNKNOWN:
        result = adz(*arguments)
        assert (result.code, result.out) == (2, ""), arguments
        assert result.err.startswith(f"adz: {message}")
        assert result.err.count("\n") == 1
    assert files(home) == before
