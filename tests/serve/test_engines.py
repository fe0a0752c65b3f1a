"""Which engine serves where nobody says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub import specs
from adapterhub.plugins import Provided, load_plugins
from adapterhub.serve import engines


@pytest.mark.parametrize(("installed", "engine"), [(True, "vllm"), (False, "transformers")])
def test_without_vllm_the_embedded_engine_is_the_default(
    home: Path, monkeypatch: pytest.MonkeyPatch, installed: bool, engine: str
) -> None:
    import importlib.util

    find = importlib.util.find_spec

    def found(name: str, *package: Any) -> Any:
        return (find("json") if installed else None) if name == "vllm" else find(name, *package)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    assert engines.find_engine(None).name == engine


def test_the_best_engine_that_is_installed_is_the_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = load_plugins()
    provided = plugins.provided(specs.Engine)
    best = specs.Engine(
        name="best", summary="", impl="m:missing", requires=("no_such",), priority=9
    )
    good = specs.Engine(name="good", summary="", impl="m:good", priority=5)
    poor = specs.Engine(name="poor", summary="", impl="m:poor", priority=1)
    found = [Provided(engine, provided[0].plugin) for engine in (poor, best, good)]
    monkeypatch.setattr(plugins, "provided", lambda kind: found)
    monkeypatch.setattr(plugins, "load_implementation", lambda component: lambda: component.name)
    assert engines.choose_engine(None) == "good"
    found.pop()
    found.pop(0)
    assert engines.choose_engine(None) == "best", "its error says what to install"
