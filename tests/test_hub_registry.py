"""The registry's verbs in Python give what the commands print."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from adapterhub import AdzError, Hub


@pytest.fixture
def hub(home: Path, commit_adapter: Any) -> Hub:
    """Two adapters on the tiny base, and a third one merged from them."""
    commit_adapter("a", seed=1)
    commit_adapter("b", seed=2)
    hub = Hub(home)
    hub.merge("a", "b", rule="linear", name="both")
    return hub


def test_diff_and_lineage(hub: Hub, adz: Any) -> None:
    found = hub.diff("a", "b")
    as_json = json.loads(json.dumps(found.as_dict()))
    assert as_json == json.loads(adz("diff", "a", "b", "--json").out)
    assert found.total.absolute > 0
    graph = hub.lineage("both")
    assert graph.as_dict() == json.loads(adz("lineage", "both", "--json").out)
    below = hub.lineage("a", children=True).as_dict()
    assert below == json.loads(adz("lineage", "a", "--children", "--json").out)
    assert below != hub.lineage("a").as_dict()
    with pytest.raises(AdzError, match="unknown adapter or base 'c'"):
        hub.lineage("c")


def test_adopt(hub: Hub, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for name in ("a", "b"):
        hub.export(name, outputs / f"copy-of-{name}")
    (outputs / "broken").mkdir()
    shutil.copy(outputs / "copy-of-a" / "adapter_config.json", outputs / "broken")
    found = hub.survey(outputs)
    assert [(one.directory.name, one.level) for one in found.adapters] == [
        ("broken", "error"), ("copy-of-a", "held"), ("copy-of-b", "held"),
    ]  # fmt: skip
    # The registry has both, so neither is taken by itself.
    assert hub.adopt(outputs) == []
    adopted = hub.adopt(outputs, accept=lambda one: one.directory.name != "copy-of-b")
    assert [one.version.reference for one in adopted if one.version] == ["copy-of-a@1"]
    assert hub.resolve("copy-of-a").manifest.base.name == "tiny"


def test_list_remote(hub: Hub, tmp_path: Path) -> None:
    share = str(tmp_path / "share")
    hub.tag("a", "prod")
    hub.push("a@prod", "both", to=share)
    assert [(one.name, dict(one.aliases)) for one in hub.list_remote(share)] == [
        ("a", {"prod": 1}), ("both", {}),
    ]  # fmt: skip
    assert [one.name for one in hub.list_remote(share, name="bo*")] == ["both"]
