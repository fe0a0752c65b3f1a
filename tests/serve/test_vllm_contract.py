"""A vLLM that is not as we know it is refused; elsewhere the plugin does nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("vllm")

from adapterhub.errors import AdzError
from adapterhub_vllm.contract import check_signatures
from adapterhub_vllm.settings import ServerSettings


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, since what is tested changes vLLM's classes."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


ACTIVE = ServerSettings("tiny", 16).to_environment()

REPORT = """
import json
from vllm.plugins import load_general_plugins
{before}
load_general_plugins()
from adapterhub_vllm.general import register
register()
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.serving import BaseServing
from vllm.entrypoints.serve.middleware import authenticate
from vllm.platforms import current_platform
print(json.dumps([
    BaseServing._check_model.__module__,
    BaseServing._maybe_get_adapters.__module__,
    OpenAIServingModels.show_available_models.__module__,
    current_platform.get_punica_wrapper(),
    list(authenticate.GUARDED_PREFIX),
]))
"""


def report(before: str = "", **variables: str) -> Any:
    done = python(REPORT.format(before=before), **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_vllm_finds_the_plugin_and_it_is_inert_elsewhere() -> None:
    check, adapters, models, wrapper, guarded = report()
    assert check == adapters == "vllm.entrypoints.serve.engine.serving"
    assert models == "vllm.entrypoints.openai.models.serving"
    assert wrapper.startswith("vllm.")
    assert "/" not in guarded


def test_under_adz_serve_every_part_is_replaced() -> None:
    check, adapters, models, wrapper, guarded = report(**ACTIVE)
    assert {check, adapters, models} == {"adapterhub_vllm.serving"}
    assert wrapper == "adapterhub_vllm.cpu_lora.GroupedPunicaWrapper"
    assert guarded == ["/"]


@pytest.mark.parametrize(
    "change",
    [
        "from vllm.entrypoints.serve.engine.serving import BaseServing as C\n"
        "async def _check_model(self, request, raw): pass\nC._check_model = _check_model",
        "from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU as C\n"
        "def add_lora_linear(self, y, x): pass\nC.add_lora_linear = add_lora_linear",
        "import vllm.lora.punica_wrapper.punica_cpu as m\ndel m.PunicaWrapperCPU",
    ],
    ids=["serving layer", "kernels", "gone"],
)
def test_a_vllm_that_differs_ends_with_one_line(change: str) -> None:
    done = python(REPORT.format(before=change), **ACTIVE)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("adz: ")]
    assert len(lines) == 1
    assert "not supported" in lines[0]
    assert "Traceback" not in done.stderr


def test_a_signature_that_differs_is_named() -> None:
    def function(a: int, b: int) -> None: ...

    check_signatures({function: ("a", "b")})
    with pytest.raises(AdzError, match=r"takes \(a, b\), expected \(a, c\)"):
        check_signatures({function: ("a", "c")})
