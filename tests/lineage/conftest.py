"""A registry with a history: trained, merged, converted, removed and pulled versions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapterhub.manifest import BaseLink, Manifest, Parent, Version
from adapterhub.plugins import open_registry

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def commit(home: Path, tmp_path: Path, tiny_base: Any) -> Callable[..., Version]:
    """Commits a LoRA of the tiny base; `parents` are (version, weight or role)."""
    payload = tmp_path / "payload"
    payload.mkdir()
    tensors = {
        f"{MODULE}.lora_A.weight": np.ones((2, 64), np.float32),
        f"{MODULE}.lora_B.weight": np.ones((64, 2), np.float32),
    }
    save_file(tensors, payload / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (payload / "adapter_config.json").write_text(json.dumps(config))

    def store(name: str, *parents: tuple[Version, float | str], **facts: Any) -> Version:
        links = [
            Parent(
                name=version.name,
                version=version.number,
                digest=version.digest,
                weight=None if isinstance(how, str) else how,
                role=how if isinstance(how, str) else "operand",
            )
            for version, how in parents
        ]
        values: dict[str, Any] = {
            "made_by": "merge" if parents else "train",
            "method": "lora",
            "base": BaseLink(status="recorded", name="tiny", digests=tiny_base.digests),
            "adapter": {"rank": 2},
            **facts,
        }
        return open_registry().commit(Manifest(name=name, parents=tuple(links), **values), payload)

    return store


@pytest.fixture
def family(commit: Callable[..., Version]) -> dict[str, Version]:
    """sql and french, trained; both merged by ties; that converted; and removed: style."""
    data = {"file": "sql.jsonl", "sha256": "sha256:" + "ab" * 32, "rows": 30, "format": "alpaca"}
    sql = commit("sql", data=(data,))
    french = commit("french", quantizer="nf4")
    style = commit("style")
    recipe = {
        "rule": "ties", "space": "core", "density": 0.2,
        "adapters": ["sql@1", "french@1", "style@1"],
    }  # fmt: skip
    both = commit("both", (sql, 0.5), (french, 0.25), (style, -0.25), recipe=recipe)
    last = commit("last", (both, "source"), (sql, "initial"), made_by="convert", method="lora")
    open_registry().remove("style")
    return {"sql": sql, "french": french, "style": style, "both": both, "last": last}
