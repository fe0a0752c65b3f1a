"""Each distribution below examples/plugins: built, installed from its wheel into an environment of
its own beside the wheel of adapterhub, and tested there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

PLUGINS = sorted((Path(__file__).resolve().parents[2] / "examples" / "plugins").iterdir())


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The wheel of each, by the name of its folder."""
    found = {}
    for project in PLUGINS:
        folder = tmp_path_factory.mktemp(project.name)
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
        subprocess.run([*build, project], check=True, capture_output=True)
        (found[project.name],) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(built, wheels, tmp_path_factory):
    """An environment with what this one holds, but adapterhub and the plugins from their wheels
    and nothing of the sources; returns a function that runs a script of it."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        ours = path.name.startswith(("adapterhub", "_editable_impl_adapterhub", "adz_", "__"))
        if not ours and path.suffix != ".pth":
            (site / path.name).symlink_to(path)
    ours = next(built.glob("*.whl"))
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", ours]
    subprocess.run(
        [folder / "bin" / "python", *install, *wheels.values()], check=True, capture_output=True
    )

    def run(script, *arguments):
        return subprocess.run(
            [folder / "bin" / script, *arguments],
            env={
                "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
                "PATH": os.environ["PATH"], "HOME": str(folder), "ADZ_STRICT_PLUGINS": "1",
            },
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def results(environment, tmp_path_factory):
    """What became of the tests of each, which run in one process: name -> outcome -> count."""
    # Beside no configuration of ours.
    folder = tmp_path_factory.mktemp("tests")
    for project in PLUGINS:
        shutil.copytree(project / "tests", folder / project.name)
    report = folder / "report.xml"
    done = environment(
        "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", folder
    )
    found = {project.name: Counter() for project in PLUGINS}
    for case in ElementTree.parse(report).iter("testcase"):
        name = next(part for part in case.get("classname", "").split(".") if part in found)
        outcome = next((child.tag for child in case), "passed")
        found[name][outcome] += 1
    return found, done.stdout


@pytest.mark.parametrize("project", PLUGINS, ids=lambda path: path.name)
def test_wheel_holds_one_package(wheels, project):
    names = zipfile.ZipFile(wheels[project.name]).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        project.name.replace("-", "_")
    }


def test_adz_lists_them_all(environment, wheels):
    done = environment("adz", "plugins", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    records = {record["distribution"]: record for record in json.loads(done.stdout)}
    for name in wheels:
        assert records[name]["status"] == "loaded"
        assert records[name]["components"]
    assert set(records) == {"adapterhub", *wheels}


@pytest.mark.parametrize("project", PLUGINS, ids=lambda path: path.name)
def test_its_own_tests_pass(results, project):
    found, output = results
    outcomes = found[project.name]
    assert set(outcomes) == {"passed"}, output
