"""`adz chat` against a server that says what it heard, without a terminal and with one."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .openai_server import Heard, serving


@pytest.fixture
def heard() -> Iterator[Heard]:
    with serving() as found:
        yield found


@pytest.fixture
def chat(adz: Any, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> Any:
    def talk(*lines: str, with_: tuple[str, ...] = ("sql",), options: tuple[str, ...] = ()) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
        return adz("chat", *with_, "--url", heard.url, *options)

    return talk


def test_each_turn_is_asked_with_the_conversation_so_far(chat: Any) -> None:
    done = chat("one", "two", options=("--system", "be kind"))
    assert (done.code, done.err) == (0, "")
    first = "<sql> system: be kind / user: one"
    assert done.out.splitlines() == [
        first,
        f"<sql> system: be kind / user: one / assistant: {first} / user: two",
    ]


def test_commands_change_who_is_asked_and_what_is_remembered(chat: Any) -> None:
    done = chat("one", "/model french", "two", "/clear", "/system s", "three", "/system", "four")
    lines = done.out.splitlines()
    assert lines[1] == "<french> user: one / assistant: <sql> user: one / user: two"
    assert lines[2] == "<french> system: s / user: three"
    assert lines[3].startswith("<french> user: three")
    assert "now french" in done.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/model sqll", "the server has no 'sqll' (did you mean sql?)"),
        ("/model", "/model needs a name (one of base, sql, sql@1, french)"),
        ("/modle x", "there is no command /modle (see /help)"),
        ("/save", "/save needs a file"),
        ("/save x.jsonl", "nothing was said yet"),
        ("please refuse", "the server answered 422: it is damaged"),
    ],
)
def test_a_script_ends_at_its_first_mistake(chat: Any, line: str, words: str) -> None:
    done = chat(line, "more")
    assert done.code in (1, 2)
    assert (words in done.err, done.err.count("\n"), done.out) == (True, 1, "")


def test_a_version_and_an_expression_are_left_to_the_server(chat: Any) -> None:
    done = chat("/model sql@7 sql*0.5+french*0.5", "one")
    assert done.out.splitlines()[1] == "<sql@7> user: one"


def test_several_are_asked_the_same_and_remember_their_own(chat: Any, tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    done = chat("one", "two", f"/save {file}", with_=("sql", "french"))
    assert done.out.splitlines()[:4] == [
        "sql:", "<sql> user: one", "french:", "<french> user: one",
    ]  # fmt: skip
    saved = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["model"] for row in saved] == ["sql", "french"]
    assert [turn["role"] for turn in saved[1]["messages"]] == ["user", "assistant"] * 2
    assert "sql" not in json.dumps(saved[1])
    again = chat("one", f"/save {file}")
    assert (again.code, "is there already" in again.err) == (2, True)
    told = chat("one", with_=("sql", "french"), options=("--json",))
    assert '"text": "<french> user: one"' in told.out


class Terminal:
    """`adz chat` with a terminal of its own."""

    def __init__(self, home: Path, heard: Heard, *references: str, columns: int = 80) -> None:
        command = [sys.executable, "-m", "adapterhub.cli", "chat", *references]
        environment = {**os.environ, "ADZ_HOME": str(home), "COLUMNS": str(columns),
                       "LINES": "40", "TERM": "xterm"}  # fmt: skip
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [*command, "--url", heard.url], environment)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait_for(self, words: str, seconds: float = 60) -> str:
        """What was shown up to and with `words`, without the terminal's codes."""
        deadline = time.monotonic() + seconds
        while words not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"no {words!r} in {self.seen!r}"
            if select.select([self.fd], [], [], left)[0]:
                data = os.read(self.fd, 65536).decode(errors="replace")
                self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data)
        before, self.seen = self.seen.split(words, 1)
        return before + words

    def end(self) -> int:
        self.type("\x04")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_on_a_terminal_ctrl_c_ends_the_answer_and_not_the_chat(home: Path, heard: Heard) -> None:
    terminal = Terminal(home, heard, "sql")
    terminal.wait_for("sql> ")
    terminal.type("go on forever\n")
    terminal.wait_for("<sql> user: go on forever...")
    terminal.type("\x03")
    terminal.wait_for("(interrupted)")
    assert heard.left.wait(10), "the server goes on"
    terminal.wait_for("sql> ")
    terminal.type("/model sqll\n")
    terminal.wait_for("did you mean sql?")
    # The arrow brings the first line back, and the line is edited.
    terminal.type("\x1b[A\x1b[A\x15more\n")
    terminal.wait_for("/ user: more")
    said = heard.requests[-1]["messages"]
    assert said[1]["content"].startswith("<sql> user: go on forever.")
    terminal.type("\x03")
    terminal.wait_for("(interrupted)")
    terminal.wait_for("sql> ")
    assert terminal.end() == 0
    history = home / "chat-history"
    assert "go on forever" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_several_stand_side_by_side_where_the_terminal_is_wide(home: Path, heard: Heard) -> None:
    terminal = Terminal(home, heard, "sql", "french", columns=100)
    terminal.wait_for("sql | french> ")
    terminal.type("hello\n")
    shown = terminal.wait_for("sql | french> ")
    # What is drawn before the second has answered shows the first alone.
    rows = [line for line in shown.splitlines() if "<sql> user: hello" in line]
    assert any("<french> user: hello" in row for row in rows), rows
    assert terminal.end() == 0
