"""`adz data check` and `adz data convert`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROWS = [{"instruction": f"Say {n}", "input": "", "output": str(n)} for n in range(40)]


@pytest.fixture
def alpaca(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_check_shows_what_training_would_see(adz: Any, alpaca: Path) -> None:
    done = adz("data", "check", alpaca)
    assert done.code == 0, done.err
    for part in (
        "format     alpaca (answers to learn); recognised from the first row",
        "rows       40, ",
        "objectives grpo, rloo, sft",
        "user: 'Say 0'",
        "assistant: '0'",
    ):
        assert part in done.out
    assert "warning" not in done.out


def test_check_finds_copies_and_contradictions(adz: Any, alpaca: Path) -> None:
    with alpaca.open("a") as file:
        file.write(json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[1] | {"output": "no"}) + "\n")
    done = adz("data", "check", alpaca)
    assert "warning: 1 rows are exact copies" in done.out
    assert "warning: 1 questions are asked again with another answer" in done.out
    facts = json.loads(adz("data", "check", alpaca, "--json").out)
    assert (facts["duplicates"], facts["contradictions"]) == (1, 1)


def test_columns_are_named(adz: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answer\nq,a\n")
    refused = adz("data", "check", path)
    assert refused.code == 2
    assert "has the columns question, answer, which no format knows" in refused.err
    arguments = ("--column", "prompt=question", "--column", "completion=answer")
    assert "prompt_completion" in adz("data", "check", path, *arguments).out
    assert "'x' is not OURS=THEIRS" in adz("data", "check", path, "--column", "x").err


@pytest.mark.parametrize("to", ["messages", "sharegpt", "alpaca"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_a_data_set_comes_back_from_every_format(
    to: str, suffix: str, adz: Any, alpaca: Path, tmp_path: Path
) -> None:
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.jsonl"
    done = adz("data", "convert", alpaca, there, "--to", to)
    assert done.code == 0, done.err
    assert done.out == f"{there}  40 rows ({to})\n"
    assert done.err == "read as alpaca\n"
    assert adz("data", "convert", there, back, "--to", "alpaca").code == 0
    assert [json.loads(line) for line in back.read_text().splitlines()] == ROWS


def test_what_would_be_lost_is_refused_and_nothing_is_written(
    adz: Any, alpaca: Path, tmp_path: Path
) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with_tools = {"messages": [{"role": "tool", "content": "x"}, *chat]}
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": chat}) + "\n" + json.dumps(with_tools) + "\n")
    target = tmp_path / "out.jsonl"
    refused = adz("data", "convert", path, target, "--to", "alpaca")
    assert refused.code == 1
    assert "chats.jsonl row 2 cannot be written as alpaca: the alpaca layout has no tools" in (
        refused.err
    )
    kinds = adz("data", "convert", path, target, "--to", "preference")
    assert kinds.code == 2
    assert "messages rows cannot be written as preference" in kinds.err
    assert "they can be as alpaca, messages, prompt_completion, sharegpt, text" in kinds.err
    assert sorted(p.name for p in tmp_path.glob("*out*")) == []
    there = adz("data", "convert", path, alpaca)
    assert there.code == 2
    assert "is there already" in there.err


def test_a_malformed_file_is_one_line(adz: Any, alpaca: Path, tmp_path: Path) -> None:
    with alpaca.open("a") as file:
        file.write('{"instruction": "x"}\n')
    for arguments in (("check", alpaca), ("convert", alpaca, tmp_path / "o.json")):
        done = adz("data", *arguments)
        assert done.code == 1
        assert "train.jsonl line 41: the column 'output' is not there" in done.err
        assert len(done.err.strip().splitlines()) == 1
    unknown = adz("data", "convert", alpaca, tmp_path / "o.docx")
    assert unknown.code == 2
    assert "o.docx is no kind of file that holds rows" in unknown.err
