"""`adz import`: what is refused, with one line, and stores nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from adapterhub.bases.digests import hash_file
from adapterhub.plugins import open_registry

Adz = Callable[..., Any]


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
