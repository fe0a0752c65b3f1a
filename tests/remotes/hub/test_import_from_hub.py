"""`adz import hub:...`: what is fetched, what is kept of where it came from, what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from adapterhub.plugins import open_registry

Q = "base_model.model.model.layers.0.self_attn.q_proj"
CONFIG = {
    "base_model_name_or_path": "someone/tiny",
    "bias": "none",
    "lora_alpha": 8,
    "peft_type": "LORA",
    "r": 4,
    "target_modules": ["q_proj"],
    "task_type": "CAUSAL_LM",
}


def adapter(seed: int = 0) -> dict[str, bytes]:
    """What a training run leaves on the Hub, with files that nobody should fetch."""
    random = np.random.default_rng(seed)
    tensors = {
        f"{Q}.lora_A.weight": random.normal(size=(4, 64)).astype(np.float32),
        f"{Q}.lora_B.weight": random.normal(size=(64, 4)).astype(np.float32),
    }
    return {
        "adapter_config.json": json.dumps(CONFIG).encode(),
        "adapter_model.safetensors": save(tensors),
        "README.md": b"# mine",
        "training_args.bin": b"\x80\x04",
        "modeling.py": b"import os",
        "checkpoint-5/adapter_model.safetensors": b"x",
    }


def fetched(hub: Any) -> set[str]:
    return {path.partition("/resolve/")[2].partition("/")[2] for _, path in hub.requests} - {""}


def test_only_the_adapter_is_fetched(adz: Any, hub: Any, tiny_base: Any, tmp_path: Path) -> None:
    sha = hub.put("someone/sql", adapter())
    result = adz("import", "hub:someone/sql", "--name", "sql", "--base", "tiny", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["base"]["status"] == "asserted"
    assert fetched(hub) == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert "not fetched: modeling.py, training_args.bin" in result.err
    registry = open_registry()
    version = registry.resolve("sql")
    assert version.manifest.recipe == {"source": "hub:someone/sql", "commit": sha}
    view = registry.path(version)
    stored = {path.name: path.read_bytes() for path in view.iterdir()}
    assert stored == {name: adapter()[name] for name in stored}
    assert len(stored) == 3
    assert list((registry.root.parent / "staging").iterdir()) == []


def test_a_revision_is_a_commit_from_then_on(adz: Any, hub: Any, tiny_base: Any) -> None:
    old = hub.put("someone/sql", adapter())
    hub.repositories["someone/sql"].tags["v1"] = old
    new = hub.put("someone/sql", adapter(seed=1))
    for source, sha, revision in [
        ("hub:someone/sql@v1", old, "v1"),
        ("hub:someone/sql", new, None),
        (f"hub:someone/sql@{old}", old, old),
    ]:
        assert adz("import", source, "--name", "sql").code == 0
        manifest = open_registry().resolve("sql").manifest
        assert manifest.recipe["commit"] == sha
        assert manifest.recipe.get("revision") == revision
        weights = hub.repositories["someone/sql"].commits[sha]["adapter_model.safetensors"]
        digest = hashlib.sha256(weights.data).hexdigest()
        assert manifest.files["adapter_model.safetensors"].sha256 == f"sha256:{digest}"


def test_the_python_api_takes_it_too(hub: Any, tiny_base: Any, home: Path) -> None:
    from adapterhub import Hub

    sha = hub.put("someone/sql", adapter())
    version = Hub(home).import_adapter("hub:someone/sql", "sql")
    assert version.manifest.recipe["commit"] == sha


def test_what_adapterhub_pushed_can_be_imported_like_any_other(
    adz: Any, hub: Any, commit_adapter: Callable[..., Any]
) -> None:
    version = commit_adapter("sql")
    assert adz("push", "sql", "--to", "hub://org").code == 0
    assert adz("import", "hub:org/sql", "--name", "again", "--base", "tiny").code == 0
    again = open_registry().resolve("again").manifest
    weights = "adapter_model.safetensors"
    assert again.files[weights] == version.manifest.files[weights]


def without(*names: str, **changes: bytes) -> dict[str, bytes]:
    files = {name: data for name, data in adapter().items() if name not in names}
    return files | {name.replace("__", "."): data for name, data in changes.items()}


@pytest.mark.parametrize(
    ("files", "code", "message"),
    [
        (without("adapter_config.json"), 2, "hub:someone/sql holds no adapter: there is no"),
        (
            without("adapter_config.json", config__json=b"{}"),
            2,
            "it looks like a base: adz base add NAME someone/sql",
        ),
        (without("adapter_model.safetensors"), 2, "there is no adapter_model.safetensors"),
        (
            without("adapter_model.safetensors", adapter_model__bin=b"\x80\x04"),
            3,
            "adapter_model.bin of hub:someone/sql is a pickle",
        ),
        (
            without(adapter_config__json=b" " * (2**20 + 1)),
            3,
            "adapter_config.json of hub:someone/sql has 1048577 bytes, at most 1048576",
        ),
        (without(adapter_config__json=b"{"), 3, "adapter_config.json is malformed"),
        (without(adapter_model__safetensors=b"x" * 100), 3, "not a valid safetensors file"),
    ],
)
def test_what_is_no_adapter_is_refused(
    adz: Any, hub: Any, home: Path, files: dict[str, bytes], code: int, message: str
) -> None:
    hub.put("someone/sql", files)
    result = adz("import", "hub:someone/sql", "--name", "sql")
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert open_registry().names() == []
    if "is a pickle" in message or "at most" in message:
        assert fetched(hub) == set()


def test_a_huge_file_is_not_fetched(
    adz: Any, hub: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import adapterhub.imports.hub

    hub.put("someone/sql", adapter())
    monkeypatch.setattr(adapterhub.imports.hub, "MAX_PAYLOAD", 100)
    result = adz("import", "hub:someone/sql", "--name", "sql")
    assert result.code == 3
    assert "adapter_model.safetensors of hub:someone/sql has" in result.err
    assert fetched(hub) == set()


def test_other_bytes_than_the_hub_lists_are_refused(adz: Any, hub: Any, home: Path) -> None:
    files = adapter()
    hub.put("someone/sql", files)
    weights = files["adapter_model.safetensors"]
    flipped = weights[:-1] + bytes([weights[-1] ^ 1])
    hub.large[hashlib.sha256(weights).hexdigest()] = flipped
    result = adz("import", "hub:someone/sql", "--name", "sql")
    assert result.code == 3
    assert "came with other bytes than the Hub lists" in result.err
    assert open_registry().names() == []


def test_pickles_are_converted_where_asked_for(
    adz: Any, hub: Any, tiny_base: Any, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load

    tensors = load(adapter()["adapter_model.safetensors"])
    torch.save(tensors, tmp_path / "adapter_model.bin")
    files = without("adapter_model.safetensors")
    files["adapter_model.bin"] = (tmp_path / "adapter_model.bin").read_bytes()
    hub.put("someone/sql", files)
    result = adz("import", "hub:someone/sql", "--name", "sql", "--convert", "--base", "tiny")
    assert result.code == 0, result.err
    registry = open_registry()
    stored = load(
        (registry.path(registry.resolve("sql")) / "adapter_model.safetensors").read_bytes()
    )
    assert stored.keys() == tensors.keys()
    assert all(torch.equal(stored[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("hub:someone/none", 2, "there is no someone/none on the Hugging Face Hub"),
        ("hub:someone/sql@v9", 2, "someone/sql has no such revision"),
        ("hub:someone", 2, "names no repository of the Hub"),
        ("hub:a/b/c", 2, "names no repository of the Hub"),
        ("hub:../../x", 2, "names no repository of the Hub"),
    ],
)
def test_what_is_not_there(
    adz: Any, hub: Any, home: Path, source: str, code: int, message: str
) -> None:
    hub.put("someone/sql", adapter())
    result = adz("import", source, "--name", "sql")
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert len(result.err.splitlines()) == 1


def test_a_name_is_needed(adz: Any, home: Path) -> None:
    result = adz("import", "hub:someone/sql")
    assert result.code == 2
    assert "give one with --name" in result.err
