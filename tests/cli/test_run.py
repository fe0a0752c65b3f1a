"""`adz run` with many prompts, against a server that says what it heard."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from .openai_server import Heard, serving


@pytest.fixture
def heard() -> Iterator[Heard]:
    with serving() as found:
        yield found


@pytest.fixture
def run(adz: Any, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> Any:
    def ask(stdin: str, *arguments: str) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        return adz("run", "sql", *arguments, "--url", heard.url)

    return ask


def test_each_line_is_a_prompt_and_the_answers_keep_the_order(run: Any, heard: Heard) -> None:
    done = run("".join(f"line {n}\n" for n in range(12)) + "\n", "--plain", "--at-once", "4")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [f"<sql> line {n}" for n in range(12)]
    assert 1 < heard.most <= 4
    dash = run("one\n", "-", "--plain")
    assert dash.out == "<sql> one\n"


def test_objects_are_prompts_or_chats_and_say_which_version_answered(run: Any) -> None:
    rows = [
        {"prompt": "a\nb"},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "c"}]},
    ]
    lines = "\n".join(json.dumps(row) for row in rows)
    done = run(lines, "--plain", "--json")
    assert [json.loads(line) for line in done.out.splitlines()] == [
        {"line": 1, "model": "sql@1", "text": "<sql> a\nb", "finish_reason": "stop",
         "prompt_format": "plain"},
        {"line": 2, "model": "sql@1", "text": "<sql> system: s / user: c",
         "finish_reason": "stop", "prompt_format": "chat"},
    ]  # fmt: skip
    assert run(lines, "--plain").out.splitlines()[0] == r"<sql> a\nb"


def test_a_line_that_fails_is_told_and_the_others_are_answered(run: Any) -> None:
    lines = '{"prompt": "a"}\n{"prompt": 3}\nnot json\n{"messages": [{"role": "user", "content":' \
            ' "please refuse"}]}\n{"prompt": "b"}\n'  # fmt: skip
    done = run(lines, "--plain")
    assert done.code == 1
    assert done.out.splitlines() == ["<sql> a", "", "", "", "<sql> b"]
    errors = done.err.splitlines()
    assert [error.partition(":")[0] for error in errors] == ["line 2", "line 3", "line 4"]
    assert "it is damaged" in errors[2]
    told = [json.loads(line) for line in run(lines, "--plain", "--json").out.splitlines()]
    assert [("error" in row, row["line"]) for row in told] == [
        (False, 1), (True, 2), (True, 3), (True, 4), (False, 5)
    ]  # fmt: skip


def test_a_full_server_is_asked_again(run: Any, heard: Heard) -> None:
    heard.busy = 3
    done = run("one\ntwo\n", "--plain")
    assert (done.code, done.out.splitlines()) == (0, ["<sql> one", "<sql> two"])
    assert len(heard.requests) == 5


def test_a_single_prompt_that_is_refused_is_one_line(run: Any) -> None:
    done = run("", "please refuse", "--chat")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "the server answered 422: it is damaged" in done.err


def test_without_a_prompt_on_a_terminal_the_use_is_said(
    adz: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    done = adz("run", "sql")
    assert (done.code, "there is no prompt" in done.err) == (2, True)


def test_lines_are_answered_in_this_process_where_no_server_runs(
    adz: Any, tiny_base: Any, commit_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    commit_adapter("sql")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    monkeypatch.setattr("adapterhub.serve.client.DEFAULT_URL", url)
    lines = '{"prompt": "x y"}\n{"prompt": ""}\n{"no": 1}\n{"prompt": "x"}\n'
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    done = adz("run", "sql", "--max-tokens", "4", "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 1
    assert [row.get("model", "error") for row in rows] == ["sql@1", "error", "error", "sql@1"]
    alone = adz("run", "sql", "x", "--max-tokens", "4", "--json")
    assert json.loads(alone.out)["text"] == rows[3]["text"]
