"""Reading data sets: every format, and every way in which a file can be wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from adapterhub.data import read_examples
from adapterhub.errors import EXIT_USAGE, AdzError
from adapterhub.protocols import Example

ROW = {"prompt": "Q: a\nA:", "completion": " b\u2028c"}
EXAMPLE = Example(prompt="Q: a\nA:", completion=" b\u2028c")


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8"
    )
    return path


def test_a_data_set_knows_its_file_its_digest_and_its_format(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "train.jsonl", [ROW, ROW])
    data = read_examples(path)
    assert data.examples == [EXAMPLE, EXAMPLE]
    assert data.record() == {
        "file": "train.jsonl",
        "sha256": "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest(),
        "rows": 2,
        "format": "prompt_completion",
    }


def test_columns_name_what_stands_for_a_formats_column(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"question": "q", "answer": "a", "prompt": 3}])
    data = read_examples(path, columns={"prompt": "question", "completion": "answer"})
    assert data.examples == [Example(prompt="q", completion="a")]
    with pytest.raises(AdzError, match=r"line 1: the column 'questoin' is not there; there are q"):
        read_examples(path, columns={"prompt": "questoin"})


def test_blank_lines_count_but_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"text": "a"}\n\n{"text": 3}\n')
    with pytest.raises(AdzError, match=r"a\.jsonl line 4: the column 'text' holds int, not text"):
        read_examples(path)


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n')
    assert [e.completion for e in read_examples(path).examples] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        ('{"text": "a"}\n[1]\n', "line 2 is [1], not an object"),
        ('{"text": "a"}\n{"txet": "b"}\n', "line 2: the column 'text' is not there"),
        ('{"text": "a"}\n{"text": ""}\n', "line 2: the column 'text' is empty"),
        ('{"text": "a"}\n{"text": null}\n', "line 2: the column 'text' is empty"),
        ("", "is empty"),
        ("\n \n", "is empty"),
        ('[{"text": "a"}]', 'line 1 is [{"text": "a"}], not an object'),
        (b'{"text": "a"}\n{"text": "\xe9"}', "line 2 is not UTF-8"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "line 1: the last message is not"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "no message before"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "message 1 has the role 'robot'"),
        (
            '{"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}',
            "message 1: the column 'content' is not there",
        ),
        ('{"messages": ["a"]}', "message 1 is not a mapping"),
        ('{"messages": []}', "the last message is not"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AdzError) as caught:
        read_examples(path)
    assert message in caught.value.message
    assert "bad.jsonl" in caught.value.message


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "no.jsonl", "no data file"), (tmp_path, "is a directory")):
        with pytest.raises(AdzError, match=message) as caught:
            read_examples(path)
        assert caught.value.exit_code == EXIT_USAGE


def test_an_unknown_layout_lists_the_formats_and_the_columns(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"frage": "a", "antwort": "b"}])
    with pytest.raises(AdzError) as caught:
        read_examples(path)
    assert "frage, antwort" in caught.value.message
    assert "prompt_completion (prompt, completion" in caught.value.hint


def test_a_layout_that_fits_two_formats_is_never_guessed(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "a", "completion": "b", "text": "ab"}])
    with pytest.raises(AdzError, match="fits 2 formats: prompt_completion, text"):
        read_examples(path)
    assert read_examples(path, "text").examples == [Example(completion="ab")]
    assert read_examples(path, "prompt-completion").format == "prompt_completion"


def test_an_unknown_format_offers_the_nearest(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a"}])
    with pytest.raises(AdzError, match="did you mean alpaca"):
        read_examples(path, "alpacca")
