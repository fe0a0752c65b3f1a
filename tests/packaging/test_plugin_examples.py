"""Each distribution below examples/plugins: built, installed from its wheel, tested as it is."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PLUGINS = sorted((Path(__file__).resolve().parents[2] / "examples" / "plugins").iterdir())


@pytest.mark.parametrize("project", PLUGINS, ids=lambda path: path.name)
def test_installed_from_its_wheel_its_tests_pass(project, tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    subprocess.run([*build, project], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        project.name.replace("-", "_")
    }
    # A folder that holds the wheel's files and nothing of the source.
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", installed]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", project / "tests"],
        env={
            "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "ADZ_STRICT_PLUGINS": "1",
        },
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
