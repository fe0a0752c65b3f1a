"""The `$` lines of a page's console blocks: run, with what they print below them.

Pages of docs/authors are for people with a plugin: their lines run in an empty folder and an
environment of its own, where `pip install` changes nothing else, and each must succeed. Lines of
other pages run in the project's root, and may show what is refused.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
AUTHORS = ROOT / "docs" / "authors"
_CONSOLE = re.compile(r"(```console\n)(.*?)(```)", re.DOTALL)
_TIME = re.compile(r"\d{4}-\d\d-\d\d([ T])\d\d:\d\d:\d\d")
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")
_SPEED = re.compile(r"\d+ tokens/s")
_SECONDS = re.compile(r"\bin \d+\.\d\ds\b")


def run_page(page: Path, programs: Path | None = None) -> str:
    """The page with the output of its lines; ADZ_HOME is empty at first. Raises SystemExit where
    a line fails that must succeed.

    programs: a folder that stands first in PATH, for pages whose lines run in the project's root.
    """
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        shell = _author_shell(scratch) if page.parent == AUTHORS else _root_shell(scratch, programs)

        def fill(block: re.Match[str]) -> str:
            lines = [line for line in block[2].splitlines() if line.startswith("$ ")]
            return block[1] + "".join(map(shell.run, lines)) + block[3]

        return _CONSOLE.sub(fill, page.read_text(encoding="utf-8"))


class Shell:
    """Runs one line after the other, each in the folder that the last one went to."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], shown: Mapping[Path, str], strict: bool
    ) -> None:
        self._folder = folder
        self._environment = environment
        self._shown = shown
        self._strict = strict

    def run(self, line: str) -> str:
        """The line and its output, without what is true of this run only: folders, times and
        speeds."""
        with tempfile.NamedTemporaryFile("r") as where:
            command = f"{line.removeprefix('$ ')}\nstatus=$?\npwd > {where.name}\nexit $status"
            done = subprocess.run(
                ["bash", "-c", command], cwd=self._folder, env=dict(self._environment), text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                check=False,
            )  # fmt: skip
            self._folder = Path(where.read().strip() or self._folder)
        if self._strict and done.returncode:
            raise SystemExit(f"{line}\n{done.stdout}\nexit code {done.returncode}")
        output = done.stdout.rstrip()
        for path, text in self._shown.items():
            output = output.replace(str(path), text)
        output = _DATE.sub("YYYY-MM-DD", _TIME.sub(r"YYYY-MM-DD\1hh:mm:ss", output))
        output = _SECONDS.sub("in N.NNs", _SPEED.sub("N tokens/s", output))
        return f"{line}\n{output}\n" if output else f"{line}\n"


def _root_shell(scratch: Path, programs: Path | None) -> Shell:
    environment = _environment(Path(sys.executable).parent, scratch)
    if programs is not None:
        environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    return Shell(ROOT, environment, {scratch: "$ADZ_HOME", ROOT: "."}, strict=False)


def _author_shell(scratch: Path) -> Shell:
    home, work = scratch / "home", scratch / "work"
    work.mkdir()
    environment = _environment(_make_environment(scratch / "venv"), home)
    # What is needed is installed already, so nothing is fetched.
    environment |= {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    environment |= {"XDG_CACHE_HOME": str(scratch / "cache"), "OMP_NUM_THREADS": "1"}
    return Shell(work, environment, {home: "$ADZ_HOME", work: "~"}, strict=True)


def _environment(programs: Path, home: Path) -> dict[str, str]:
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "ADZ_HOME": str(home), "PATH": path}


def _make_environment(folder: Path) -> Path:
    """A virtual environment over this one, with `adz` and `pip` of its own; its programs' folder.

    Made in a blink: whatever this one has is there, and what is installed goes into the new one.
    """
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = sysconfig.get_path("purelib")
    (packages / "over.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    for program, module in {"adz": "adapterhub.start", "pip": "pip._internal.cli.main"}.items():
        path = folder / "bin" / program
        path.write_text(
            f"#!{folder}/bin/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
        )
        path.chmod(0o755)
    return folder / "bin"
