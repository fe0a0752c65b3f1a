"""`adz ls`, `show`, `log`, `tag`, `rm`, `export`, `gc` and `fsck`."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapterhub.manifest import BaseLink, Manifest, sha256_of
from adapterhub.plugins import open_registry

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def stored(home: Path, tmp_path: Path) -> Any:
    """A registry with sql@1, sql@2 (an alias `prod` on the first) and french@1, made from sql."""
    registry = open_registry()
    payload, artifacts = tmp_path / "payload", tmp_path / "artifacts"
    payload.mkdir()
    artifacts.mkdir()
    tensors = {
        f"{MODULE}.lora_A.weight": np.ones((2, 8), np.float32),
        f"{MODULE}.lora_B.weight": np.ones((8, 2), np.float32),
    }
    save_file(tensors, payload / "adapter_model.safetensors", metadata={"format": "pt"})
    (payload / "adapter_config.json").write_text(
        '{"bias": "none", "lora_alpha": 4, "peft_type": "LORA", "r": 2,'
        ' "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}'
    )
    (artifacts / "metrics.jsonl").write_text('{"loss": 1}\n')
    values: dict[str, Any] = {
        "name": "sql",
        "method": "lora",
        "made_by": "import",
        "base": BaseLink(status="unknown"),
        "adapter": {"rank": 2, "alpha": 4},
        "data": [{"file": "sql.jsonl", "rows": 30, "format": "alpaca"}],
        "metrics": {"loss": {"train": 0.123456789}},
    }
    first = registry.commit(Manifest.model_validate(values), payload, artifacts)
    registry.commit(Manifest.model_validate(values), payload)
    parent = {"name": "sql", "version": 1, "digest": first.digest, "weight": 0.5}
    merged = {"name": "french", "made_by": "merge", "parents": [parent]}
    registry.commit(Manifest.model_validate(values | merged), payload)
    registry.tag("sql@1", "prod")
    return registry


def test_ls(stored: Any, adz: Any) -> None:
    assert adz("ls").out.splitlines() == [
        "name    versions  latest  aliases  method  rank  base     size   made by",
        f"french         1       1           lora       2  unknown  {size(stored)}  merge",
        f"sql            2       2  prod@1   lora       2  unknown  {size(stored)}  import",
    ]
    listed = json.loads(adz("ls", "--json", "--alias", "prod").out)
    assert [(e["name"], e["versions"], e["aliases"]) for e in listed] == [("sql", 2, {"prod": 1})]


def size(registry: Any) -> str:
    return f"{sum(f.size for f in registry.resolve('sql').manifest.files.values())} B"


def test_ls_of_nothing_says_what_to_do(adz: Any) -> None:
    result = adz("ls")
    assert (result.code, result.out) == (0, "")
    assert result.err == "no adapter yet: see 'adz train --help'\n"
    assert adz("ls", "--json").out == "[]\n"
    assert adz("ls", "--method", "dora").err == "no adapter matches\n"
    assert adz("ls", "--removed").err == "nothing was removed\n"


def test_ls_with_an_unknown_base(stored: Any, adz: Any) -> None:
    result = adz("ls", "--base", "llama")
    assert result.code == 2
    assert result.err.startswith("adz: unknown base 'llama'")


def test_show(stored: Any, adz: Any) -> None:
    version = stored.resolve("sql@prod")
    stored.attest(version, "eval", {"metric": "exact_match", "score": 0.875})
    out = adz("show", "sql@prod").out
    for text in (
        "sql@1  (prod)", version.digest, "rank 2, alpha 4",
        "unknown: it is neither served nor merged",
        "adapter_model.safetensors", "metrics.jsonl", "artifact", "sql.jsonl", "loss.train",
        "0.123457", "exact_match", "0.875",
    ):  # fmt: skip
        assert text in out
    assert "sql@1    operand  0.5" in adz("show", "french").out
    value = json.loads(adz("show", "sql@prod", "--json").out)
    assert value["digest"] == version.digest == sha256_of(Manifest(**value["manifest"]).canonical())
    assert value["attestations"][0]["body"]["score"] == 0.875


def test_show_says_who_scored_signed_needs_and_brought_it(stored: Any, adz: Any) -> None:
    version = stored.resolve("sql@2")
    evaluation = {
        "metric": "exact_match", "score": 0.5, "n": 40, "shots": 2, "interval": [1e-18, 0.6],
        "base": {"score": 0.25}, "data": {"file": "test.jsonl"},
    }  # fmt: skip
    stored.attest(version, "evaluation", evaluation)
    for _ in range(2):
        body = {"key": "sha256:" + "ab" * 32, "file": "release.pub", "bundle": "{}"}
        stored.attest(version, "signature", body)
    stored.lease([version], "serve 127.0.0.1:8000", 3600)
    lines = adz("show", "sql").out.splitlines()
    assert "  signed by  release.pub (sha256:abababababab)" in lines
    assert any(line.startswith("  needed by  serve 127.0.0.1:8000 until 2") for line in lines)
    assert "  test.jsonl  exact_match  0.5    0 to 0.6  0.25  40    2" in lines
    assert lines[-1] == "see also: adz log sql, adz lineage sql@2"
    assert "bundle" not in "".join(lines)
    value = json.loads(adz("show", "sql", "--json").out)
    assert [lease["holder"] for lease in value["leases"]] == ["serve 127.0.0.1:8000"]
    assert value["source"] is None


def test_show_card(stored: Any, adz: Any) -> None:
    from adapterhub.cards import model_card

    card = adz("show", "sql", "--card").out
    assert card == model_card(stored, stored.resolve("sql"))
    assert json.loads(adz("show", "sql", "--card", "--json").out) == {"card": card}
    assert adz("show", "sql", "--card", "--path").code == 2


def test_show_path_prints_what_peft_opens_and_nothing_else(stored: Any, adz: Any) -> None:
    path = Path(adz("show", "sql", "--path").out.rstrip("\n"))
    assert set(load_file(path / "adapter_model.safetensors")) == {
        f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight",
    }  # fmt: skip
    assert json.loads(adz("show", "sql", "--path", "--json").out) == {"path": str(path)}


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


def test_ls_filters_sorts_and_pages(stored: Any, adz: Any) -> None:
    for reference, score in (("sql@2", 0.5), ("french", 0.75)):
        body = {"metric": "exact_match", "score": score}
        stored.attest(stored.resolve(reference), "evaluation", body)
    lines = adz("ls", "--metric", "exact_match", "--sort", "metric", "--reverse").out.splitlines()
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [
        ("name", "metric"), ("french", "0.75"), ("sql", "0.5"),
    ]  # fmt: skip
    assert [e["name"] for e in json.loads(adz("ls", "--name", "s*", "--json").out)] == ["sql"]
    lines = adz("ls", "--all-versions", "--limit", "2", "--offset", "1").out.splitlines()
    assert [line.split()[0] for line in lines] == ["version", "sql@1", "sql@2"]
    assert adz("ls", "--metric", "exact_match>0.9").err == "no adapter matches\n"
    assert "did you mean exact_match?" in adz("ls", "--metric", "exact_mach").err
    assert adz("ls", "--all-versions", "--removed").code == 2


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


def test_the_commands_import_no_torch(stored: Any, home: Path) -> None:
    import subprocess

    code = (
        "import sys; from adapterhub.cli import main;"
        "[main(a.split()) for a in ('ls', 'show sql', 'log sql', 'gc', 'fsck')];"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "False"
