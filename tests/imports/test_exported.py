"""What `adz export` wrote keeps what is known of it when it is imported again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from adapterhub.manifest import BaseLink, Manifest
from adapterhub.plugins import open_registry

Adz = Callable[..., Any]


@pytest.fixture
def trained(adz: Adz, base: str, make_adapter: Callable[..., Path]) -> str:
    """A version that says how it was made."""
    registry = open_registry()
    manifest = Manifest(
        name="sql",
        method="lora",
        made_by="train",
        base=BaseLink(status="recorded", name=base, digests=registry.base(base).digests),
        quantizer="nf4",
        objective="sft",
        prompt_format="chat",
        adapter={"rank": 4},
        recipe={"seed": 3},
        data=({"file": "train.jsonl", "rows": 9},),
        metrics={"train_loss": 0.5},
        environment={"peft": "0.21.2"},
    )
    directory = make_adapter("trained")
    return registry.commit(manifest, directory).reference


def test_an_export_keeps_what_is_known_of_it(adz: Adz, trained: str, tmp_path: Path) -> None:
    assert adz("export", trained, tmp_path / "out").code == 0
    result = adz("import", tmp_path / "out", "--name", "again", "--json")
    assert result.code == 0, result.err
    registry = open_registry()
    old, new = (registry.resolve(name).manifest for name in ("sql", "again"))
    kept = set(Manifest.model_fields) - {"name", "version", "made_by", "base", "created"}
    assert {key: getattr(new, key) for key in kept} == {key: getattr(old, key) for key in kept}
    assert new.made_by == "import"
    assert new.base == old.base.model_copy(update={"status": "asserted"})


@pytest.mark.parametrize("damage", ["payload", "manifest"])
def test_a_changed_export_is_an_import_like_any_other(
    adz: Adz, trained: str, tmp_path: Path, damage: str
) -> None:
    out = tmp_path / "out"
    adz("export", trained, out)
    if damage == "payload":
        (out / "README.md").write_text("another")
    else:
        (out / "manifest.json").write_text("{")
    assert adz("import", out, "--name", "again").code == 0
    manifest = open_registry().resolve("again").manifest
    assert manifest.recipe == {}
    assert manifest.quantizer is None


def test_an_export_finds_its_own_base_and_no_other(
    adz: Adz, trained: str, tmp_path: Path, tiny_base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adz("export", trained, tmp_path / "out")
    other = shutil.copytree(tiny_base_dir, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    save_file(
        {name: t + 1 for name, t in tensors.items()},
        other / "model.safetensors",
        metadata={"format": "pt"},
    )
    adz("base", "add", "other", other)
    value = json.loads(adz("import", tmp_path / "out", "--name", "again", "--json").out)
    assert value["base"]["name"] == "tiny"
    result = adz("import", tmp_path / "out", "--name", "again", "--base", "other")
    assert result.code == 3
    assert "the same architecture with other weights" in result.err
    # Another machine, which knows only the other base.
    monkeypatch.setenv("ADZ_HOME", str(tmp_path / "elsewhere"))
    adz("base", "add", "other", other)
    result = adz("import", tmp_path / "out", "--name", "again", "--json")
    assert json.loads(result.out)["base"]["status"] == "unknown"
    assert "its base tiny is not known here" in result.err


def test_the_card_of_an_export_does_not_become_a_part_of_it(
    adz: Adz, base: str, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    directory = make_adapter()
    (directory / "README.md").unlink()
    assert adz("import", directory, "--name", "sql").code == 0
    assert adz("export", "sql", tmp_path / "out").code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert card == adz("show", "sql", "--card").out
    assert "\n# sql, version 1\n" in card
    assert adz("import", tmp_path / "out", "--name", "again").code == 0
    old, new = (open_registry().resolve(name).manifest for name in ("sql", "again"))
    assert new.payload == old.payload
    # A card that someone wrote beside other weights is theirs to keep.
    (tmp_path / "out" / "adapter_config.json").write_text(
        (directory / "adapter_config.json").read_text() + "\n"
    )
    assert adz("import", tmp_path / "out", "--name", "changed").code == 0
    assert "README.md" in open_registry().resolve("changed").manifest.files
