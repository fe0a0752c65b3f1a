"""Kinds of files and folders: the same rows from each, and the line of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from adapterhub.data import read_examples
from adapterhub.data.containers import read_rows, write_rows
from adapterhub.errors import EXIT_USAGE, AdzError

TEXTS = [
    {"prompt": 'Say "a, b"\nnow', "completion": " \u2028c"},
    {"prompt": "Zwölf\ttabs", "completion": "x, y"},
    {"prompt": "last", "completion": "é"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
CHATS = [
    {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes?", "name": "me"},
        ],
        "tools": TOOLS,
    },
    {"messages": [{"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Well"}]},
]


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"])
def test_rows_of_texts_come_back_from_every_kind_of_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    write_rows(path, iter(TEXTS))
    assert [row for _, row in read_rows(path)] == TEXTS


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_chats_come_back_without_the_nulls_of_others(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    write_rows(path, iter(CHATS))
    assert [row for _, row in read_rows(path)] == CHATS
    assert read_examples(path).format == "messages"


def test_other_libraries_read_what_is_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", iter(TEXTS))
    assert parquet.read_table(tmp_path / "rows.parquet").to_pylist() == TEXTS
    for suffix, builder in ((".jsonl", "json"), (".csv", "csv")):
        write_rows(tmp_path / f"rows{suffix}", iter(TEXTS))
        read = datasets.load_dataset(
            builder,
            data_files=str(tmp_path / f"rows{suffix}"),
            split="train",
            cache_dir=str(tmp_path / "cache"),
        )
        assert read.to_list() == TEXTS


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    datasets.Dataset.from_list(TEXTS).save_to_disk(tmp_path / "one")
    data = read_examples(tmp_path / "one")
    assert [example.prompt for example in data.examples] == [row["prompt"] for row in TEXTS]
    assert data.file == "one"
    both = datasets.DatasetDict(
        train=datasets.Dataset.from_list(TEXTS[:2]), test=datasets.Dataset.from_list(TEXTS[2:])
    )
    both.save_to_disk(tmp_path / "two")
    with pytest.raises(AdzError, match="holds the splits test, train") as caught:
        read_examples(tmp_path / "two")
    assert caught.value.exit_code == EXIT_USAGE
    assert read_examples(tmp_path / "two" / "test").rows == 1


def test_the_digest_of_a_folder_is_of_its_rows(tmp_path: Path) -> None:
    for name, rows in (("a", TEXTS), ("b", TEXTS), ("c", TEXTS[:2])):
        datasets.Dataset.from_list(rows).save_to_disk(tmp_path / name)
    first, second, other = (read_examples(tmp_path / name).sha256 for name in "abc")
    assert first == second
    assert first != other


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[]", "a.json is empty"),
        ("a.json", '[{"text": "a"},\n 3]', "a.json row 2 (line 2) is 3, not an object"),
        ("a.json", '[{"text": "a"},\n {"text": 3}]', "a.json row 2 (line 2): the column 'text'"),
        ("a.json", '[\n{"text": "a"},\n\n {"text":\n }]', "a.json line 5 is not JSON"),
        ("a.json", '[{"text": "a"}\n {"text": "b"}]', "a.json line 2 is not JSON: expecting ','"),
        ("a.json", '[{"text": "a"}', "a.json line 1 is not JSON"),
        ("a.json", '[{"text": "a"}]\n]', "a.json goes on after the end of its list"),
        ("a.json", b'[\n{"text": "\xe9"}]', "a.json line 2 is not UTF-8"),
        ("a.json", '{"text": "a"}\n{"text": 3}\n', "a.json line 2: the column 'text'"),
        ("a.csv", 'text\na\n"b\nb"\n""\n', "a.csv line 5: the column 'text' is empty"),
        ("a.csv", "prompt,completion\na,b\nc\n", "a.csv line 3 has 1 cells, the header 2"),
        ("a.csv", 'text\na\n"b"c\n', "a.csv line 3 is malformed"),
        ("a.csv", 'text\na\n"b\n', "a.csv line 3 is malformed"),
        ("a.csv", "text,text\na,b\n", "a.csv line 1 is no header: text, text"),
        ("a.csv", b"text\na\n\xe9\n", "a.csv is not UTF-8"),
        ("a.csv", "", "a.csv is empty"),
        ("a.parquet", "PAR1", "a.parquet is no Parquet file"),
        ("a.xlsx", "x", "a.xlsx is no kind of file that holds rows"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    name: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AdzError) as caught:
        read_examples(path)
    assert message in caught.value.message


def test_a_bad_row_of_a_parquet_file_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = ["a"] * 2000 + [None]
    parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=700)
    with pytest.raises(AdzError, match=r"a\.parquet row 2001: the column 'text' is not there"):
        read_examples(path)


@pytest.mark.parametrize(
    ("suffix", "rows", "message"),
    [
        (".csv", CHATS, "the column 'messages' holds list, a cell is a text"),
        (".csv", [{"text": "a"}, {"txet": "b"}], "the rows differ in their columns"),
        (".parquet", [{"text": "a"}] * 1024 + [{"text": [1]}], "the rows differ in their types"),
    ],
)
def test_what_a_kind_of_file_cannot_hold_is_an_error(
    suffix: str, rows: list[Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(AdzError, match=message):
        write_rows(tmp_path / f"a{suffix}", iter(rows))


def test_a_byte_order_mark_is_no_part_of_a_header_or_a_list(tmp_path: Path) -> None:
    for name, content in (("a.csv", "text\na\n"), ("a.json", json.dumps([{"text": "a"}]))):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert [row for _, row in read_rows(tmp_path / name)] == [{"text": "a"}]


def test_a_name_of_the_hub_without_its_prefix_is_explained(tmp_path: Path) -> None:
    with pytest.raises(AdzError, match="is hub:owner/name"):
        read_examples(Path("owner/name"))
