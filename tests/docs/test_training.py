"""The page about training shows what its commands print."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from adapterhub.cli import main

from .page_output import ROOT, console_steps, squeezed

PAGE = ROOT / "docs" / "training.md"


def run(line: str) -> str:
    """What a line prints. `adz` runs in this process, which has torch and all else loaded; what
    stands behind a pipe, and every other program, in a shell."""
    command, _, rest = line.partition(" | ")
    words = shlex.split(os.path.expandvars(command))
    if words[0] != "adz":
        return shell(line, "")
    output, errors = io.StringIO(), io.StringIO()
    hidden = words[-2:] == ["2>", "/dev/null"]
    words = words[: -2 if hidden else None]
    beside = words[-1] == "2>&1" or not (rest or hidden)
    with redirect_stdout(output), redirect_stderr(output if beside else errors):
        main([word for word in words[1:] if word != "2>&1"])
    # `adz` in a process of its own hides the bars of the libraries.
    printed = "".join(x for x in output.getvalue().splitlines(keepends=True) if "it/s]" not in x)
    return shell(rest, printed) if rest else printed


def shell(command: str, given: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], input=given, env={**os.environ, "PATH": path}, cwd=ROOT,
        check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.stdout


def stable(text: str) -> list[str]:
    """Without folders, speeds, the machine, and the last digits of losses."""
    text = text.replace(os.environ["ADZ_HOME"], "$ADZ_HOME").replace(str(ROOT), ".")
    text = re.sub(r"^profile\b.*$", "profile", text, flags=re.MULTILINE)
    text = re.sub(r"\d+ tokens/s", "N tokens/s", text)
    text = re.sub(r"(\d\.\d{3}) +\d+( +best)?$", r"\1 N\2", text, flags=re.MULTILINE)
    text = re.sub(r"\d+\.\d+|\d+%", "N", text)
    return squeezed(text)


def test_the_page_shows_what_its_commands_print(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text = PAGE.read_text("utf-8")
    lines = console_steps(text)
    assert len(lines) == text.count("\n$ adz ") + 3
    for line, output in lines:
        assert stable(run(line)) == stable(output), line
