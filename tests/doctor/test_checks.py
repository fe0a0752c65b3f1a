"""What adz doctor finds wrong with a home, a registry, bases, remotes and keys."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.doctor.check import Check
from adapterhub.doctor.exchange import check_exchange
from adapterhub.doctor.home import check_home
from adapterhub.doctor.registry import check_registry
from adapterhub.plugins import open_registry

DAYS = 86_400


@pytest.fixture
def found(home: Path) -> Callable[[], dict[str, Check]]:
    """Every check of the home and the registry, by name."""
    return lambda: {check.name: check for check in [*check_home(), *check_registry()]}


@pytest.fixture
def only(home: Path) -> Callable[[str], Check]:
    """The one line that is wrong, which has this name and an advice."""

    def check(name: str) -> Check:
        wrong = [c for c in [*check_home(), *check_registry()] if c.status == "wrong"]
        assert [line.name for line in wrong] == [name]
        assert wrong[0].advice
        return wrong[0]

    return check


def files(home: Path) -> tuple[Path, Path]:
    return home / "registry" / "registry.sqlite3", home / "registry" / "names.jsonl"


def test_a_registry_that_is_right(found, tiny_base, commit_adapter):
    version = commit_adapter("sql")
    open_registry().lease([version], "a server", 60)
    lines = found()
    assert {line.status for line in lines.values()} == {"ok"}
    assert lines["registry"].found == "1 adapters, 1 bases"
    assert lines["leases"].found == "1 versions are held by a server"


def test_no_registry_yet_is_not_wrong_and_is_not_made(found, home):
    assert found()["registry"].status == "absent"
    assert not home.exists()


def test_a_disk_that_is_nearly_full(only, tiny_base, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=9 * 10**8))
    assert "0.9 GB free" in only("home").found


def test_a_newer_schema(only, tiny_base, home):
    with sqlite3.connect(files(home)[0]) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "made by a newer adapterhub" in only("registry").found


def test_a_database_that_is_no_database(only, tiny_base, home):
    # Its log alone would be enough to read all of it.
    with sqlite3.connect(files(home)[0]) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files(home)[0].write_bytes(b"not a database" * 1000)
    assert "damaged" in only("registry").found


def test_a_journal_that_lacks_the_last_event(only, tiny_base, commit_adapter, home):
    commit_adapter("sql")
    journal = files(home)[1]
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    assert f"ends at event {len(lines)}, which is not in it" in only("registry/names.jsonl").found


def test_a_journal_of_another_registry(only, tiny_base, commit_adapter, home, tmp_path):
    commit_adapter("sql")
    other = tmp_path / "other"
    shutil.copytree(home, other)
    open_registry().tag("sql", "prod")
    from adapterhub_registry.store import LocalRegistry

    LocalRegistry(other).tag("sql", "beta")
    shutil.copy(files(other)[1], files(home)[1])
    assert "is another one in the database" in only("registry/names.jsonl").found


def test_a_journal_one_change_ahead_is_as_a_kill_leaves_it(found, tiny_base, home, tmp_path):
    database = files(home)[0]
    kept = tmp_path / "kept"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(database, kept)
    record = open_registry().base("tiny")
    open_registry().add_base(record.model_copy(update={"name": "twin"}))
    for path in database.parent.glob("registry.sqlite3*"):
        path.unlink()
    shutil.copy(kept, database)
    assert found()["registry"].found == "0 adapters, 1 bases"
    assert not [line for line in found().values() if line.status == "wrong"]


def test_a_clock_that_went_back(only, tiny_base, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 7200)
    assert "120 minutes in the future" in only("clock").found


def test_files_that_everyone_can_change(only, tiny_base, home):
    files(home)[0].chmod(0o666)
    line = only("registry/registry.sqlite3")
    assert "every user of this machine can change it" in line.found
    assert line.advice == f"chmod -R o-w {home}/registry"


def test_files_that_this_user_cannot_change(only, tiny_base, home, monkeypatch):
    journal = files(home)[1]
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != journal and real(path, mode))
    assert "this user cannot write it" in only("registry/names.jsonl").found


def test_leftovers_of_a_killed_process(found, only, tiny_base, home):
    left = home / "registry" / "ingest" / "0123"
    left.mkdir()
    assert {line.status for line in found().values()} == {"ok"}
    os.utime(left, (time.time() - 2 * DAYS,) * 2)
    assert only("registry/ingest").advice == "adz gc"


def test_unfinished_work_in_the_home(found, home):
    staged = home / "staging" / "merge-1"
    staged.mkdir(parents=True)
    (staged / "half").write_bytes(bytes(2_000_000))
    os.utime(staged, (time.time() - DAYS,) * 2)
    line = found()["leftovers"]
    assert (line.status, line.found) == ("absent", "2.0 MB of unfinished work")


def test_a_base_that_is_gone_and_one_that_changed(found, adz, tiny_base_dir, tmp_path):
    for name in ("gone", "changed", "touched"):
        shutil.copytree(tiny_base_dir, tmp_path / name)
        config = tmp_path / name / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "note": name}))
        assert adz("base", "add", name, tmp_path / name).code == 0
    shutil.rmtree(tmp_path / "gone")
    weights = tmp_path / "changed" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(tmp_path / "touched" / "model.safetensors")
    wrong = {name: line.found for name, line in found().items() if line.status == "wrong"}
    assert set(wrong) == {"base gone", "base changed"}
    assert "is gone" in wrong["base gone"]
    assert "what differs is its weights" in wrong["base changed"]


def test_a_lease_that_never_ends(only, tiny_base, commit_adapter):
    open_registry().lease([commit_adapter("sql")], "a server", 400 * DAYS)
    assert only("leases").found.startswith("a server holds versions until ")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("quotas: {team/*: {version: 3}}", "version"),
        ("signatures: {team/*: [missing.pem]}", "missing.pem"),
        ("signatures: {team/*: [policy.yaml]}", "not a public key"),
        ("[", "policy.yaml"),
    ],
)
def test_a_policy_that_cannot_be_followed(only, home, text, part):
    home.mkdir()
    (home / "policy.yaml").write_text(text)
    assert part in only("policy").found


def test_a_policy_that_is_right(found, home):
    home.mkdir()
    (home / "policy.yaml").write_text("quotas: {team/*: {versions: 3}}")
    assert found()["policy"].found.endswith("policy.yaml: 0 names sign, 1 have a quota")


def exchange(**defaults: Any) -> dict[str, Check]:
    return {check.name: check for check in check_exchange(defaults)}


def test_remotes_of_the_defaults(home, tmp_path):
    assert exchange() == {}
    assert exchange(push={"to": f"file://{tmp_path}"})["push --to"].status == "ok"
    line = exchange(pull={"from": "ftp://host"})["pull --from"]
    assert line.status == "wrong"
    assert "ftp" in line.found


def test_a_signing_key_that_others_can_read(tmp_path):
    key = tmp_path / "key.pem"
    assert "is missing" in exchange(push={"sign": str(key)})["push --sign"].found
    key.write_text("secret")
    key.chmod(0o640)
    assert exchange(push={"sign": str(key)})["push --sign"].advice == f"chmod 600 {key}"
    key.chmod(0o600)
    assert exchange(push={"sign": str(key)})["push --sign"].status == "ok"


def test_an_unknown_option_of_another_command_in_the_settings(adz, home):
    home.mkdir()
    (home / "config.yaml").write_text("serve: {prt: 9000}")
    done = adz("doctor", "--json")
    assert done.code == 1
    (line,) = [check for check in json.loads(done.out) if check["name"] == "config"]
    assert "prt" in line["found"]
    assert "port" in line["found"] + line["advice"]
