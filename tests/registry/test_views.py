"""The plain directories that PEFT and vLLM open."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseLink, sha256_of
from adapterhub_registry import disk
from adapterhub_registry.store import LocalRegistry


def weights_blob(registry: Any, version: Any) -> Path:
    path: Path = registry.blobs.path(version.manifest.files["adapter_model.safetensors"].sha256)
    return path


def test_a_view_holds_exactly_the_payload(commit: Any, registry: Any, make_payload: Any) -> None:
    version = commit()
    view = registry.path(version)
    assert view.name == version.digest.removeprefix("sha256:")
    assert {p.name: p.read_bytes() for p in view.iterdir()} == {
        p.name: p.read_bytes() for p in make_payload().iterdir()
    }
    assert registry.path(version) == view


def test_a_view_shares_no_inode_with_the_blobs(commit: Any, registry: Any) -> None:
    version = commit()
    view = registry.path(version)
    blobs = {path.stat().st_ino for path in registry.blobs.directory.iterdir()}
    for path in view.iterdir():
        assert path.stat().st_nlink == 1
        assert path.stat().st_ino not in blobs


def test_peft_opens_a_view(
    registry: Any, adz: Any, tiny_base_dir: Path, make_manifest: Any, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    assert adz("base", "add", "tiny", tiny_base_dir).code == 0
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base_dir), config)
    model.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "README.md").unlink()
    link = BaseLink(status="recorded", name="tiny", digests=registry.base("tiny").digests)
    registry.commit(make_manifest(base=link), tmp_path / "saved")

    view = adz("show", "sql", "--path").out.strip()
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base_dir), view)
    tokens = torch.arange(1, 17)[None]
    with torch.no_grad():
        expected, given = model.eval()(tokens).logits, opened.eval()(tokens).logits
        base = AutoModelForCausalLM.from_pretrained(tiny_base_dir)(tokens).logits
    assert torch.equal(given, expected)
    assert not torch.allclose(base, expected, atol=1e-3)
    assert registry.path(registry.resolve("sql")) == Path(view)


def edit(view: Path) -> None:
    path = view / "adapter_config.json"
    path.chmod(0o644)
    path.write_text('{"r": 3}')


def edit_quietly(view: Path) -> None:
    """Other bytes, the same size and the same time."""
    path = view / "adapter_model.safetensors"
    facts = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    new = path.with_name("new")
    new.write_bytes(data)
    os.utime(new, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    new.replace(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (edit, "adapter_config.json differs"),
        (edit_quietly, "adapter_model.safetensors differs"),
        (lambda view: (view / "adapter_config.json").unlink(), "adapter_config.json is missing"),
        (lambda view: (view / "tokenizer.json").write_text("{}"), "tokenizer.json was added"),
    ],
)
def test_a_view_edited_by_hand_is_refused(
    commit: Any, registry: Any, home: Path, change: Any, problem: str
) -> None:
    version = commit()
    view = registry.path(version)
    change(view)
    for opened in (registry, LocalRegistry(home)):
        with pytest.raises(AdzError, match=f"sql@1 were changed by hand: {problem}") as caught:
            opened.path(version)
        assert caught.value.exit_code == EXIT_VERIFICATION
    assert [f.problem for f in registry.check()] == [problem]
    assert weights_blob(registry, version).exists()


def test_a_deleted_view_is_made_anew(commit: Any, registry: Any) -> None:
    version = commit()
    view = registry.path(version)
    edit(view)
    disk.remove(view)
    assert registry.path(version) == view
    data = (view / "adapter_config.json").read_bytes()
    assert sha256_of(data) == version.manifest.files["adapter_config.json"].sha256


def test_a_touched_view_is_hashed_again_and_accepted(
    commit: Any, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterhub_registry import views

    hashed = []
    original = views.hash_file
    monkeypatch.setattr(views, "hash_file", lambda p: (hashed.append(p.name), original(p))[1])
    version = commit()
    view = registry.path(version)
    registry.path(version)
    assert hashed == []
    os.utime(view / "adapter_config.json", (1, 1))
    registry.path(version)
    registry.path(version)
    assert hashed == ["adapter_config.json"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing"])
def test_a_damaged_blob_never_becomes_a_view(commit: Any, registry: Any, damage: str) -> None:
    version = commit()
    blob = weights_blob(registry, version)
    blob.chmod(0o644)
    if damage == "missing":
        blob.unlink()
    elif damage == "truncate":
        os.truncate(blob, blob.stat().st_size - 1)
    else:
        data = bytearray(blob.read_bytes())
        data[-1] ^= 1
        blob.write_bytes(data)
    with pytest.raises(AdzError, match=r"adapter_model\.safetensors") as caught:
        registry.path(version)
    assert caught.value.exit_code == EXIT_VERIFICATION
    assert not list(registry.views.directory.iterdir())
    assert not list(registry.ingest.iterdir())


def test_threads_make_one_view_at_once(commit: Any, registry: Any) -> None:
    version = commit()
    barrier = threading.Barrier(8)
    found: list[Any] = []

    def open_it() -> None:
        barrier.wait()
        try:
            found.append(registry.path(version))
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(map(str, found)) == {str(registry.path(version))}
    assert not list(registry.check())


def test_a_copy_on_write_clone_is_used_where_the_file_system_can(
    commit: Any, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = commit()
    calls = []

    def clone(target: int, request: int, source: int) -> int:
        calls.append(request)
        os.pwrite(target, os.pread(source, os.fstat(source).st_size, 0), 0)
        return 0

    monkeypatch.setattr("fcntl.ioctl", clone)
    view = registry.path(version)
    assert calls == [0x40049409] * 2
    assert not list(registry.check())
    for name, record in version.manifest.files.items():
        assert sha256_of((view / name).read_bytes()) == record.sha256
