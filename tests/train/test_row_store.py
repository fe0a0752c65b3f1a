"""Token rows that memory should not hold: the same rows, and the same adapter."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterhub.protocols import Registry
from adapterhub.train import row_store
from adapterhub.train.pipeline import train
from adapterhub.train.row_store import Row, StoredRows, keep_rows
from adapterhub.train.rows import Rows

LARGE = os.environ.get("TEST_LARGE_DATA")

ROWS = [
    Row((1, 2, 3), 1),
    Row((4, 5), 1, rejected=(6, 7, 8)),
    Row((9,), 0, desirable=False),
    Row((9, 200_000), 0, desirable=True),
    Row(tuple(range(12)), 9, earlier=((2, 4), (5, 7))),
]


def test_what_is_stored_is_what_was_kept(home: Path) -> None:
    stored = keep_rows(iter(ROWS), limit=3)
    assert isinstance(stored, StoredRows)
    assert list(stored) == ROWS
    assert stored[1:4] == ROWS[1:4]
    assert stored[-1] == ROWS[-1]
    with pytest.raises(IndexError):
        stored[len(ROWS)]
    assert list(Rows(stored).lengths) == Rows(ROWS).lengths == [3, 2, 1, 2, 12]
    assert Rows(stored).tokens == 20
    assert keep_rows(iter(ROWS), limit=10**6) == ROWS


def test_of_what_is_stored_memory_holds_an_index(home: Path) -> None:
    def long_rows() -> Iterator[Row]:
        for number in range(5_000):
            yield Row(tuple(range(number, number + 400)), 10)

    tracemalloc.start()
    stored = keep_rows(long_rows(), limit=10_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Two million tokens: 72 MB as they are, 8 MB on disk.
    assert len(stored) == 5_000
    assert peak < 2_000_000


def test_rows_on_disk_train_the_same_adapter(
    plan_for: Callable[..., Any], registry: Registry, progress: Any, monkeypatch: Any
) -> None:
    first = train(plan_for(), registry, progress)
    monkeypatch.setattr(row_store, "IN_MEMORY", 50)
    again = train(plan_for(), registry, progress)
    assert again.manifest.payload == first.manifest.payload


LIMITED = """
import sys
from adapterhub.data import store
from adapterhub.train import row_store

store.IN_MEMORY, row_store.IN_MEMORY = 16_000_000, 1_000_000
from adapterhub.cli import main

sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(LARGE is None, reason="TEST_LARGE_DATA=300 reads so many MB, for minutes")
def test_memory_does_not_grow_with_the_data(registry: Registry, home: Path, tmp_path: Path) -> None:
    def peak(megabytes: int) -> int:
        """Bytes that a process of `adz train --dry-run` took at most; children's is a maximum."""
        data = tmp_path / "data.jsonl"
        with data.open("w") as file:
            for number in range(megabytes * 1000):
                row = {"prompt": f"{number}: ", "completion": "word " * 190}
                file.write(json.dumps(row) + "\n")
        arguments = ["train", "--data", str(data), "--dry-run"]
        environment = {**os.environ, "ADZ_HOME": str(home)}
        command = [sys.executable, "-c", LIMITED, *arguments]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024

    small, large = peak(1), peak(int(LARGE or 0))
    print(f"1 MB: {small / 1e6:.0f} MB, {LARGE} MB: {large / 1e6:.0f} MB")
    # As Python keeps them, the tokens alone would be 36 times the file.
    assert large - small < 250e6
