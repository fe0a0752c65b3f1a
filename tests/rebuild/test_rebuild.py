"""A version made again: the same bytes from the same lineage, and what differs where it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapterhub.manifest import Manifest
from adapterhub.plugins import open_registry

FEW = ["-o", "method.r=4", "-o", "training.max_steps=2", "-o", "training.batch_size=4"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "letters.jsonl"
    rows = [{"prompt": f"{i} is ", "completion": chr(97 + i % 26)} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.usefixtures("tiny_base")
def test_a_whole_lineage_is_made_again(adz: Any, data: Path) -> None:
    """Trained, converted and merged versions, parents first, and nothing is committed."""
    for name, method in (("a", "lora"), ("d", "dora")):
        trained = adz("train", "--method", method, "--data", data, "--name", name, *FEW)
        assert trained.code == 0, trained.err
    assert adz("convert", "d", "--rank", "6").code == 0
    assert adz("merge", "--ties", "a", "d-lora", "--name", "m").code == 0
    before = [version.reference for version in open_registry().versions()]
    done = adz("rebuild", "m", "--deep", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [(r["reference"], r["made_by"]) for r in found] == [
        ("a@1", "train"), ("d@1", "train"), ("d-lora@1", "convert"), ("m@1", "merge"),
    ]  # fmt: skip
    for result in found:
        payload = open_registry().resolve(result["reference"]).manifest.payload
        assert result["recorded"] == result["rebuilt"] == payload
        assert (result["differences"], result["environment"]) == ([], {})
    assert [version.reference for version in open_registry().versions()] == before


@pytest.mark.usefixtures("tiny_base")
def test_the_data_is_known_by_its_digest(adz: Any, data: Path, tmp_path: Path) -> None:
    assert adz("train", "--data", data, "--name", "a", *FEW).code == 0
    moved = data.rename(tmp_path / "elsewhere.jsonl")
    lost = adz("rebuild", "a")
    assert lost.code == 2
    assert "a@1 was trained on letters.jsonl" in lost.err
    data.write_text(moved.read_text() + "\n")
    assert adz("rebuild", "a").code == 2
    assert adz("rebuild", "a", "--data", moved).code == 0


def forge(reference: str, name: str, tmp_path: Path, **changes: Any) -> Manifest:
    """Commit a version that says that it was made so, with one weight changed."""
    registry = open_registry()
    version = registry.resolve(reference)
    payload = tmp_path / "forged"
    payload.mkdir()
    for file in registry.path(version).iterdir():
        (payload / file.name).write_bytes(file.read_bytes())
    tensors = load_file(payload / "adapter_model.safetensors")
    first = sorted(tensors)[0]
    tensors[first] = tensors[first].clone()
    tensors[first][0, 0] += 0.5
    save_file(tensors, payload / "adapter_model.safetensors", metadata={"format": "pt"})
    manifest = version.manifest.model_copy(update={"name": name, "version": 0, **changes})
    return registry.commit(manifest, payload).manifest


def test_what_differs_is_told_and_exits_with_3(
    adz: Any, commit_adapter: Any, tmp_path: Path
) -> None:
    commit_adapter("a", seed=1)
    commit_adapter("b", seed=2)
    assert adz("merge", "a", "b", "--name", "m").code == 0
    then = open_registry().resolve("m").manifest.environment
    forge("m", "f", tmp_path, environment={**then, "torch": "1.0", "gone": "2.0"})
    assert adz("rebuild", "m").code == 0
    done = adz("rebuild", "f")
    assert done.code == 3
    lines = done.out.splitlines()
    assert lines[0].startswith("f@1  different  sha256:")
    tensors = load_file(
        open_registry().path(open_registry().resolve("m")) / "adapter_model.safetensors"
    )
    assert lines[1] == f"  adapter_model.safetensors: 1 of {len(tensors)} tensors"
    assert "0.5 at most" in lines[2]
    assert lines[2].endswith(sorted(tensors)[0])
    assert lines[3:] == [
        "  gone was 2.0 and is not installed",
        f"  torch was 1.0 and is {torch.__version__}",
    ]


def test_what_cannot_be_made_again_says_why(adz: Any, commit_adapter: Any, tmp_path: Path) -> None:
    commit_adapter("a", seed=1)
    commit_adapter("b", seed=2)
    assert adz("export", "a", tmp_path / "out").code == 0
    assert adz("import", tmp_path / "out", "--name", "copy").code == 0
    imported = adz("rebuild", "copy")
    assert imported.code == 2
    assert "copy@1 was imported" in imported.err
    assert adz("merge", tmp_path / "out", "b", "--base", "tiny", "--name", "m").code == 0
    mixed = adz("rebuild", "m")
    assert mixed.code == 1
    assert "m@1 was made from the directory out" in mixed.err
    assert adz("merge", "a", "b", "--name", "n").code == 0
    assert adz("rm", "a", "--yes").code == 0
    gone = adz("rebuild", "n")
    assert gone.code == 2
    assert len(gone.err.splitlines()) <= 2


def test_parents_are_taken_by_digest_whatever_their_names_mean_now(
    adz: Any, commit_adapter: Any
) -> None:
    commit_adapter("a", seed=1)
    commit_adapter("b", seed=2)
    assert adz("merge", "a", "b", "--name", "m").code == 0
    commit_adapter("a", seed=3)
    assert adz("rebuild", "m").code == 0
