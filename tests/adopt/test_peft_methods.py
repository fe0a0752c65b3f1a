"""What PEFT itself writes has no fault, whatever the method, and belongs to its own base."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..registry.gates.test_peft import CASES, MODELS, save

Adz = Callable[..., Any]
# They adapt all linear modules: no two of the bases have the same shapes there.
DISTINCT = ("lora", "rslora", "dora")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of each architecture, and an adapter of each method beside them."""
    root = tmp_path_factory.mktemp("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make in MODELS.items():
            make().save_pretrained(root / "bases" / name)
        for base, method in CASES:
            save(base, CASES[base, method](base), root / "adapters" / f"{base}.{method}")
    return root


def test_no_fault_is_made_up(adz: Adz, folder: Path) -> None:
    result = adz("adopt", folder, "--json")
    assert result.code == 0, result.err
    value = json.loads(result.out)
    assert {base["name"] for base in value["bases"]} == set(MODELS)
    found = {Path(one["directory"]).name: one for one in value["adapters"]}
    assert found.keys() == {f"{base}.{method}" for base, method in CASES}
    for name, one in found.items():
        base, method = name.split(".")
        assert base in one["base"]["fitting"], (name, one["faults"])
        held = [fault["kind"] for fault in one["faults"] if fault["level"] != "note"]
        # The same random values make the same factors under another option.
        assert set(held) <= {"several-bases", "duplicate"}, (name, one["faults"])
        if method in DISTINCT:
            assert (one["base"]["name"], one["base"]["certainty"]) == (base, "only")
