"""Looking through folders: what is found, skipped, and said to be skipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from adapterhub.adopt.walk import find
from adapterhub.errors import AdzError


def adapter(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    return folder


def test_finds_adapters_at_every_level(home: Path, tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    inner = [
        adapter(root), adapter(root / "run"), adapter(root / "run" / "checkpoint-3"),
        adapter(root / "run" / "named"), adapter(root / ".hidden" / "a"),
    ]  # fmt: skip
    base = root / "model"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model-00001-of-00002.safetensors").write_bytes(b"")
    (root / "tokenizer").mkdir()
    (root / "tokenizer" / "config.json").write_text("{}")
    places = find([root])
    assert sorted(places.adapters) == sorted(inner)
    assert places.bases == [base]
    assert places.problems == []


def test_what_is_no_place_for_adapters_is_skipped(home: Path, tmp_path: Path) -> None:
    root = tmp_path / "all"
    for name in (".git", "node_modules", "site-packages", "__pycache__", "wandb"):
        adapter(root / name)
    cache = root / "models--a--b"
    adapter(cache / "blobs" / "x")
    (cache / "snapshots").mkdir()
    found = adapter(root / "blobs")
    assert find([root]).adapters == [found]


def test_the_registry_itself_is_skipped(home: Path) -> None:
    adapter(home / "registry" / "views" / "x")
    adapter(home.parent / "mine")
    assert find([home.parent]).adapters == [home.parent / "mine"]
    assert find([home]).adapters == []


def test_links_to_folders_are_not_followed(home: Path, tmp_path: Path) -> None:
    root, far = tmp_path / "root", adapter(tmp_path / "far" / "away")
    one = adapter(root / "one")
    (one / "loop").symlink_to(root)
    (root / "latest").symlink_to("one")
    (root / "self").symlink_to("self")
    (root / "nothing").symlink_to("gone")
    (root / "elsewhere").symlink_to(far.parent)
    (root / "file").symlink_to(far / "adapter_config.json")
    places = find([root])
    assert places.adapters == [one]
    assert places.problems == [
        f"{root}/elsewhere: a link to {far.parent}, name it to look through it"
    ]
    assert find([root / "latest"]).adapters == [one]
    assert sorted(find([root, far]).adapters) == sorted([one, far])


def test_roots_in_each_other_are_looked_through_once(home: Path, tmp_path: Path) -> None:
    one = adapter(tmp_path / "a" / "b")
    assert find([tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a"]).adapters == [one]


def test_depth_is_bounded_and_said(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "root"
    deep = adapter(folder / "1" / "2" / "3")
    assert find([folder], depth=3).adapters == [deep]
    places = find([folder], depth=2)
    assert places.adapters == []
    assert places.problems == [f"{deep}: too deep, name it to look through it"]


def test_a_closed_folder_is_reported_and_the_rest_is_found(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, closed = adapter(tmp_path / "root" / "one"), adapter(tmp_path / "root" / "closed")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    # The tests may run as root, whom no mode keeps out.
    monkeypatch.setattr(os, "scandir", refuse)
    places = find([tmp_path / "root"])
    assert places.adapters == [one]
    assert places.problems == [f"{closed}: Permission denied"]


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_root_that_is_no_folder(home: Path, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    if kind == "file":
        root.write_text("")
    with pytest.raises(AdzError, match="is not a folder" if kind == "file" else "does not exist"):
        find([root])
