"""The pytest plugin: fixtures for the tests of a plugin. Nothing happens until one is asked for.

Installed with adapterhub (entry point `pytest11`); imports neither torch nor pydantic.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

# Written by the kit, read by people: pytest explains their asserts as it does a test's own.
pytest.register_assert_rewrite("adapterhub.testing.conformance")


@dataclass(frozen=True)
class Result:
    """What a run of `adz` did: its exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


class Adz(Protocol):
    """Runs `adz` with these arguments."""

    def __call__(self, *arguments: str | Path) -> Result: ...


class WithPlugin(Protocol):
    """Makes a plugin loadable for the rest of the test, in this process and in its children.

    source: a project's folder (with its pyproject.toml), which need not be installed, or the
    text of a plugin's one module. Returns the name of the distribution.
    """

    def __call__(self, source: str | Path) -> str: ...


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty `ADZ_HOME`; plugins are loaded anew, so nothing leaks between tests."""
    from adapterhub.plugins import load_plugins

    folder = tmp_path / "adz-home"
    monkeypatch.setenv("ADZ_HOME", str(folder))
    load_plugins.cache_clear()
    yield folder
    load_plugins.cache_clear()


@pytest.fixture
def adz(home: Path) -> Adz:
    """Run `adz` in this process, on the `home` of the test; never raises for a user's mistake."""
    from adapterhub.cli import main

    def run(*arguments: str | Path) -> Result:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main([str(a) for a in arguments])
        return Result(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def registry(home: Path) -> Any:
    """The registry of the test's `home`, a `protocols.Registry`."""
    from adapterhub.plugins import open_registry

    return open_registry()


@pytest.fixture(scope="session")
def tiny_base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama as a Hugging Face directory: see `write_tiny_base`."""
    from adapterhub.testing import write_tiny_base

    return write_tiny_base(tmp_path_factory.mktemp("bases") / "tiny-llama")


@pytest.fixture
def tiny_base(adz: Adz, tiny_base_dir: Path) -> Any:
    """The record of the tiny base, known as `tiny` in the `home` of this test."""
    from adapterhub.plugins import open_registry

    added = adz("base", "add", "tiny", tiny_base_dir)
    assert added.code == 0, added.err
    return open_registry().base("tiny")


@pytest.fixture
def tiny_adapters(tiny_base: Any, tmp_path: Path) -> list[Any]:
    """Three LoRA versions over `tiny`: `tiny-a` of rank 2, `tiny-b` of rank 4, and `tiny-c` of
    rank 4 that adapts the first layer only."""
    from adapterhub.testing.adapters import commit_tiny_adapters

    return commit_tiny_adapters(tiny_base, tmp_path / "tiny-adapters")


@pytest.fixture
def with_plugin(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WithPlugin]:
    """Try a plugin that is not installed: see `WithPlugin`."""
    from adapterhub.plugins import load_plugins
    from adapterhub.testing.distribution import place

    folders: list[str] = []

    def add(source: str | Path) -> str:
        placed = place(source, tmp_path / f"plugin-{len(folders)}")
        for folder in map(str, placed.folders):
            monkeypatch.syspath_prepend(folder)
            known = os.environ.get("PYTHONPATH")
            monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{known}" if known else folder)
            folders.append(folder)
        load_plugins.cache_clear()
        return placed.distribution

    yield add
    # A later test may bring another module of the same name.
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if any(file.startswith(folder + os.sep) for folder in folders):
            del sys.modules[name]
