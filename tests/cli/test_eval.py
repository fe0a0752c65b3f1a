"""`adz eval`: the table, JSON, and what it says to bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "letters.test.jsonl"
    rows = [{"prompt": f"{i} ", "completion": chr(97 + i)} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_table_has_a_row_for_the_base_and_each_reference(
    adz: Any, commit_adapter: Any, data: Path
) -> None:
    commit_adapter("sql")
    done = adz("eval", "sql", "--data", data, "--limit", "5", "--shots", "2")
    assert done.code == 0, done.err
    head, *rows = done.out.splitlines()
    assert head.startswith("exact_match % [95 %], n = 5")
    assert head.endswith("letters")
    assert [row.split("  ")[0] for row in rows] == ["tiny (2-shot)", "sql"]
    assert rows[1].split("  ")[-1].strip() == "0.0 [0.0, 43.4]"
    shown = json.loads(adz("eval", "sql", "--data", data, "--json").out)
    assert [(s["subject"], s["reference"], s["n"]) for s in shown] == [
        ("tiny", "tiny", 8),
        ("sql", "sql@1", 8),
    ]


def test_bad_input_is_one_line(adz: Any, commit_adapter: Any, data: Path, tmp_path: Path) -> None:
    commit_adapter("sql")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for arguments, code, words in (
        (("sqll", "--data", data), 2, "did you mean sql?"),
        (("sql", "--data", data, "--metric", "exactmatch"), 2, "did you mean exact_match?"),
        (("sql", "--data", data, "--base", "tinny"), 2, "did you mean tiny?"),
        (("sql", "--data", empty), 1, "is empty"),
        (("sql", "--data", tmp_path / "none.jsonl"), 2, "there is no data file"),
        (("sql",), 2, "--data"),
        (("sql", "--data", data, "--shots", "1"), 2, "0 rows that are not evaluated"),
        (("sql", "--data", data, "--url", "http://127.0.0.1:9/v1"), 1, "no server answers"),
    ):
        done = adz("eval", *arguments)
        lines = [line for line in done.err.splitlines() if line.startswith("adz: ")]
        assert (done.code, done.out, len(lines)) == (code, "", 1), done.err
        assert words in lines[0], lines[0]
        assert "Traceback" not in done.err
