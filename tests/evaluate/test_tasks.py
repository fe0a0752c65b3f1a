"""Which rows are evaluated and which are shown."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from adapterhub.errors import AdzError
from adapterhub.evaluate.tasks import read_tasks


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows))
    return path


ROWS = [(f"question {i}", f"answer {i}") for i in range(40)]


def test_a_limit_takes_the_same_rows_whatever_their_order(tmp_path: Path) -> None:
    mixed = ROWS.copy()
    random.Random(1).shuffle(mixed)
    straight = read_tasks([write(tmp_path / "a.jsonl", ROWS)], [], limit=10, shots=3)[0]
    other = read_tasks([write(tmp_path / "b.jsonl", mixed)], [], limit=10, shots=3)[0]
    assert (straight.rows, straight.shots) == (other.rows, other.shots)
    assert [row.prompt for row in straight.rows] != [prompt for prompt, _ in ROWS[:10]]
    more = read_tasks([tmp_path / "a.jsonl"], [], limit=20, shots=0)[0]
    assert more.rows[:10] == straight.rows


def test_shots_never_ask_what_is_evaluated(tmp_path: Path) -> None:
    data = write(tmp_path / "test.jsonl", ROWS[:10])
    source = write(tmp_path / "train.jsonl", ROWS[:12])
    task = read_tasks([data], [source], limit=None, shots=2)[0]
    assert {shot.prompt for shot in task.shots} == {"question 10", "question 11"}
    with pytest.raises(AdzError, match="has 2 rows that are not evaluated, not the 3"):
        read_tasks([data], [source], limit=None, shots=3)
    with pytest.raises(AdzError, match="has 0 rows that are not evaluated"):
        read_tasks([data], [], limit=None, shots=1)


def test_tasks_are_called_like_their_files_or_paths(tmp_path: Path) -> None:
    files = [write(tmp_path / name, ROWS[:2]) for name in ("x.test.jsonl", "y.test.jsonl")]
    assert [task.name for task in read_tasks(files, [], limit=None, shots=0)] == ["x", "y"]
    same = [write(tmp_path / folder / "test.jsonl", ROWS[:2]) for folder in "xy"]
    names = [task.name for task in read_tasks(same, [], limit=None, shots=0)]
    assert names == [str(path) for path in same]


def test_rows_that_ask_nothing_and_unmatched_sources_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "once upon a time"}\n')
    with pytest.raises(AdzError, match="rows without a prompt"):
        read_tasks([text], [], limit=None, shots=0)
    data = write(tmp_path / "test.jsonl", ROWS[:2])
    with pytest.raises(AdzError, match="1 --shots-from for 2 --data"):
        read_tasks([data, data], [data], limit=None, shots=1)
