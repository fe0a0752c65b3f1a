"""Gates on the files of a payload: which, how many, how large."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterhub.errors import AdzError
from adapterhub.manifest import Manifest
from adapterhub_registry.gates import files
from adapterhub_registry.store import LocalRegistry

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("made_by", ["train", "merge", "import"])
def test_a_sound_payload_passes(check: Callable[..., None], known: bool, made_by: str) -> None:
    check(known=known, made_by=made_by)


def test_a_refused_payload_is_not_stored(
    registry: LocalRegistry, payload: Path, make_manifest: Callable[..., Manifest]
) -> None:
    (payload / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(AdzError, match="a pickle can run code"):
        registry.commit(make_manifest(), payload)
    assert registry.names() == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adapter_model.bin", "adapter_model.bin: a pickle can run code when it is loaded"),
        ("training_args.bin", "training_args.bin: a pickle can run code"),
        ("optimizer.pt", "optimizer.pt: a pickle can run code"),
        ("last.ckpt", "last.ckpt: a pickle can run code"),
        ("adapter.zip", "adapter.zip: archives are not unpacked"),
        ("modeling_evil.py", "modeling_evil.py: no file that an adapter consists of"),
        ("..safetensors", "..safetensors: no file that"),
        (".hidden", ".hidden: no file that"),
    ],
)
def test_only_an_adapters_files_are_stored(
    payload: Path, refused: Callable[..., None], name: str, message: str
) -> None:
    (payload / name).write_bytes(b"\x80\x04")
    refused(message)


def test_a_symbolic_link_is_refused(
    payload: Path, refused: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    (payload / "README.md").symlink_to(tmp_path / "secret")
    refused("README.md is a symbolic link")


def test_only_plain_files_are_stored(payload: Path, refused: Callable[..., None]) -> None:
    os.mkfifo(payload / "README.md")
    refused("README.md is not a plain file")
    (payload / "README.md").unlink()
    (payload / "README.md").mkdir()
    refused("README.md is not a plain file")


def test_files_are_bounded(
    payload: Path,
    check: Callable[..., None],
    refused: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (payload / "README.md").write_bytes(b" " * files.MAX_README)
    check()
    (payload / "README.md").write_bytes(b" " * (files.MAX_README + 1))
    refused("README.md has 1048577 bytes, at most 1048576 are stored")
    (payload / "README.md").write_bytes(b" " * 5000)
    monkeypatch.setattr(files, "MAX_PAYLOAD", 5000)
    refused(" bytes, at most 5000 are stored")
    for number in range(files.MAX_FILES):
        (payload / f"x{number}").touch()
    refused("67 files, at most 64 are stored")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_both_files_are_needed(payload: Path, refused: Callable[..., None], name: str) -> None:
    (payload / name).unlink()
    refused(f"there is no {name}")
