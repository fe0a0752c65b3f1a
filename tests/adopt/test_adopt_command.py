"""`adz adopt` as a user meets it."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapterhub.adopt import pipeline
from adapterhub.adopt.pipeline import choose, clean
from adapterhub.adopt.survey import survey
from adapterhub.manifest import BaseLink, Manifest
from adapterhub.merge.silent import Silent
from adapterhub.plugins import open_registry

from .adapter_folders import (
    ELSEWHERE,
    TINY,
    WIDE,
    Machine,
    cached,
    config,
    lora,
    put_wide_base,
    snapshot,
    write,
)

Adz = Callable[..., Any]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Two good adapters, an untrained one and one of another base."""
    root = tmp_path / "outputs"
    write(root / "sql", lora(TINY, 1), config())
    write(root / "french", lora(TINY, 2, 24), config(rank=24))
    zero = {n: 0 * t if "lora_B" in n else t for n, t in lora(TINY, 3).items()}
    write(root / "untrained", zero, config())
    write(root / "stray", lora(TINY, 4), config("acme/mistral"))
    return root


def test_reports_and_imports_nothing(adz: Adz, tiny_base: Any, outputs: Path) -> None:
    result = adz("adopt", outputs)
    assert result.code == 0
    lines = result.out.splitlines()
    rows = [line.split() for line in lines[1:5]]
    assert [row[:6] for row in rows] == [
        ["1", "french", "lora", "24", "14", rows[0][5]],
        ["2", "sql", "lora", "8", "14", rows[1][5]],
        ["3", "stray", "lora", "8", "14", rows[2][5]],
        ["4", "untrained", "lora", "8", "14", rows[3][5]],
    ]
    text = result.out
    assert "  1  french: vllm has no rank 24: every slot is padded to 32\n" in text
    assert "  3  stray: only tiny fits, but it names acme/mistral: confirm with --base\n" in text
    assert "  4  untrained: all of its low-rank products are zero" in text
    assert ": 2 clean, 1 held, 1 cannot be imported\n" in text
    assert lines[-1] == "nothing was imported: --yes imports the 2 that are clean"
    assert open_registry().names() == []


def test_yes_imports_what_is_clean(adz: Adz, tiny_base: Any, outputs: Path) -> None:
    result = adz("adopt", outputs, "--yes")
    assert result.code == 0
    assert result.out.splitlines()[-2:] == ["french@1  lora", "sql@1  lora"]
    assert open_registry().names() == ["french", "sql"]
    version = open_registry().resolve("sql")
    assert (version.manifest.base.status, version.manifest.base.name) == ("asserted", "tiny")


def test_dry_run_never_imports(adz: Adz, tiny_base: Any, outputs: Path) -> None:
    assert "nothing was imported" not in adz("adopt", outputs, "--yes", "--dry-run").out
    assert open_registry().names() == []


def test_a_named_base_settles_doubt(adz: Adz, tiny_base: Any, outputs: Path) -> None:
    value = json.loads(adz("adopt", outputs, "--base", "tiny", "--json").out)
    assert {Path(a["directory"]).name: a["status"] for a in value["adapters"]} == {
        "french": "clean", "sql": "clean", "stray": "clean", "untrained": "error",
    }  # fmt: skip
    assert {a["base"]["certainty"] for a in value["adapters"][:3]} == {"given"}


def test_of_two_bases_of_one_shape_the_hint_decides_or_the_user(
    adz: Adz, tiny_base: Any, tmp_path: Path, tiny_base_dir: Path
) -> None:
    twin = twin_of(tiny_base_dir, tmp_path / "twin-llama")
    assert adz("base", "add", "twin", twin).code == 0
    root = tmp_path / "out"
    write(root / "told", lora(TINY, 1), config("org/twin-llama"))
    write(root / "open", lora(TINY, 2), config(None))
    value = json.loads(adz("adopt", root, "--json").out)
    found = {Path(a["directory"]).name: a for a in value["adapters"]}
    assert found["told"]["base"]["name"] == "twin"
    assert found["told"]["base"]["certainty"] == "hint"
    assert found["open"]["base"]["fitting"] == ["tiny", "twin"]
    assert [f["kind"] for f in found["open"]["faults"]] == ["several-bases"]
    given = adz("adopt", root, "--base", "twin", "--yes")
    assert given.code == 0
    assert open_registry().resolve("open").manifest.base.name == "twin"


def test_bases_below_the_folders_are_offered_and_added(
    adz: Adz, tmp_path: Path, tiny_base_dir: Path
) -> None:
    machine = Machine(tmp_path / "outputs", tmp_path / "hub")
    put_wide_base(machine, tiny_base_dir)
    folder = snapshot(machine.cache, "acme/wide-sql", "ab" * 20)
    cached(write(folder, lora(WIDE, 1), config("acme/wide-llama")))
    report = adz("adopt", machine.cache)
    assert f"  adz base add wide-llama {machine.cache}/models--acme--wide-llama/" in report.out
    assert open_registry().bases() == []
    assert adz("adopt", machine.cache, "--yes").code == 0
    assert [base.name for base in open_registry().bases()] == ["wide-llama"]
    assert open_registry().resolve("wide-sql").manifest.base.name == "wide-llama"
    again = json.loads(adz("adopt", machine.cache, "--json").out)
    assert again["bases"] == []


def test_a_base_that_cannot_be_added_stops_only_its_own(
    adz: Adz, tiny_base: Any, outputs: Path, tiny_base_dir: Path
) -> None:
    machine = Machine(outputs, outputs / "hub")
    put_wide_base(machine, tiny_base_dir)
    for file in outputs.rglob("tokenizer*"):
        file.unlink()
    write(outputs / "broad", lora(WIDE, 1), config("acme/wide-llama"))
    result = adz("adopt", outputs, "--yes")
    assert result.code == 1
    assert "broad was refused: its base wide-llama cannot be added: there is no token" in result.out
    assert open_registry().names() == ["french", "sql"]


def test_names_that_are_taken_are_not_given(adz: Adz, tiny_base: Any, outputs: Path) -> None:
    assert adz("adopt", outputs, "--yes").code == 0
    write(outputs / "tiny", lora(TINY, 5), config())
    write(outputs / "sql", lora(TINY, 6), config())
    value = json.loads(adz("adopt", outputs, "--yes", "--json").out)
    assert [a["reference"] for a in value["adopted"]] == ["outputs-sql@1", "outputs-tiny@1"]


def test_a_checkpoint_is_named_after_its_run_and_keeps_its_step(
    adz: Adz, tiny_base: Any, tmp_path: Path
) -> None:
    root = tmp_path / "outputs"
    write(root / "run-7" / "checkpoint-500", lora(TINY, 1), config())
    write(root / "run-7" / "checkpoint-250", lora(TINY, 5), config())
    write(root / "run-8" / "checkpoint-250", lora(TINY, 2), config())
    write(root / "sql" / "checkpoint-9", lora(TINY, 3), config())
    result = adz("adopt", root, "--yes", "--json")
    assert result.code == 0, result.err
    names = {one["reference"] for one in json.loads(result.out)["adopted"]}
    assert names == {"run-7@1", "run-8@1", "sql@1"}
    lines = [line.split() for line in adz("show", "run-7").out.splitlines()]
    assert ["imported", "from", "run-7/checkpoint-500,", "step", "500"] in lines


def test_what_a_gate_refuses_is_said_before(adz: Adz, tiny_base: Any, outputs: Path) -> None:
    write(outputs / "spy", lora(TINY, 7), config(megatron_config={"path": "x"}))
    result = adz("adopt", outputs, "--yes")
    assert result.code == 0
    assert "spy: adapter_config.json is refused: megatron_config" in result.out
    assert open_registry().names() == ["french", "sql"]


def test_what_changes_meanwhile_stops_no_other(
    adz: Adz, tiny_base: Any, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the survey and the import somebody else may write there."""

    def spoil(*arguments: Any) -> Any:
        file = outputs / "french" / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:-8])
        return adopt(*arguments)

    adopt = pipeline.adopt
    monkeypatch.setattr(pipeline, "adopt", spoil)
    result = adz("adopt", outputs, "--yes")
    assert result.code == 1
    assert "french was refused: adapter_model.safetensors is not a valid" in result.out
    assert open_registry().names() == ["sql"]


def test_nothing_there(adz: Adz, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = adz("adopt", tmp_path / "empty")
    assert (result.code, result.out[:26]) == (0, "0 adapters in 1 folder, 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'FOLDERS...'"),
        (("/nowhere",), "/nowhere does not exist"),
        (("{}", "--base", "tinny"), "unknown base 'tinny' (did you mean tiny?)"),
    ],
)
def test_bad_input(
    adz: Adz, tiny_base: Any, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = adz("adopt", *(a.format(tmp_path) for a in arguments))
    assert result.code == 2
    assert message in result.err


def test_the_folders_are_not_changed(adz: Adz, tiny_base: Any, outputs: Path) -> None:
    def state() -> dict[str, Any]:
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_mode) for p in outputs.rglob("*")}

    before = state()
    assert adz("adopt", outputs, "--yes").code == 0
    assert state() == before


def test_without_torch(adz_process: Adz, tiny_base: Any, outputs: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked" / "torch"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ModuleNotFoundError('torch')")
    path = os.pathsep.join((str(blocked.parent), os.environ.get("PYTHONPATH", "")))
    result = adz_process("adopt", outputs, "--yes", env={"PYTHONPATH": path})
    assert result.code == 0, result.err
    assert "sql@1  lora" in result.out


@pytest.mark.parametrize(
    ("answers", "names"),
    [
        (["all"], ["french", "sql"]),
        (["none"], []),
        ([""], []),
        (["2"], ["sql"]),
        # What is held may be named; what cannot be imported may not, and is asked again.
        (["9", "two", "3-4", "2-3"], ["sql", "stray"]),
    ],
)
def test_a_terminal_asks(
    home: Path, tiny_base: Any, outputs: Path, answers: list[str], names: list[str]
) -> None:
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "adapterhub.cli", "adopt", str(outputs)],
        stdin=terminal, stdout=terminal, stderr=terminal,
        env={**os.environ, "ADZ_HOME": str(home)},
    )  # fmt: skip
    os.close(terminal)
    os.write(controller, "".join(f"{answer}\n" for answer in answers).encode())
    shown = b""
    while True:
        try:
            piece = os.read(controller, 65536)
        # A terminal that nobody holds any more is an error on Linux.
        except OSError:
            break
        shown += piece
    os.close(controller)
    assert process.wait(60) == 0
    text = shown.decode()
    assert open_registry().names() == names
    if "9" in answers:
        assert "there is no number 9 (1 to 4)" in text
        assert "'two' is no number" in text
        assert "number 4, untrained, cannot be imported: all of its" in text


def twin_of(base: Path, folder: Path) -> Path:
    """A base of the same shapes with other values."""
    twin = shutil.copytree(base, folder)
    weights = load_file(twin / "model.safetensors")
    save_file({n: t + 1 for n, t in weights.items()}, twin / "model.safetensors", {"format": "pt"})
    return Path(twin)


def test_an_export_belongs_to_the_base_that_it_names_by_digest(
    adz: Adz, tiny_base: Any, tmp_path: Path, tiny_base_dir: Path, commit_adapter: Any
) -> None:
    """Whatever its configuration says, and whatever else has the same shapes."""
    assert adz("base", "add", "twin", twin_of(tiny_base_dir, tmp_path / "twin")).code == 0
    commit_adapter("sql")
    out = tmp_path / "out" / "sql"
    assert adz("export", "sql", out).code == 0
    assert adz("rm", "sql", "--yes").code == 0
    (one,) = json.loads(adz("adopt", out, "--json").out)["adapters"]
    assert (one["base"]["name"], one["base"]["certainty"]) == ("tiny", "recorded")
    assert one["status"] == "clean"
    assert adz("base", "rm", "tiny").code == 0
    (one,) = json.loads(adz("adopt", out, "--json").out)["adapters"]
    assert [fault["kind"] for fault in one["faults"]] == ["no-base"]
    config = out / "adapter_config.json"
    config.write_text(config.read_text() + " ")
    (one,) = json.loads(adz("adopt", out, "--json").out)["adapters"]
    assert [fault["kind"] for fault in one["faults"]] == ["changed-export", "doubtful-base"]
    assert (one["base"]["name"], one["status"]) == ("twin", "held")


def test_an_export_of_another_method_has_tensors_of_its_own(
    adz: Adz, tiny_base: Any, tmp_path: Path
) -> None:
    payload = tmp_path / "payload"
    payload.mkdir()
    save_file({"bias": np.ones(4, np.float32)}, payload / "adapter_model.safetensors")
    (payload / "adapter_config.json").write_text('{"layers": [1]}')
    link = BaseLink(status="recorded", name="tiny", digests=tiny_base.digests)
    manifest = Manifest(name="own", method="bitfit", storage="own", made_by="train", base=link)
    open_registry().commit(manifest, payload)
    assert adz("export", "own", tmp_path / "out" / "mine").code == 0
    assert adz("rm", "own", "--yes").code == 0
    result = adz("adopt", tmp_path / "out", "--yes", "--json")
    (one,) = json.loads(result.out)["adapters"]
    assert (one["status"], one["method"]) == ("clean", "bitfit")
    assert open_registry().resolve("mine").manifest.storage == "own"
    (tmp_path / "out" / "mine" / "adapter_config.json").write_text('{"layers": [2]}')
    (one,) = json.loads(adz("adopt", tmp_path / "out", "--json").out)["adapters"]
    kinds = [fault["kind"] for fault in one["faults"]]
    assert kinds == ["changed-export", "malformed-config", "known"]


def test_a_copy_of_a_known_base_is_not_offered(
    adz: Adz, tiny_base: Any, tmp_path: Path, tiny_base_dir: Path
) -> None:
    root = tmp_path / "models"
    shutil.copytree(tiny_base_dir, root / "copied")
    twin_of(tiny_base_dir, root / "other")
    value = json.loads(adz("adopt", root, "--json").out)
    assert [base["name"] for base in value["bases"]] == ["other"]


def test_what_fits_no_base_can_be_taken_with_an_unknown_one(
    home: Path, tiny_base: Any, tmp_path: Path
) -> None:
    folder = write(tmp_path / "out" / "far", lora(ELSEWHERE, 1), config("acme/elsewhere"))
    registry = open_registry()
    found = survey(registry, [folder], None, Silent())
    assert [fault.kind for fault in found.adapters[0].faults] == ["no-base"]
    assert clean(found) == []
    (done,) = pipeline.adopt(registry, found, choose(found, [1]), Silent())
    assert done.version is not None
    assert done.version.manifest.base.status == "unknown"


def test_values_are_compared_whatever_the_file_looks_like(
    adz: Adz, tiny_base: Any, tmp_path: Path
) -> None:
    """The same tensors in another dtype are others; in another order they are the same."""
    tensors = lora(TINY, 1)
    root = tmp_path / "out"
    write(root / "a", tensors, config())
    write(root / "b", dict(reversed(tensors.items())), config(), saved="later")
    write(root / "c", {n: t.astype(np.float64) for n, t in tensors.items()}, config())
    value = json.loads(adz("adopt", root, "--json").out)
    kinds = {Path(a["directory"]).name: [f["kind"] for f in a["faults"]] for a in value["adapters"]}
    assert kinds == {"a": [], "b": ["duplicate"], "c": []}
