"""Ctrl-C before the command line is there."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What is imported early, and what a class of the command line is made from.
CODE = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from {start} import main
sys.exit(main())
"""


def started() -> str:
    """The module that the installed `adz` imports first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, name = project["project"]["scripts"]["adz"].partition(":")
    assert name == "main"
    return module


@pytest.mark.parametrize("module", ["adapterhub.cli", "click", "adapterhub.errors"])
def test_ctrl_c_while_importing_is_one_line(module: str) -> None:
    code = CODE.format(module=module, start=started())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "adz: interrupted\n")
