"""Wheel and sdist: what is in them, and that the wheel installs into an empty environment."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path

import pytest

import adapterhub

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def headers(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode())


def test_every_top_level_name_is_ours(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert tops
    assert all(name.startswith("adapterhub") for name in tops), tops


def test_wheel_holds_every_module_of_the_tree(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {n for n in archive.namelist() if n.endswith(".py")}
    tree = {
        file.relative_to(root).as_posix()
        for root in (ROOT, ROOT / "plugins", ROOT / "registry")
        for package in root.glob("adapterhub*")
        for file in package.rglob("*.py")
    }
    assert inside == tree
    assert "adapterhub/py.typed" in zipfile.ZipFile(wheel).namelist()


def test_metadata(headers):
    assert headers["Name"] == "adapterhub"
    assert headers["Version"] == adapterhub.__version__
    assert headers["License-Expression"] == "Apache-2.0"
    assert headers["License-File"] == "LICENSE"
    assert headers["Requires-Python"] == "<3.14,>=3.11"
    classifiers = headers.get_all("Classifier")
    for minor in (11, 12, 13):
        assert f"Programming Language :: Python :: 3.{minor}" in classifiers


def test_plain_install_draws_in_no_torch(headers):
    plain = [r for r in headers.get_all("Requires-Dist") if "extra ==" not in r]
    names = {r.split(">")[0].split("=")[0].strip().lower() for r in plain}
    assert names.isdisjoint({"torch", "transformers", "peft", "trl", "vllm"})


def test_every_plugin_folder_has_an_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    entries = set(project["project"]["entry-points"]["adapterhub.plugins"].values())
    folders = [*(ROOT / "plugins").glob("adapterhub_*"), *(ROOT / "registry").glob("adapterhub_*")]
    assert entries == {f"{folder.name}.plugin" for folder in folders if any(folder.glob("*.py"))}
    contracts = project["tool"]["importlinter"]
    assert {e.partition(".")[0] for e in entries} == set(contracts["root_packages"][1:])


def test_sdist_can_be_built_and_tested_from(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "tests/conftest.py", "Makefile"} <= names
    assert not [n for n in names if n.startswith((".venv", ".cache", ".demo", ".git/"))]


@pytest.fixture(scope="session")
def light(wheel, tmp_path_factory):
    """The folder of scripts of a fresh environment that holds the plain install only."""
    folder = tmp_path_factory.mktemp("light")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", wheel]
    subprocess.run(pip, check=True, capture_output=True, timeout=300)
    return folder / "bin"


@pytest.fixture
def light_adz(light, tmp_path):
    def run(*arguments):
        return subprocess.run(
            [light / "adz", *arguments], capture_output=True, text=True, check=False,
            env={"ADZ_HOME": str(tmp_path / "home"), "PATH": str(light)}, cwd=tmp_path,
        )  # fmt: skip

    return run


def test_light_install_has_no_torch(light):
    found = subprocess.run(
        [light / "python", "-c",
         "from importlib.util import find_spec as f; print(f('torch'), f('transformers'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "None None\n"


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("plugins",), ("ls",), ("base", "ls"), ("train", "--help"),
     ("merge", "--help"), ("serve", "--help"), ("gc",), ("fsck",)],
    ids=" ".join,
)  # fmt: skip
def test_light_install_works_without_torch(light_adz, arguments):
    done = light_adz(*arguments)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_light_install_lists_every_plugin(light_adz):
    lines = light_adz("plugins").stdout.splitlines()
    entries = metadata.entry_points(group="adapterhub.plugins")
    ours = [e for e in entries if e.dist and e.dist.name == "adapterhub"]
    assert len(lines) == len(ours) + 1
    assert all(" loaded " in line for line in lines[1:])


def test_doctor_of_a_light_install_says_what_to_install(light_adz):
    done = light_adz("doctor")
    assert done.returncode == 0
    assert "[train]: pip install 'adapterhub[train]'" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("train", "--data", "data.jsonl"), "[train]"),
        (("eval", "tiny", "--data", "data.jsonl"), "[train]"),
        (("merge", "--linear", "./a", "./b", "--out", "c"), "[merge]"),
        (("serve",), "[vllm]"),
        (("serve", "--engine", "transformers"), "[serve]"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_command_that_lacks_its_extra_says_which(
    light_adz, tiny_base_dir, tmp_path, arguments, extra
):
    (tmp_path / "data.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    added = light_adz("base", "add", "tiny", str(tiny_base_dir))
    assert added.returncode == 0, added.stderr
    done = light_adz(*arguments)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"pip install 'adapterhub{extra}'" in done.stderr
