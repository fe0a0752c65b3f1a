"""`adz log`, `tag`, `rm`, `export`, `gc`, `restore` and `fsck`."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from adapterhub.manifest import Manifest, sha256_of


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "sqll"), "unknown adapter 'sqll' (did you mean sql?)"),
        (("show", "sql@7"), "sql has no version 7 (it has 1, 2)"),
        (("show", "sql@beta"), "sql has no alias 'beta' (its aliases are prod)"),
        (("log", "sqll"), "unknown adapter 'sqll' (did you mean sql?)"),
        (("log", "../sql"), "'../sql' is not a valid name"),
        (("tag", "sql@7", "prod"), "sql has no version 7 (it has 1, 2)"),
        (("tag", "sql@1", "latest"), "the alias 'latest' is reserved"),
        (("tag", "sql@1"), "which alias should point at sql@1? (adz tag sql@1 prod)"),
        (("tag", "--rollback", "sql@1"), "'sql@1' is not one alias"),
        (("tag", "--rollback", "sql@prod", "beta"), "'sql@prod' is not one alias"),
        (("tag", "--rollback", "--delete", "sql@prod"), "--rollback and --delete exclude"),
        (("tag", "--rollback", "sql@prod"), "sql@prod has no earlier version"),
        (("tag", "--delete", "sql"), "'sql' is not one alias"),
        (("rm", "sql@2"), "removing sql@2 needs --yes where nobody can be asked"),
        (("rm", "../x", "--yes"), "'../x' is not a valid name"),
        (("export", "sql@7", "out"), "sql has no version 7"),
    ],
)
def test_a_mistake_is_one_clear_line(
    stored: Any, adz: Any, arguments: tuple[str, ...], message: str,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    before = sorted(tmp_path.rglob("*"))
    result = adz(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"adz: {message}")
    assert result.err.count("\n") == 1
    assert [p for p in sorted(tmp_path.rglob("*")) if p not in before] == []


def test_tag_and_log(stored: Any, adz: Any) -> None:
    assert adz("tag", "sql@2", "prod").out == "sql@prod -> sql@2\n"
    assert adz("tag", "--rollback", "sql@prod").out == "sql@prod -> sql@1\n"
    value = json.loads(adz("tag", "--delete", "sql@prod", "--json").out)
    assert value == {"name": "sql", "alias": "prod", "version": None}
    lines = adz("log", "sql").out.splitlines()
    assert lines[0].split() == ["time", "who", "action", "what"]
    assert [line.split(maxsplit=3)[3] for line in lines[1:]] == [
        f"{action}  {what}"
        for action, what in [
            ("commit  ", "sql@1"),
            ("commit  ", "sql@2"),
            ("tag     ", "sql@prod: -> 1"),
            ("tag     ", "sql@prod: 1 -> 2"),
            ("rollback", "sql@prod: 2 -> 1"),
            ("untag   ", "sql@prod: 1 -> removed"),
        ]
    ]
    assert [e["action"] for e in json.loads(adz("log", "sql", "--json").out)][-1] == "untag"


def test_rm(stored: Any, adz: Any) -> None:
    assert adz("rm", "sql@2", "--yes").out == "removed sql@2\n"
    result = adz("rm", "sql@1", "--yes")
    assert result.code == 2
    assert result.err == (
        "adz: sql@1 is prod (first move the alias: adz tag sql@N prod, or remove it: "
        "adz tag --delete sql@prod)\n"
    )
    assert adz("rm", "sql", "--yes").out == "removed sql@1, and with them the aliases prod\n"
    assert adz("restore", "sql@1").code == 0
    assert json.loads(adz("rm", "sql", "--yes", "--json").out) == {
        "removed": ["sql@1"], "aliases": [],
    }  # fmt: skip
    assert adz("show", "sql").err.startswith("adz: every version of sql was removed")


@pytest.mark.parametrize(("answer", "removed"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_rm_asks_on_a_terminal(stored: Any, home: Path, answer: str, removed: bool) -> None:
    import pty
    import subprocess

    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "adapterhub.cli", "rm", "sql@2"],
        stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "ADZ_HOME": str(home)},
    )  # fmt: skip
    os.write(master, answer.encode())
    out, err = process.communicate(timeout=60)
    os.close(master)
    os.close(slave)
    assert "Remove sql@2?" in err
    assert out == ("removed sql@2\n" if removed else "")
    assert process.returncode == (0 if removed else 1)
    assert [v.number for v in stored.versions("sql")] == ([1] if removed else [1, 2])


def test_export(stored: Any, adz: Any, tmp_path: Path) -> None:
    target = tmp_path / "new" / "out"
    assert adz("export", "sql@1", target).out == f"sql@1 -> {target}\n"
    version = stored.resolve("sql@1")
    names = {path.name for path in target.iterdir()}
    payload = {"adapter_config.json", "adapter_model.safetensors"}
    assert names == payload | {"README.md", "manifest.json"}
    for name, record in version.manifest.files.items():
        assert sha256_of((target / name).read_bytes()) == record.sha256
        assert os.access(target / name, os.W_OK)
        assert (target / name).stat().st_mode & 0o200
    manifest = json.loads((target / "manifest.json").read_text())
    assert Manifest.model_validate(manifest).digest() == version.digest
    full = tmp_path / "full"
    full.mkdir()
    assert adz("export", "sql@1", full, "--with-artifacts").code == 0
    assert (full / "artifacts" / "metrics.jsonl").read_text() == '{"loss": 1}\n'


def test_export_refuses_what_is_there(stored: Any, adz: Any, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("mine")
    result = adz("export", "sql", taken)
    assert (result.code, result.err) == (2, f"adz: {taken} is not empty (give a new directory)\n")
    assert [path.name for path in taken.iterdir()] == ["mine"]
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    assert adz("export", "sql", link).err == f"adz: {link} is not a directory\n"


def test_an_export_that_fails_leaves_nothing(
    stored: Any, adz: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(self))

    before = set(tmp_path.iterdir())
    monkeypatch.setattr(Path, "write_text", full)
    result = adz("export", "sql", tmp_path / "out")
    assert result.code == 1
    assert result.err.startswith("adz: No space left on device")
    assert set(tmp_path.iterdir()) == before


def test_gc(stored: Any, adz: Any) -> None:
    stored.path(stored.resolve("french"))
    stored.lease([stored.resolve("sql@2")], "a push", 60)
    until = stored.leases()[0].until
    stored.remove("sql@2")
    stored.remove("french")
    before = used(stored)
    now = ("--grace", "0", "--retention-days", "0")
    planned = adz("gc", "--dry-run", *now).out.splitlines()
    leased = f"sql@2 is leased by a push until {until}"
    assert adz("gc").out.splitlines() == [
        "freed 0 B: removed versions 0, files 0, views 0",
        "kept 1 removed versions that 'adz restore' can bring back",
        "kept 1 removed versions that are leased",
        leased,
    ]
    assert used(stored) == before
    report = json.loads(adz("gc", *now, "--json").out)
    freed = before - used(stored)
    assert freed > 0
    assert (report["blobs"], report["views"], report["size"]) == (0, 1, freed)
    assert report["leases"] == [{"holder": "a push", "version": "sql@2", "until": until}]
    assert planned == [
        f"would free {freed} B: removed versions 1, files 0, views 1",
        "kept 1 removed versions that are leased",
        leased,
    ]
    assert adz("gc", "--grace", "-1").code == 2


def test_restore(stored: Any, adz: Any) -> None:
    adz("rm", "sql", "--yes")
    lines = adz("ls", "--removed").out.splitlines()
    assert [line.split()[0] for line in lines] == ["version", "sql@1", "sql@2"]
    assert adz("restore", "sql@2").out == "restored sql@2\n"
    value = json.loads(adz("restore", "sql", "--json").out)
    assert value == {"restored": ["sql@1"]}
    assert stored.resolve("sql@prod").number == 1
    assert adz("restore", "sql").err == (
        "adz: no version of sql can be restored (see 'adz log sql')\n"
    )


def used(registry: Any) -> int:
    folders = (registry.blobs.directory, registry.views.directory, registry.trash)
    return sum(p.stat().st_size for f in folders for p in f.rglob("*") if p.is_file())


def test_fsck(stored: Any, adz: Any) -> None:
    result = adz("fsck")
    assert (result.code, result.out) == (0, "everything is as it was stored\n")
    record = stored.resolve("sql@1").manifest.artifacts["metrics.jsonl"]
    blob = stored.blobs.path(record.sha256)
    blob.unlink()
    result = adz("fsck")
    assert result.code == 3
    assert result.out == f"blob {record.sha256}: missing (needed by sql@1)\n"
    finding = json.loads(adz("fsck", "--json").out)["findings"][0]
    assert finding["versions"] == ["sql@1"]
