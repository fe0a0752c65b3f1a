"""What the commands of the registry are tried on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapterhub.manifest import BaseLink, Manifest
from adapterhub.plugins import open_registry

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def stored(home: Path, tmp_path: Path) -> Any:
    """A registry with sql@1, sql@2 (an alias `prod` on the first) and french@1, made from sql."""
    registry = open_registry()
    payload, artifacts = tmp_path / "payload", tmp_path / "artifacts"
    payload.mkdir()
    artifacts.mkdir()
    tensors = {
        f"{MODULE}.lora_A.weight": np.ones((2, 8), np.float32),
        f"{MODULE}.lora_B.weight": np.ones((8, 2), np.float32),
    }
    save_file(tensors, payload / "adapter_model.safetensors", metadata={"format": "pt"})
    (payload / "adapter_config.json").write_text(
        '{"bias": "none", "lora_alpha": 4, "peft_type": "LORA", "r": 2,'
        ' "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}'
    )
    (artifacts / "metrics.jsonl").write_text('{"loss": 1}\n')
    values: dict[str, Any] = {
        "name": "sql",
        "method": "lora",
        "made_by": "import",
        "base": BaseLink(status="unknown"),
        "adapter": {"rank": 2, "alpha": 4},
        "data": [{"file": "sql.jsonl", "rows": 30, "format": "alpaca"}],
        "metrics": {"loss": {"train": 0.123456789}},
    }
    first = registry.commit(Manifest.model_validate(values), payload, artifacts)
    registry.commit(Manifest.model_validate(values), payload)
    parent = {"name": "sql", "version": 1, "digest": first.digest, "weight": 0.5}
    merged = {"name": "french", "made_by": "merge", "parents": [parent]}
    registry.commit(Manifest.model_validate(values | merged), payload)
    registry.tag("sql@1", "prod")
    return registry
