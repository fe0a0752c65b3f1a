"""The base of an import: asserted, unknown, and claimed later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapterhub.manifest import BaseLink, Manifest
from adapterhub.plugins import open_registry

Adz = Callable[..., Any]


@pytest.fixture
def other(adz: Adz, tmp_path: Path, tiny_base_dir: Path) -> str:
    """A base that differs in its chat template only."""
    directory = shutil.copytree(tiny_base_dir, tmp_path / "other")
    (directory / "chat_template.jinja").write_text("other")
    assert adz("base", "add", "other", directory).code == 0
    return "other"


def test_a_base_can_be_left_open(
    adz: Adz, base: str, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    result = adz("import", make_adapter(), "--name", "sql", "--base", "unknown", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["base"]["status"] == "unknown"
    assert "neither served nor merged" in result.err
    assert adz("import", make_adapter("two"), "--name", "two").code == 0
    row = tmp_path / "rows.jsonl"
    row.write_text('{"prompt": "a", "completion": "b"}\n')
    for command in (
        ["eval", "sql", "--data", row],
        ["run", "sql", "hi"],
        ["merge", "sql", "two", "--linear", "--name", "x"],
        ["export", "sql", "--merged", tmp_path / "x"],
        ["convert", "sql"],
    ):
        refused = adz(*command)
        assert refused.code == 3, (command, refused.err)
        assert "the base of sql" in refused.err
        assert "is not known" in refused.err


def test_no_base_is_called_unknown(adz: Adz, tiny_base_dir: Path) -> None:
    result = adz("base", "add", "unknown", tiny_base_dir)
    assert result.code == 2
    assert "no base can be called 'unknown'" in result.err


def test_the_base_that_the_configuration_names_is_taken(
    adz: Adz, base: str, other: str, make_adapter: Callable[..., Path], tiny_base_dir: Path
) -> None:
    named = make_adapter("named", base_model_name_or_path=str(tiny_base_dir))
    value = json.loads(adz("import", named, "--name", "sql", "--json").out)
    assert value["base"]["name"] == "tiny"
    unnamed = make_adapter("unnamed", base_model_name_or_path="meta-llama/Llama-2-7b")
    value = json.loads(adz("import", unnamed, "--name", "sql", "--json").out)
    assert value["base"]["status"] == "unknown"


@pytest.fixture
def wide(adz: Adz, tmp_path: Path) -> str:
    """A base of another width, which no adapter of the tiny Llama fits."""
    directory = tmp_path / "wide"
    directory.mkdir()
    weight = np.zeros((96, 96), np.float32)
    save_file({"model.layers.0.self_attn.q_proj.weight": weight}, directory / "model.safetensors")
    (directory / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (directory / "tokenizer.json").write_text("{}")
    assert adz("base", "add", "wide", directory).code == 0
    return "wide"


def test_the_only_base_that_fits_is_named_and_not_taken(
    adz: Adz, base: str, wide: str, make_adapter: Callable[..., Path]
) -> None:
    result = adz("import", make_adapter(), "--name", "sql", "--json")
    assert json.loads(result.out)["base"]["status"] == "unknown"
    assert "of the bases only tiny fits its names and shapes" in result.err
    assert "adz import NAME --base tiny says so" in result.err
    assert adz("import", "sql", "--base", "tiny").code == 0
    broad = adz("import", make_adapter("broad", width=80), "--name", "broad")
    assert "adz base add it, then adz import NAME --base BASE" in broad.err


def test_several_bases_that_fit_are_named(
    adz: Adz, base: str, wide: str, other: str, make_adapter: Callable[..., Path]
) -> None:
    result = adz("import", make_adapter(), "--name", "sql")
    assert "other, tiny fit it: adz import NAME --base BASE says which it is" in result.err


def test_the_same_files_again_are_said(
    adz: Adz, base: str, make_adapter: Callable[..., Path]
) -> None:
    directory = make_adapter()
    assert "holds the same files" not in adz("import", directory, "--name", "sql").err
    result = adz("import", directory, "--name", "french")
    assert result.code == 0
    assert "sql@1 holds the same files" in result.err.splitlines()


def test_a_base_is_claimed_later(
    adz: Adz, make_adapter: Callable[..., Path], tiny_base_dir: Path
) -> None:
    assert adz("import", make_adapter(), "--name", "sql").code == 0
    assert adz("base", "add", "tiny", tiny_base_dir).code == 0
    result = adz("import", "sql@1", "--base", "tiny", "--json")
    assert result.code == 0, result.err
    value = json.loads(result.out)
    assert value["reference"] == "sql@2"
    assert value["base"]["status"] == "asserted"
    old, new = open_registry().versions("sql")
    assert new.manifest.payload == old.manifest.payload
    assert new.manifest.adapter == old.manifest.adapter
    assert [(p.name, p.version, p.digest, p.role) for p in new.manifest.parents] == [
        ("sql", 1, old.digest, "source")
    ]
    again = adz("import", "sql", "--base", "tiny")
    assert again.code == 2
    assert "sql@2 is used on tiny already" in again.err


def test_a_claim_keeps_what_is_known(
    adz: Adz, base: str, other: str, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    registry = open_registry()
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "curve.json").write_text("{}")
    manifest = Manifest(
        name="sql",
        method="lora",
        made_by="train",
        base=BaseLink(status="recorded", name=base, digests=registry.base(base).digests),
        recipe={"seed": 3},
        metrics={"train_loss": 0.5},
    )
    registry.commit(manifest, make_adapter(), tmp_path / "extra")
    # Another template is no other base; under another name it is a copy.
    assert adz("import", "sql", "--base", "other").code == 2
    assert adz("import", "sql", "--base", "other", "--name", "copy").code == 0
    version = registry.resolve("copy")
    assert version.manifest.recipe == {"seed": 3}
    assert version.manifest.base.name == "other"
    registry.artifacts(version, tmp_path / "out")
    assert (tmp_path / "out" / "curve.json").read_text() == "{}"


def test_a_recorded_base_is_not_claimed_away(
    adz: Adz, base: str, make_adapter: Callable[..., Path]
) -> None:
    registry = open_registry()
    digests = registry.base(base).digests
    elsewhere = digests.model_copy(update={"weights": "sha256:" + "0" * 64})
    manifest = Manifest(name="sql", method="lora", made_by="train", base=BaseLink(status="unknown"))
    directory = make_adapter()
    for status, code in (("recorded", 3), ("asserted", 0)):
        link = BaseLink(status=status, name="else", digests=elsewhere)
        registry.commit(manifest.model_copy(update={"name": status, "base": link}), directory)
        result = adz("import", status, "--base", base)
        assert result.code == code, result.err
    assert [v.number for v in registry.versions("recorded")] == [1]
    result = adz("import", "recorded", "--base", base, "--name", "copy")
    assert result.code == 3
    assert "was made for else, not for" in result.err
    assert "use the base that it was made for" in result.err


def test_a_claim_that_does_not_fit_is_refused(
    adz: Adz, make_adapter: Callable[..., Path], tiny_base_dir: Path
) -> None:
    assert adz("import", make_adapter(width=9), "--name", "sql").code == 0
    assert adz("base", "add", "tiny", tiny_base_dir).code == 0
    result = adz("import", "sql", "--base", "tiny")
    assert result.code == 3
    assert "q_proj of tiny is (64, 64): (r, 64) expected" in result.err
    assert len(open_registry().versions("sql")) == 1


def test_what_is_neither_a_directory_nor_a_version(adz: Adz, base: str) -> None:
    result = adz("import", "sqll", "--base", "tiny")
    assert result.code == 2
    assert "there is neither a directory sqll nor an adapter of that name" in result.err


def test_a_directory_needs_a_name(adz: Adz, make_adapter: Callable[..., Path]) -> None:
    result = adz("import", make_adapter())
    assert result.code == 2
    assert "give one with --name" in result.err


def test_modules_that_change_nothing_are_said(
    adz: Adz, base: str, make_adapter: Callable[..., Path]
) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    directory = make_adapter(target_modules=["q_proj", "v_proj"])
    weights = directory / "adapter_model.safetensors"
    added = "base_model.model.model.layers.0.self_attn.v_proj"
    tensors = {
        f"{added}.lora_A.weight": np.ones((4, 64), np.float32),
        f"{added}.lora_B.weight": np.zeros((32, 4), np.float32),
    }
    save_file({**load_file(weights), **tensors}, weights)
    result = adz("import", directory, "--name", "sql")
    assert result.code == 0, result.err
    assert "1 of its 2 modules change nothing: their updates are zero" in result.err
