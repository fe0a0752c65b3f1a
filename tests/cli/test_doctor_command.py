"""adz doctor"""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path

import pytest

DISTS = Path(__file__).parent.parent / "fixtures" / "dists"


@pytest.fixture
def checks(adz_process):
    def run(**env):
        done = adz_process("doctor", "--json", env=env)
        return done.code, {check["name"]: check for check in json.loads(done.out)}

    return run


def test_says_what_is_installed(checks, home):
    _, found = checks()
    assert platform.python_version() in found["adapterhub"]["found"]
    assert str(home) in found["home"]["found"]
    assert found["home"]["status"] == "ok"
    assert f"torch {metadata.version('torch')}" in found["[merge]"]["found"]
    assert not home.exists()


def test_failed_plugin_is_wrong(checks):
    code, found = checks(PYTHONPATH=str(DISTS / "import_error"))
    assert code == 1
    wrong = found["plugin adz_import_error"]
    assert wrong["status"] == "wrong"
    assert wrong["advice"] == "update or uninstall adz-import-error"


def test_module_that_dies_when_imported_is_wrong(checks, tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator nms is not there')\n")
    code, found = checks(PYTHONPATH=str(tmp_path))
    assert code == 1
    assert found["torchvision"]["found"] == "RuntimeError: operator nms is not there"
    assert "pip uninstall torchvision" in found["torchvision"]["advice"]


def test_home_that_is_a_file_is_wrong(checks, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    code, found = checks(ADZ_HOME=str(file))
    assert code == 1
    assert found["home"]["status"] == "wrong"
    assert "ADZ_HOME" in found["home"]["advice"]


def test_gpu_without_a_torch_for_it_is_wrong(checks, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Some GPU, 80000 MiB'\n")
    tool.chmod(0o755)
    version = metadata.version("torch")
    _, found = checks(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert found["GPU"]["status"] == ("wrong" if version.endswith("+cpu") else "ok")
    assert "Some GPU, 80000 MiB" in found["GPU"]["found"]


def test_table_repeats_the_advice(adz_process):
    done = adz_process("doctor", env={"PYTHONPATH": str(DISTS / "import_error")})
    assert "plugin adz_import_error: update or uninstall adz-import-error" in done.out
