"""`adz import`: what is taken, what is said about it, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapterhub.bases.digests import hash_file
from adapterhub.imports.peft_keys import KNOWN_KEYS
from adapterhub.imports.source import method_name
from adapterhub.manifest import BaseLink, Manifest
from adapterhub.plugins import open_registry

Adz = Callable[..., Any]
Q = "base_model.model.model.layers.0.self_attn.q_proj"
CONFIG = {
    "bias": "none",
    "lora_alpha": 8,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "r": 4,
    "target_modules": ["layers.0.self_attn.q_proj"],
    "task_type": "CAUSAL_LM",
}


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Path]:
    """A LoRA of one module of the tiny Llama, in a directory like a Trainer's output."""

    def make(folder: str = "adapter", width: int = 64, **config: Any) -> Path:
        directory = tmp_path / folder
        directory.mkdir(parents=True)
        random = np.random.default_rng(0)
        tensors = {
            f"{Q}.lora_A.weight": random.normal(size=(4, width)).astype(np.float32),
            f"{Q}.lora_B.weight": random.normal(size=(64, 4)).astype(np.float32),
        }
        save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
        (directory / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
        (directory / "README.md").write_text("# A card")
        return directory

    return make


@pytest.fixture
def base(adz: Adz, tiny_base_dir: Path) -> str:
    assert adz("base", "add", "tiny", tiny_base_dir).code == 0
    return "tiny"


def snapshot(directory: Path) -> dict[str, Any]:
    return {
        str(p.relative_to(directory)): (p.stat().st_mtime_ns, p.is_file() and hash_file(p))
        for p in sorted(directory.rglob("*"))
    }


def test_stores_a_copy_and_leaves_the_source(
    adz: Adz, base: str, make_adapter: Callable[..., Path]
) -> None:
    directory = make_adapter()
    (directory / "optimizer.pt").write_bytes(b"\x80\x04")
    (directory / "training_args.bin").write_bytes(b"\x80\x04")
    (directory / "checkpoint-5").mkdir()
    before = snapshot(directory)
    result = adz("import", directory, "--name", "sql", "--json")
    assert result.code == 0, result.err
    assert "ignored: checkpoint-5/, optimizer.pt, training_args.bin" in result.err.splitlines()
    assert snapshot(directory) == before
    value = json.loads(result.out)
    assert value["reference"] == "sql@1"
    assert value["method"] == "lora"
    assert value["base"]["status"] == "asserted"
    assert value["adapter"] == {
        "rank": 4, "alpha": 8, "modules": 1, "parameters": 512, "dtype": "F32",
    }  # fmt: skip
    registry = open_registry()
    view = registry.path(registry.resolve("sql"))
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert {p.name for p in view.iterdir()} == names
    for name in names:
        assert (view / name).read_bytes() == (directory / name).read_bytes()


def test_nothing_is_left_behind(
    adz: Adz, home: Path, base: str, make_adapter: Callable[..., Path]
) -> None:
    before = {p.name for p in home.iterdir()}
    assert adz("import", make_adapter("good"), "--name", "sql").code == 0
    assert adz("import", make_adapter("bad", width=9), "--name", "sql").code == 3
    assert {p.name for p in home.iterdir()} == before | {"staging"}
    assert not any((home / "staging").iterdir())


def test_the_stored_adapter_computes_what_the_source_does(
    adz: Adz, base: str, tiny_base_dir: Path, make_adapter: Callable[..., Path]
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    directory = make_adapter()
    assert adz("import", directory, "--name", "sql").code == 0
    registry = open_registry()
    tokens = torch.arange(8).unsqueeze(0)
    logits = []
    for path in (directory, registry.path(registry.resolve("sql"))):
        model = AutoModelForCausalLM.from_pretrained(tiny_base_dir)
        plain = model(tokens).logits
        logits.append(PeftModel.from_pretrained(model, path)(tokens).logits)
        assert not torch.equal(plain, logits[-1])
    assert torch.equal(*logits)


def test_the_base_is_asserted_when_it_is_known(
    adz: Adz, base: str, make_adapter: Callable[..., Path], tmp_path: Path, tiny_base_dir: Path
) -> None:
    directory = make_adapter()
    digests = open_registry().base(base).digests
    for options in ([], ["--base", base]):
        value = json.loads(adz("import", directory, "--name", "sql", "--json", *options).out)
        assert value["base"]["name"] == base
        assert value["base"]["digests"] == digests.model_dump(mode="json")
    other = shutil.copytree(tiny_base_dir, tmp_path / "other")
    (other / "chat_template.jinja").write_text("other")
    assert adz("base", "add", "other", other).code == 0
    result = adz("import", directory, "--name", "sql", "--json")
    assert json.loads(result.out)["base"]["status"] == "unknown"
    assert "warning: its base is not known here, so it is neither served nor merged" in result.err


def test_without_a_base_it_is_unknown(adz: Adz, make_adapter: Callable[..., Path]) -> None:
    result = adz("import", make_adapter(), "--name", "sql", "--json")
    assert json.loads(result.out)["base"] == {"status": "unknown", "name": None, "digests": None}
    assert "neither served nor merged" in result.err


def test_a_base_that_changed_is_refused(
    adz: Adz, tmp_path: Path, tiny_base_dir: Path, make_adapter: Callable[..., Path]
) -> None:
    copy = shutil.copytree(tiny_base_dir, tmp_path / "copy")
    adz("base", "add", "tiny", copy)
    (copy / "tokenizer.json").write_text("{}")
    result = adz("import", make_adapter(), "--name", "sql")
    assert result.code == 3
    assert "the base tiny changed under its name: what differs is its tokenizer" in result.err


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"peft_type": "LORA"}, "lora"),
        ({"peft_type": "LORA", "use_dora": False, "use_rslora": True}, "rslora"),
        ({"peft_type": "LORA", "use_dora": True}, "dora"),
        ({"peft_type": "IA3"}, "ia3"),
        ({"peft_type": "PREFIX_TUNING"}, "prefix"),
        ({"peft_type": "PROMPT_TUNING"}, "prompt"),
        ({"peft_type": "LOHA"}, "loha"),
    ],
)
def test_the_method_comes_from_the_configuration(config: dict[str, Any], method: str) -> None:
    assert method_name(config) == method


def test_keys_of_a_newer_peft_are_kept_with_a_warning(
    adz: Adz, base: str, make_adapter: Callable[..., Path]
) -> None:
    directory = make_adapter(quantum=True)
    result = adz("import", directory, "--name", "sql")
    assert result.code == 0
    assert "warning: kept keys that PEFT 0.21 does not know: quantum" in result.err
    registry = open_registry()
    view = registry.path(registry.resolve("sql"))
    assert json.loads((view / "adapter_config.json").read_text())["quantum"] is True


def test_every_option_of_peft_is_known() -> None:
    import dataclasses

    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    options = {
        field.name
        for config in PEFT_TYPE_TO_CONFIG_MAPPING.values()
        for field in dataclasses.fields(config)
    }
    assert len(options) > 200
    assert options - KNOWN_KEYS == set()


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (lambda d: shutil.rmtree(d), 2, "there is no directory "),
        (lambda d: (d / "adapter_config.json").unlink(), 2, "there is no adapter_config.json"),
        (lambda d: (d / "adapter_model.safetensors").unlink(), 2, "no adapter_model.safetensors"),
        (
            lambda d: (d / "adapter_model.safetensors").rename(d / "adapter_model.bin"),
            3,
            "adapter_model.bin is a pickle, which can run code when it is loaded",
        ),
        (
            lambda d: os.truncate(d / "adapter_model.safetensors", 100),
            3,
            "adapter_model.safetensors is not a valid safetensors file: it is truncated",
        ),
        (
            lambda d: (d / "adapter_config.json").write_text('{"r": 1, "r": 2}'),
            3,
            "adapter_config.json is malformed: the key 'r' is there twice",
        ),
        (
            lambda d: (d / "adapter_config.json").write_text(" " * 2**20 + "{}"),
            3,
            "adapter_config.json is malformed: it has 1048578 bytes, at most 1048576 are read",
        ),
        (
            lambda d: (d / "adapter_config.json").write_text("{}"),
            3,
            "peft_type is 'None'",
        ),
        (
            lambda d: (d / "README.md").unlink() or (d / "README.md").symlink_to("/etc/passwd"),
            3,
            "README.md is a symbolic link",
        ),
        (
            lambda d: save_file(
                {n: t * 0 for n, t in load_file(d / "adapter_model.safetensors").items()},
                d / "adapter_model.safetensors",
            ),
            3,
            "the adapter changes nothing",
        ),
    ],
)
def test_what_is_no_adapter_is_refused(
    adz: Adz,
    base: str,
    make_adapter: Callable[..., Path],
    damage: Callable[[Path], object],
    code: int,
    message: str,
) -> None:
    directory = make_adapter()
    damage(directory)
    result = adz("import", directory, "--name", "sql")
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert open_registry().names() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "../x"], "'../x' is not a valid name"),
        (["--name", "x..y"], "'x..y' is not a valid name"),
        (["--name", "sql", "--base", "tony"], "unknown base 'tony' (did you mean tiny?)"),
        (["--name", "tiny"], "tiny"),
        ([], "--name"),
    ],
)
def test_names_are_checked(
    adz: Adz,
    base: str,
    make_adapter: Callable[..., Path],
    arguments: list[str],
    message: str,
) -> None:
    result = adz("import", make_adapter(), *arguments)
    assert result.code == 2
    assert message in result.err
    assert open_registry().names() == []


def test_a_base_is_no_adapter(adz: Adz, tiny_base_dir: Path) -> None:
    result = adz("import", tiny_base_dir, "--name", "sql")
    assert result.code == 2
    assert "it looks like a base: adz base add" in result.err


def test_reads_the_links_of_the_hub_cache(
    adz: Adz, base: str, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    directory = make_adapter("models--org--sql/snapshots/abc")
    blobs = tmp_path / "models--org--sql" / "blobs"
    blobs.mkdir()
    for path in list(directory.iterdir()):
        target = blobs / hash_file(path).removeprefix("sha256:")
        path.rename(target)
        path.symlink_to(Path("../../blobs") / target.name)
    assert adz("import", directory, "--name", "sql").code == 0
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (directory / "README.md").unlink()
    (directory / "README.md").symlink_to(secret)
    result = adz("import", directory, "--name", "other")
    assert result.code == 3
    assert "README.md is a symbolic link" in result.err


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
