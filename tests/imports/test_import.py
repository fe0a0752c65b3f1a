"""`adz import`: what is taken, and what is said about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.bases.digests import hash_file
from adapterhub.imports.peft_keys import KNOWN_KEYS
from adapterhub.imports.source import method_name
from adapterhub.plugins import open_registry

Adz = Callable[..., Any]


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
        "rank": 4, "alpha": 8, "modules": 1, "targets": ["q_proj"], "parameters": 512,
        "dtype": "F32",
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
