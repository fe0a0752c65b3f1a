"""What commands print with: tables, results, progress, and the line for a missing extra."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import textwrap

import pytest

from adapterhub.cli.extras import missing_module, requirements_by_extra
from adapterhub.cli.output import TerminalProgress, format_table, print_result


def test_table_aligns_text_left_and_numbers_right():
    assert format_table(("name", "n"), [("a", 5), ("long", 120)]) == (
        "name    n\na       5\nlong  120"
    )


def test_table_without_rows_is_its_header():
    assert format_table(("name", "n"), []) == "name  n"


def test_result_is_text_or_json(capsys):
    print_result({"ü": [1]}, "text", as_json=False)
    assert capsys.readouterr().out == "text\n"
    print_result({"ü": [1]}, "text", as_json=True)
    out = capsys.readouterr().out
    assert json.loads(out) == {"ü": [1]}
    assert "ü" in out


def test_progress_without_a_terminal_is_a_line_on_stderr(capsys):
    progress = TerminalProgress()
    with progress.task("training", 3) as task:
        task.advance(3, "loss 0.1")
    progress.warn("careful")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "training\nwarning: careful\n")


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_progress_on_a_terminal_is_a_bar(no_color, coloured):
    code = """
        from adapterhub.cli.output import TerminalProgress
        with TerminalProgress().task("training", 3) as task:
            for _ in range(3):
                task.advance(1, "loss 0.1")
    """
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    environment |= {"NO_COLOR": no_color} if no_color else {}
    master, slave = pty.openpty()
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], stderr=slave, check=True,
                   env=environment)  # fmt: skip
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert b"training" in shown
    assert b"3/3" in shown
    assert b"loss 0.1" in shown
    assert (b"\x1b[3" in shown) is coloured


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [("trl", "train", "train"), ("torch", "merge", "merge"), ("torch", "eval", "train"),
     ("transformers", "serve", "serve"), ("peft.utils", "run", "train")],
)  # fmt: skip
def test_missing_module_names_the_extra(module, command, extra):
    error = missing_module(ModuleNotFoundError("no", name=module), command)
    assert error is not None
    assert error.hint == f"pip install 'adapterhub[{extra}]'"
    assert error.exit_code == 1


def test_module_of_no_extra_is_a_bug_of_ours():
    assert missing_module(ModuleNotFoundError("no", name="adapterhub.nothing"), "train") is None


def test_every_extra_is_known():
    assert {"train", "merge", "serve", "vllm", "vllm-cpu", "all"} <= set(requirements_by_extra())
