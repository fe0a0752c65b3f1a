"""What runs in a fork is not to be told from what starts anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LINES = [
    "adz --version",
    "adz nope 2>&1; echo $?",
    "adz ls 2>&1 | head -n 1",
    "python -m adapterhub.cli base ls 2>&1; echo $?",
    "echo in | OF_MINE=1 python -c 'import adapterhub, os, sys; "
    'print(input(), sys.argv, os.environ["OF_MINE"], os.getcwd())\' a "b c"',
    "python -c 'import adapterhub, sys; adapterhub.mine = 1; sys.exit(7)'; echo $?; "
    "python -c 'import adapterhub; print(hasattr(adapterhub, \"mine\"))'",
    "python -c 'import adapterhub; 1 / 0' 2>&1 | tail -n 1",
    "timeout --preserve-status 2 python -c 'import adapterhub, time; time.sleep(60)'; echo $?",
    "python -c 'import adapterhub, os; os.kill(os.getpid(), 9)'; echo $?",
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_does_what_it_does_without(line: str, programs: Path, home: Path) -> None:
    def run(folder: Path) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", line], env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
            cwd=home.parent, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    assert run(programs) == run(Path(sys.executable).parent)
