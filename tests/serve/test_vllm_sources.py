"""What we rely on inside vLLM, looked up in its source: of the vLLM that is installed, and with
ADZ_TEST_VLLM_WHEELS=DIR (1 GB is downloaded into it) of the wheels for GPUs, which need not
be installed for that."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterhub.protocols import ServeSettings
from adapterhub.serve.doors.settings import door_settings
from adapterhub_vllm.settings import ServerSettings

VERSIONS = ("0.31.0", "0.32.0", "0.33.0")
WHEELS = os.environ.get("ADZ_TEST_VLLM_WHEELS")

# Every check that is made at start, written down as it is made.
SCRIPT = """
import json, os, sys
os.environ.update(json.loads(sys.argv[1]))
from adapterhub_vllm import contract
found = []

def noting(check, exact):
    def note(given, *names):
        pairs = given.items() if exact else [(given, names[0])]
        found.extend([f.__module__, f.__qualname__, list(n), exact] for f, n in pairs)
        return check(given, *names)
    return note

contract.check_signatures = noting(contract.check_signatures, True)
contract.check_accepts = noting(contract.check_accepts, False)
from adapterhub_vllm.general import register
register()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def checked() -> list[tuple[str, str, list[str], bool]]:
    """Module, name, parameters, and whether there may be no others."""
    pytest.importorskip("vllm")
    settings = ServerSettings("tiny", 16, 8, door_settings(ServeSettings("tiny"), 4))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(settings.to_environment())],
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(entry) for entry in json.loads(done.stdout.splitlines()[-1])]


def parameters(source: str, name: str) -> list[str] | None:
    """Those of a function, or the fields of a class, as written; None where it is not there."""
    node: ast.AST = ast.parse(source)
    for part in name.split("."):
        body = getattr(node, "body", [])
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        inside = [one for one in body if isinstance(one, kinds) and one.name == part]
        if not inside:
            return None
        node = inside[-1]
    if isinstance(node, ast.ClassDef):
        fields = [one.target for one in node.body if isinstance(one, ast.AnnAssign)]
        return [field.id for field in fields if isinstance(field, ast.Name)]
    given = node.args  # type: ignore[attr-defined]
    found = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [one.arg for one in found if one is not None]


def assert_all_there(
    checked: list[tuple[str, str, list[str], bool]], read: Callable[[str], str]
) -> None:
    assert len(checked) >= 15
    differing = []
    for module, name, expected, exact in checked:
        found = parameters(read(module.replace(".", "/") + ".py"), name)
        names = None if found is None else found if exact else [n for n in found if n in expected]
        if name.endswith("create_error_response") and names:
            names = [one for one in names if one != "self"]
        if names != expected:
            differing.append((module, name, expected, found))
    assert not differing


def test_the_source_of_the_installed_vllm_has_all_that_is_checked_at_start(
    checked: list[tuple[str, str, list[str], bool]],
) -> None:
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    parent = Path(spec.origin).parent.parent
    assert_all_there(checked, lambda path: (parent / path).read_text(encoding="utf-8"))


@pytest.mark.skipif(not WHEELS, reason="ADZ_TEST_VLLM_WHEELS names no directory")
@pytest.mark.parametrize("version", VERSIONS)
def test_the_source_of_the_standard_wheel_has_it_too(
    checked: list[tuple[str, str, list[str], bool]], version: str
) -> None:
    folder = Path(str(WHEELS))
    if not list(folder.glob(f"vllm-{version}-*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
        subprocess.run([*pip, f"vllm=={version}"], check=True)
    (wheel,) = folder.glob(f"vllm-{version}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert_all_there(checked, lambda path: archive.read(path).decode())


def test_a_function_that_is_not_there_or_differs_is_seen() -> None:
    source = "class A:\n    def f(self, x, *rest, y=1, **more): ...\ndef g(a, /, b): ...\n"
    assert parameters(source, "A.f") == ["self", "x", "rest", "y", "more"]
    assert parameters(source, "g") == ["a", "b"]
    assert parameters(source, "A.h") is None
    with pytest.raises(AssertionError):
        assert_all_there([("m", "g", ["a"], True)] * 15, lambda path: source)
